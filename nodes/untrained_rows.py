"""Checks of a comparison's rows whose adapters are still to be trained in the same prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..comparison.errors import ComparisonError
from ..trainers.errors import LikenessError
from .cells import TRAIN_NODES, Node, is_link
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


def check_untrained_rows(prompt: Mapping[str, Node], matrix: str) -> None:
    """Raises ComparisonError if the node `matrix` names what the trainings will not write.

    That is, '@ steps' of a training that saves no intermediate files, or in `pose_rows` a name that
    no row will have. What cannot be known yet passes.
    """
    inputs = prompt[matrix]["inputs"]
    text, pose_rows = inputs.get("adapters"), inputs.get("pose_rows")
    if not isinstance(text, str):
        return
    sockets = {socket: socket for socket in SOCKETS if inputs.get(socket) is not None}
    try:
        rows = resolve_sockets(parse_rows(text, adapter_names()), sockets)
        assign_labels(rows)
    except LikenessError:  # which the Matrix reports
        return
    trainings = {socket: _train_node(prompt, inputs[socket]) for socket in sockets}
    for row in rows:
        if row.all_steps and (training := trainings.get(row.name)):
            _check_steps(prompt, row, training)
    if isinstance(pose_rows, str):
        _check_pose_rows(pose_rows, rows)


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


def _check_pose_rows(pose_rows: str, rows: list[Row]) -> None:
    """Rows without a name get that of a file, which is not known: a finished run may be reused."""
    if not all(row.label for row in rows if row.all_steps or row.name in SOCKETS):
        return
    names = {row.label for row in assign_labels(rows)}
    steps = [re.compile(re.escape(row.label) + r"_\d+") for row in rows if row.all_steps]
    for label in list_pose_rows(pose_rows):
        if label not in names and not any(one.fullmatch(label) for one in steps):
            raise ComparisonError(
                f"pose_rows: there will be no row {label!r}. The rows are {', '.join(names)}."
            )
