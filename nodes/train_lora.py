"""Likeness_TrainLoRA: trains a LoRA."""

from __future__ import annotations

from typing import Any

from ..trainers.adapter_names import LORA_PREFIX_UNET
from . import host
from .host import ADVANCED, io
from .sockets import LoraModelType
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
from .widgets import bool_widget, float_widget, int_widget, with_search_aliases


class TrainLoRA(io.ComfyNode):
    """Trains low-rank adapters of the UNet and, optionally, of the text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_TrainLoRA",
            display_name="Train LoRA (Likeness)",
            category="Likeness",
            description=(
                "Trains a LoRA of the subject: a small file that ComfyUI and most SD 1.5 programs "
                "load onto the base model. Training runs in its own process and can be cancelled "
                "at any time; an identical training run is reused instead of repeated."
            ),
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            not_idempotent=True,  # each node shows its run
            inputs=[
                *source_inputs(),
                int_widget(
                    "rank",
                    4,
                    1,
                    512,
                    "Size of the LoRA: 1 keeps the main features, 8 the details.",
                ),
                # adamw is faster than adamw8bit, and a LoRA's optimizer state is small anyway.
                *hyperparameter_inputs(1e-4, "adamw"),
                *_lora_inputs(),
            ],
            outputs=[
                *adapter_outputs(),
                LoraModelType.Output(
                    id="lora",
                    display_name="lora",
                    tooltip="The UNet's weights, for core's Load LoRA Model and Save LoRA Weights.",
                ),
                *record_outputs(),
            ],
        )
        return with_search_aliases(
            schema, "finetune", "fine-tune", "trainer", "lora training", "dora"
        )

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
    def execute(
        cls,
        rank: int,
        alpha: float = 0.0,
        targets: str = "attention",
        dora: bool = False,
        rslora: bool = False,
        dropout: float = 0.0,
        **inputs: Any,
    ) -> io.NodeOutput:
        """(adapter name, LORA_MODEL, LOSS_MAP, report, base name). Raises LikenessError."""
        method = {
            "kind": "lora",
            "rank": rank,
            "alpha": alpha or None,
            "targets": targets,
            "dora": dora,
            "rslora": rslora,
            "dropout": dropout,
        }
        result = train_from_inputs(method, cls.hidden, **inputs)
        tensors = host.read_tensors(result.adapter)
        return io.NodeOutput(
            adapter_name(result, host.output_folder() / "loras"),
            {name: tensor for name, tensor in tensors.items() if name.startswith(LORA_PREFIX_UNET)},
            loss_map(result),
            report(result),
            inputs["base_model"],
        )


def _lora_inputs() -> list[io.Input]:
    return [
        float_widget(
            "alpha",
            0.0,
            0.0,
            4096.0,
            0.5,
            "LoRA alpha: the weights are scaled by alpha / rank. 0: same as the rank.",
            advanced=True,
        ),
        io.Combo.Input(
            "targets",
            options=["attention", "linear", "all"],
            default="attention",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Layers to train: attention, all linear layers, or convolutions too. More "
            "layers come closer to a face at the same rank, in a larger file.",
        ),
        bool_widget(
            "dora",
            "Weight-decomposed LoRA (arXiv:2402.09353), for ComfyUI and Forge.",
            advanced=True,
        ),
        bool_widget(
            "rslora",
            "Scales by alpha / sqrt(rank) instead of alpha / rank (arXiv:2312.03732). With alpha 0 "
            "the scale is sqrt(rank) instead of 1: set alpha, or lower the learning rate.",
            advanced=True,
        ),
        float_widget(
            "dropout",
            0.0,
            0.0,
            0.95,
            0.05,
            "Fraction of the LoRA's inputs dropped at random in each step.",
            advanced=True,
        ),
    ]
