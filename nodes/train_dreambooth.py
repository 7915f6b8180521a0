"""Likeness_TrainDreamBooth: fine-tunes all of the model's weights."""

from __future__ import annotations

from typing import Any

from . import host
from .host import io
from .recipe_builder import AUTO
from .training import (
    adapter_name,
    adapter_outputs,
    fingerprint,
    hyperparameter_inputs,
    loss_map,
    record_outputs,
    report,
    source_inputs,
    train_from_inputs,
    validate_train_inputs,
)
from .widgets import with_search_aliases


class TrainDreamBooth(io.ComfyNode):
    """Fine-tunes the whole UNet and, optionally, the text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_TrainDreamBooth",
            display_name="Train DreamBooth (Likeness)",
            category="Likeness",
            description=(
                "Fine-tunes all weights of the model on the subject and saves a full checkpoint "
                "(2 GB). The closest likeness, but it takes more memory and time than a LoRA. "
                "Training runs in its own process and can be cancelled at any time."
            ),
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            not_idempotent=True,  # each node shows its run
            inputs=[*source_inputs(), *hyperparameter_inputs(2e-6, AUTO)],
            outputs=[*adapter_outputs(), *record_outputs()],
        )
        return with_search_aliases(schema, "finetune", "fine-tune", "trainer", "full training")

    @classmethod
    def validate_inputs(
        cls, base_model: str | None = None, name: str | None = None, optimizer: str | None = None
    ) -> bool:
        """Cheap checks before the queue starts. Raises LikenessError."""
        return validate_train_inputs(base_model, name, optimizer)

    @classmethod
    def fingerprint_inputs(cls, base_model: str | None = None, **_: Any) -> str:
        """Changes when the base model's file changes and when a stopped run is to resume."""
        return fingerprint(base_model)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """(checkpoint name, LOSS_MAP, report, base name). Raises LikenessError."""
        result = train_from_inputs({"kind": "dreambooth"}, cls.hidden, **inputs)
        return io.NodeOutput(
            adapter_name(result, host.output_folder() / "checkpoints"),
            loss_map(result),
            report(result),
            inputs["base_model"],
        )
