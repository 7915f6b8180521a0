"""Checks of a comparison's rows whose adapters are still to be trained in the same prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..comparison.errors import ComparisonError
from ..trainers.errors import LikenessError
from ..trainers.recipe_parts import slugify
from .cells import Node, is_link
from .load_adapter import adapter_names
from .rows import (
    SOCKETS,
    Row,
    assign_labels,
    list_pose_rows,
    parse_rows,
    resolve_sockets,
)

OPTIONS = "Likeness_TrainOptions"
TRAIN_NODES = ("Likeness_TrainLoRA", "Likeness_TrainDreamBooth")


def check_untrained_rows(prompt: Mapping[str, Node], matrix: str) -> None:
    """Raises ComparisonError if the node `matrix` names what the trainings will not write.

    That is, '@ steps' of a training that saves no intermediate files, or in `pose_rows` a name that
    no row can get. What cannot be known yet, such as files of other packs' nodes, passes.
    """
    inputs = prompt[matrix]["inputs"]
    text, pose_rows = inputs.get("adapters"), inputs.get("pose_rows")
    if not isinstance(text, str):
        return
    sockets = {socket: socket for socket in SOCKETS if inputs.get(socket) is not None}
    try:
        rows = resolve_sockets(parse_rows(text, adapter_names()), sockets)
        labelled = assign_labels(rows)
    except LikenessError:  # which the Matrix reports
        return
    trainings = {socket: _train_node(prompt, inputs[socket]) for socket in sockets}
    for row in rows:
        if row.all_steps and (training := trainings.get(row.name)):
            _check_steps(prompt, row, training)
    if isinstance(pose_rows, str):
        _check_pose_rows(pose_rows, rows, labelled, trainings)


def _train_node(prompt: Mapping[str, Node], link: Any) -> Node | None:
    node = prompt.get(link[0]) if is_link(link) else None
    return node if node and node.get("class_type") in TRAIN_NODES else None


def _check_steps(prompt: Mapping[str, Node], row: Row, training: Node) -> None:
    steps, link = training["inputs"].get("steps"), training["inputs"].get("options")
    options = prompt.get(link[0]) if is_link(link) else None
    if options is not None and options.get("class_type") != OPTIONS:
        return
    every = options["inputs"].get("save_adapter_every", 0) if options else 0
    if isinstance(every, int) and isinstance(steps, int) and not 0 < every < steps:
        raise ComparisonError(
            f"Matrix row {row.label or row.name!r}: its training will save no intermediate files. "
            f"Set save_adapter_every in Train Options to less than its {steps} steps, or remove "
            "'@ steps'."
        )


def _check_pose_rows(
    pose_rows: str, rows: list[Row], labelled: list[Row], trainings: Mapping[str, Node | None]
) -> None:
    """A row without a name gets its file's, which begins with its train node's `name`."""
    known = {new.label for row, new in zip(rows, labelled, strict=True) if _is_named(row)}
    prefixes = []
    for row in rows:
        if row.all_steps or not _is_named(row):
            name = row.label or _name_of(trainings.get(row.name))
            if not name:
                return
            prefixes.append(slugify(name.replace(".", "-"), 48).lower())
    for label in list_pose_rows(pose_rows):
        if label not in known and not label.lower().startswith(tuple(prefixes)):
            raise ComparisonError(
                f"pose_rows: there will be no row {label!r}. Name rows in adapters, such as "
                "'r4 = adapter_1', and use those names."
            )


def _is_named(row: Row) -> bool:
    return bool(row.label) or row.name not in SOCKETS


def _name_of(training: Node | None) -> str | None:
    name = training["inputs"].get("name") if training else None
    return name if isinstance(name, str) else None
