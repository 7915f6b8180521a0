"""Likeness_TrainOptions: training settings that seldom need changing."""

from __future__ import annotations

from typing import Any

from ..trainers.recipe_checks import check_preview_prompts
from .host import io, output_folder
from .option_list import all_options, first_options, later_options
from .recipe_builder import AUTO, check_packages, resolve_attention
from .runs import NEW_RUN, find_run, run_digest, run_names
from .sockets import OptionsType
from .values import TrainOptions
from .widgets import with_search_aliases


def _run_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "validate_every",
            default=0,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Steps between validation losses; needs Subject's holdout. 0: never.",
        ),
        io.Combo.Input(
            "continue_from",
            options=[NEW_RUN, *run_names(output_folder())],
            default=NEW_RUN,
            optional=True,
            tooltip="Continues a finished training: set the train node's steps to the total of old "
            "and new steps. Press R to refresh the list.",
        ),
    ]


class TrainOptionsNode(io.ComfyNode):
    """The recipe's other fields; without this node, the study's values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="Likeness_TrainOptions",
            display_name="Train Options (Likeness)",
            category="Likeness",
            description=(
                "Training settings that seldom need changing. Connect to a train node's options; "
                "without this node, the defaults shown here are used."
            ),
            inputs=[
                *(option.widget for option in first_options()),
                *_run_inputs(),
                *(option.widget for option in later_options()),
            ],
            outputs=[OptionsType.Output(id="options", display_name="options")],
        )
        return with_search_aliases(schema, "training settings", "optimizer", "scheduler")

    @classmethod
    def validate_inputs(
        cls,
        continue_from: str | None = None,
        attention: str | None = None,
        preview_prompts: str | None = None,
    ) -> bool:
        """Checks that the run to continue exists, the attention backend is installed, and preview
        prompts have no flags.

        Raises LikenessError.
        """
        check_packages(compute={"attention": resolve_attention(attention or AUTO)})
        check_preview_prompts((preview_prompts or "").splitlines())
        _continued(continue_from)
        return True

    @classmethod
    def execute(
        cls, validate_every: int = 0, continue_from: str = NEW_RUN, **chosen: Any
    ) -> io.NodeOutput:
        """The options as recipe parts; they are validated when the recipe is built."""
        parts: dict[str, dict[str, Any]] = {}
        for option in all_options():
            parts.setdefault(option.part, {})[option.field] = option.value_of(chosen)
        return io.NodeOutput(TrainOptions(parts, validate_every, _continued(continue_from)))


def _continued(run: str | None) -> str | None:
    return None if run in (None, NEW_RUN) else run_digest(find_run(output_folder(), str(run)))
