"""Likeness_TrainLoRA: a small adapter beside the model's weights."""

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
    """Trains low-rank adapters of the UNet and, if wanted, of the text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_TrainLoRA",
            display_name="Train LoRA (Likeness)",
            category="Likeness",
            description=(
                "Teaches the subject to a LoRA: a small file that any program loads onto the base "
                "model. Training runs in a process of its own; cancel works at any time, and an "
                "equal training is reused instead of repeated."
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
                    "Size of the adapter: 1 keeps the main features, 8 the details.",
                ),
                *hyperparameter_inputs(
                    1e-4, "adamw"
                ),  # which is faster, and has next to no state here
                *_lora_inputs(),
            ],
            outputs=[
                *adapter_outputs(),
                LoraModelType.Output(
                    id="lora",
                    display_name="lora",
                    tooltip="The UNet's part, for core's Load LoRA Model and Save LoRA Weights.",
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
        """Changes when the base model's file does, and when a stopped run is to go on."""
        return fingerprint(base_model)

    @classmethod
    def execute(
        cls,
        rank: int,
        alpha: float = 0.0,
        targets: str = "attention",
        dora: bool = False,
        rank_stabilised: bool = False,
        dropout: float = 0.0,
        **inputs: Any,
    ) -> io.NodeOutput:
        """(adapter name, LORA_MODEL, LOSS_MAP, report). Raises LikenessError."""
        method = {
            "kind": "lora",
            "rank": rank,
            "alpha": alpha or None,
            "targets": targets,
            "dora": dora,
            "rank_stabilised": rank_stabilised,
            "dropout": dropout,
        }
        result = train_from_inputs(method, cls.hidden, **inputs)
        tensors = host.read_tensors(result.adapter)
        return io.NodeOutput(
            adapter_name(result, host.output_folder() / "loras"),
            {name: tensor for name, tensor in tensors.items() if name.startswith(LORA_PREFIX_UNET)},
            loss_map(result),
            report(result),
        )


def _lora_inputs() -> list[io.Input]:
    return [
        float_widget(
            "alpha",
            0.0,
            0.0,
            4096.0,
            0.5,
            "Scale of the adapter, divided by the rank; 0: equal to the rank.",
            advanced=True,
        ),
        io.Combo.Input(
            "targets",
            options=["attention", "linear", "all"],
            default="attention",
            optional=True,
            extra_dict=ADVANCED,
            tooltip="Adapted layers: attention, all linear ones, or convolutions too. More of them "
            "come closer to a face at the same rank, in a larger file.",
        ),
        bool_widget(
            "dora",
            "Weight-decomposed LoRA (arXiv:2402.09353), for ComfyUI and Forge.",
            advanced=True,
        ),
        bool_widget(
            "rank_stabilised",
            "Alpha divided by the root of the rank instead of the rank (arXiv:2312.03732). With "
            "alpha 0 all counts as many times as that root: set alpha, or a lower rate.",
            advanced=True,
        ),
        float_widget(
            "dropout",
            0.0,
            0.0,
            0.95,
            0.05,
            "Share of the adapter's inputs left out at random in each step.",
            advanced=True,
        ),
    ]
