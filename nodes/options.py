"""Likeness_TrainOptions: training settings that seldom need changing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainers.errors import LikenessError, RecipeError
from ..trainers.recipe_checks import check_preview_prompts
from .field_names import errors_name_widgets
from .host import ADVANCED, io, output_folder
from .load_adapter import adapter_names, find_adapter
from .option_list import all_options, first_options, later_options
from .paths import file_fingerprint
from .recipe_builder import AUTO, check_packages, resolve_attention
from .runs import NEW_RUN, find_run, run_digest, run_names
from .sockets import OptionsType
from .values import TrainOptions
from .widgets import with_search_aliases

NEW_WEIGHTS = "none"


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


def _start_input() -> io.Input:
    return io.Combo.Input(
        "start_from",
        options=[NEW_WEIGHTS, *adapter_names(("loras",))],
        default=NEW_WEIGHTS,
        optional=True,
        extra_dict=ADVANCED,
        tooltip="LoRA file, of any program, whose weights Train LoRA starts from "
        "(network_weights in kohya's scripts). Not with continue_from. Press R to refresh the "
        "list.",
    )


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
                _start_input(),
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
        start_from: str | None = None,
    ) -> bool:
        """Checks that the run to continue or the file to start from exists, the attention backend
        is installed, and preview prompts have no flags.

        Raises LikenessError.
        """
        check_packages(compute={"attention": resolve_attention(attention or AUTO)})
        with errors_name_widgets():
            check_preview_prompts((preview_prompts or "").splitlines())
        continued = _continued(continue_from)
        if _start_file(start_from) and continued:
            raise RecipeError(
                "continue_from takes the whole state of an earlier training, and start_from only "
                f"the weights of a file: set one of them to {NEW_RUN!r} or {NEW_WEIGHTS!r}."
            )
        return True

    @classmethod
    def fingerprint_inputs(cls, start_from: str | None = None, **_: object) -> str:
        """Changes when the file to start from is replaced."""
        try:
            return file_fingerprint(path) if (path := _start_file(start_from)) else ""
        except LikenessError as error:
            return str(error)

    @classmethod
    def execute(
        cls,
        validate_every: int = 0,
        continue_from: str = NEW_RUN,
        start_from: str = NEW_WEIGHTS,
        **chosen: Any,
    ) -> io.NodeOutput:
        """The options as recipe parts; they are validated when the recipe is built."""
        parts: dict[str, dict[str, Any]] = {}
        for option in all_options():
            parts.setdefault(option.part, {})[option.field] = option.value_of(chosen)
        continued, start = _continued(continue_from), _start_file(start_from)
        return io.NodeOutput(TrainOptions(parts, validate_every, continued, start))


def _continued(run: str | None) -> str | None:
    return None if run in (None, NEW_RUN) else run_digest(find_run(output_folder(), str(run)))


def _start_file(name: str | None) -> Path | None:
    """The LoRA file to start from, or None. Raises AdapterError if it does not exist."""
    return None if name in (None, NEW_WEIGHTS) else find_adapter(str(name))
