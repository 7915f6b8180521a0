"""What is known of a comparison while its prompt is validated, before anything is trained.

ComfyUI passes a node's `validate_inputs` only that node's widgets. The whole prompt is passed to
prompt handlers (`on_prompt`), in the task that then validates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..comparison.keypoints import yoga_poses
from ..comparison.matrix import Plan, plan_from_data
from ..comparison.prompts import PromptSet, prompt_set_from_text
from ..trainers.errors import LikenessError
from ..trainers.memory import set_mmap_threshold
from .cells import Node, is_link
from .load_adapter import adapter_names
from .prompt_set import static_prompts
from .rows import BASE, SOCKETS, Row, assign_labels, parse_pose_rows, parse_rows, resolve_sockets

MATRIX, PROMPTS = "Likeness_Matrix", "Likeness_PromptSet"
_PLACEHOLDER_DIGEST = "0" * 64
_current_prompt: ContextVar[Mapping[str, Node]] = ContextVar("likeness_current_prompt")


def on_prompt(data: dict[str, Any]) -> dict[str, Any]:
    """A prompt handler: remembers the request's prompt and returns the request unchanged."""
    set_mmap_threshold(False)  # a cancelled comparison may have left it on
    prompt = data.get("prompt")
    _current_prompt.set(prompt if isinstance(prompt, dict) else {})
    return data


def current_prompt() -> Mapping[str, Node]:
    """The prompt being validated; {} if unknown."""
    return _current_prompt.get({})


@dataclass(frozen=True)
class StaticPlan:
    """A plan with placeholders for unknown values; `names_known`: row and column names are real."""

    plan: Plan
    names_known: bool


def static_plan(prompt: Mapping[str, Node], matrix: str) -> StaticPlan | None:
    """The plan that the node `matrix` will make; None if unknown or refused by the Matrix."""
    inputs = prompt[matrix]["inputs"]
    text = inputs.get("adapters")
    if prompt[matrix].get("class_type") != MATRIX or not isinstance(text, str):
        return None
    try:
        sockets = {socket: socket for socket in SOCKETS if inputs.get(socket) is not None}
        lines = resolve_sockets(parse_rows(text, adapter_names()), sockets)
        prompts = _prompts(prompt, inputs.get("prompts"))
        return _build_plan(inputs, lines, prompts)
    except (LikenessError, KeyError):
        return None


def _prompts(prompt: Mapping[str, Node], link: Any) -> PromptSet | None:
    node = prompt[link[0]] if is_link(link) else {}
    if node.get("class_type") != PROMPTS:
        return None
    widgets = ("prompts", "text", "token", "class_word", "negative")
    values = (node["inputs"].get(name) for name in widgets)
    return static_prompts(*(value if isinstance(value, str) else None for value in values))


def _build_plan(
    inputs: Mapping[str, Any], lines: list[Row], prompts: PromptSet | None
) -> StaticPlan:
    draws, with_pose, pose_rows = (inputs.get(name) for name in ("draws", "with_pose", "pose_rows"))
    known = isinstance(draws, int) and isinstance(with_pose, str)
    labels_known = all(
        not row.all_steps and (row.label or row.name not in SOCKETS) for row in lines
    )
    rows = assign_labels(lines)
    labels = {row.label for row in rows}
    posed = labels
    if isinstance(pose_rows, str):
        posed = parse_pose_rows(pose_rows, labels) if labels_known else labels
    else:
        known = False
    plan = plan_from_data(
        {
            "variants": tuple(_variant(row, row.label in posed) for row in rows),
            "prompts": prompts or prompt_set_from_text("a = a"),
            "poses": yoga_poses(),
            "with_pose": with_pose if isinstance(with_pose, str) else "without",
            "draws": draws if isinstance(draws, int) else 1,
        }
    )
    return StaticPlan(plan, known and labels_known and prompts is not None)


def _variant(row: Row, posed: bool) -> dict[str, Any]:
    return {
        "name": row.label,
        "adapter": None if row.name == BASE else _PLACEHOLDER_DIGEST,
        "strength_unet": row.strength,
        "with_pose": None if posed else "without",
    }
