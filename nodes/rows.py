"""The rows of a Matrix, from its text and its sockets. Does not import ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from ..comparison.errors import ComparisonError
from ..comparison.file_patterns import (
    expand_pattern,
    is_pattern,
    label_matches,
    match_files,
    unique_label,
)
from ..comparison.matrix import MAX_VARIANTS
from ..trainers.adapter_files import group_by_step, is_intermediate, run_name_from
from ..trainers.recipe_parts import check_name, slugify

BASE = "none (base)"  # the choice of Load Adapter that leaves the model as it is
KINDS = ("loras", "checkpoints", "diffusers")  # of Load Adapter's files, which may prefix a name
SOCKETS = tuple(f"adapter_{number}" for number in range(1, 9))
MAX_STRENGTH = 2.0  # same as Load Adapter
SYNTAX_HINT = (
    "A row is a file name, 'base', or 'adapter_1' for a connected adapter; 'r4 = ' before it sets "
    "the row's name, ' @ 0.7' after it the strength, and ' @ steps' adds its intermediate files. "
    "A file name with '*' is a row for each file that matches."
)
_STRENGTH = re.compile(r"(.*?)\s*@\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)|steps)", re.IGNORECASE)


class Row(NamedTuple):
    """A row: its label or "", a file name, BASE or one of SOCKETS, and the adapter's strength.

    With `all_steps` it also stands for the intermediate files of the same training.
    """

    label: str
    name: str
    strength: float = 1.0
    all_steps: bool = False


def parse_rows(text: str, files: Collection[str] = ()) -> list[Row]:
    """Parses the lines: ``file``, ``label = file``, ``file @ 0.7`` or ``file @ steps``.

    Spaces around ``=`` and ``@`` are optional; a line that is one of `files` as a whole means that
    file. A file name with ``*`` or ``?`` is a row for each of `files` that matches, in natural
    order. Lines starting with ``#`` are skipped. Raises ComparisonError for an invalid strength, a
    pattern that matches nothing, and too many rows.
    """
    known = frozenset(files)
    rows = [row for line in _lines(text) for row in _expand_pattern(line, _row(line, known), known)]
    if len(rows) > MAX_VARIANTS:
        raise ComparisonError(
            f"The Matrix has {len(rows):,} rows, and a comparison at most {MAX_VARIANTS}: remove "
            "some lines, or write more of a name with '*'."
        )
    return rows


def _row(line: str, files: Collection[str]) -> Row:
    """A line's first reading whose file exists or whose pattern matches, otherwise its last."""
    readings = list(_candidate_parses(line))
    known = (one for one in readings if one[0].name in (*files, *SOCKETS) or _is_base(one[0].name))
    matching = (one for one in readings if _is_matching(one[0].name, files))
    row, has_at = next(chain(known, matching), readings[-1])
    base = row.name == "base" or (_is_base(row.name) and row.name not in files)
    if abs(row.strength) > MAX_STRENGTH or (base and has_at):
        raise ComparisonError(
            f"Matrix row {line!r}: a strength ranges from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}; "
            "the base takes neither a strength nor steps."
        )
    return row._replace(name=BASE) if base else row


def _is_matching(name: str, files: Collection[str]) -> bool:
    return is_pattern(name) and bool(match_files(name, files, KINDS))


def _expand_pattern(line: str, row: Row, files: Collection[str]) -> list[Row]:
    """The rows of a line; with `all_steps` one for each training, which `expand_steps` expands.

    Trainings without intermediate files then have their final one, unless none has any.
    """
    if row.name in files or not is_pattern(row.name):
        return [row]
    found = expand_pattern(row.name, files, f"Matrix row {line!r}", "Load Adapter's list", KINDS)
    if row.all_steps:
        names = _one_of_each_training(found)
        found = {name: text for name, text in found.items() if name in names}
    labels = label_matches(row.label, found) if row.label else [""] * len(found)
    rows = [row._replace(label=label, name=name) for label, name in zip(labels, found, strict=True)]
    steps = group_by_step(files) if row.all_steps else {}
    if not any(run_name_from(one.name) in steps for one in rows):
        return rows  # `expand_steps` reports it
    return [one._replace(all_steps=run_name_from(one.name) in steps) for one in rows]


def _one_of_each_training(names: Iterable[str]) -> set[str]:
    """Of each training's files its final one, or if that is missing one saved on the way."""
    chosen: dict[str, str] = {}
    for name in names:
        run = run_name_from(name)
        if is_intermediate(chosen.setdefault(run, name)):
            chosen[run] = name
    return set(chosen.values())


def _candidate_parses(line: str) -> Iterator[tuple[Row, bool]]:
    """Possible readings of a line, from a bare file name to all parts; whether each uses ``@``."""
    before, equals, after = line.partition(" = " if " = " in line else "=")
    split = [(normalize("NFC", before.strip()), after.strip())] if equals else []
    for label, name in [("", line), *split]:
        yield Row(label, name), False
        if match := _STRENGTH.fullmatch(name):
            all_steps = match[2].lower() == "steps"
            yield (
                Row(label, match[1].strip(), 1.0 if all_steps else float(match[2]), all_steps),
                True,
            )


def _is_base(name: str) -> bool:
    return name.lower() == "base"


def resolve_sockets(lines: Iterable[Row], connected: Mapping[str, str]) -> list[Row]:
    """The rows with named sockets replaced by their files, then a row for each other socket.

    `connected` maps sockets to files. Raises ComparisonError for a socket that is not connected.
    """
    lines = list(lines)
    for label, name, *_ in lines:
        if name in SOCKETS and name not in connected:
            raise ComparisonError(
                f"Matrix row {label or name!r} refers to {name}, but nothing is connected to it: "
                "connect a train node's adapter, or remove the line."
            )
    named_here = {row.name for row in lines}
    rows = [row._replace(name=connected.get(row.name, row.name)) for row in lines]
    return rows + [Row("", name) for socket, name in connected.items() if socket not in named_here]


def expand_steps(rows: Iterable[Row], files: Iterable[str]) -> list[Row]:
    """The rows, with those of `all_steps` expanded to one per file of their training, by step.

    The final file comes last and has the row's own label. Raises ComparisonError if `files` has
    no intermediate files of a training.
    """
    files = set(files)
    steps, found = group_by_step(files), list[Row]()
    for row in rows:
        if not row.all_steps:
            found.append(row)
            continue
        run = run_name_from(row.name)
        if run not in steps:
            raise ComparisonError(
                f"Matrix row {row.label or row.name!r}: its training saved no intermediate files. "
                "Set save_adapter_every in Train Options and train again, or remove '@ steps'."
            )
        last = f"{run}.safetensors"
        label = row.label or _unique_label(Row("", last), {one.label.lower() for one in found})
        found += [Row(f"{label}_{number}", file) for number, file in sorted(steps[run].items())]
        if not is_intermediate(row.name):
            last = row.name
        if last in files:
            found.append(Row(label, last))
    return found


def check_rows(
    text: str, connected: Iterable[str], pose_rows: str, files: Collection[str] = ()
) -> None:
    """Raises ComparisonError for errors that do not depend on the names of connected files.

    `connected` are sockets, `files` the existing names. A row without a label is labelled by its
    file, so `pose_rows` is checked only if every connected row has a label and no row stands for
    several files.
    """
    rows = resolve_sockets(parse_rows(text, files), {socket: socket for socket in connected})
    _check_labels(row.label for row in rows if row.label)
    if all(not row.all_steps and (row.label or row.name not in SOCKETS) for row in rows):
        parse_pose_rows(pose_rows, (row.label for row in assign_labels(rows)))


def _check_labels(labels: Iterable[str]) -> None:
    taken: set[str] = set()
    for label in labels:
        try:
            check_name(label)
        except ValueError as error:
            raise ComparisonError(f"Matrix row {label!r} has an invalid name: {error}.") from None
        if label.lower() in taken:
            raise ComparisonError(f"Two rows are called {label!r}: rename one.")
        taken.add(label.lower())


def assign_labels(rows: Iterable[Row]) -> list[Row]:
    """The rows with labels; missing ones are derived from the file names.

    Raises ComparisonError if there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ComparisonError(
            "The Matrix has no adapters: enter one per line, such as 'base', or connect a train "
            "node's adapter."
        )
    taken = {row.label.lower() for row in rows if row.label}
    found = []
    for row in rows:
        label = row.label or _unique_label(row, taken)
        taken.add(label.lower())
        found.append(row._replace(label=label))
    return found


def _unique_label(row: Row, taken: set[str]) -> str:
    stem = "base" if row.name == BASE else Path(row.name.replace("\\", "/")).stem
    label = slugify(stem.replace(".", "-"), 48).strip("-_") or "adapter"
    if row.strength != 1:
        label += f"_{row.strength:g}"
    return unique_label(label, taken)


def parse_pose_rows(text: str, labels: Iterable[str]) -> set[str]:
    """The labels that `text` names, one per line; all of them if it names none.

    Raises ComparisonError for a line that is not a label.
    """
    labels, chosen = list(labels), list_pose_rows(text)
    for line in chosen:
        if line not in labels:
            raise ComparisonError(
                f"pose_rows: there is no row {line!r}. The rows are {', '.join(labels)}."
            )
    return set(chosen or labels)


def list_pose_rows(text: str) -> list[str]:
    """The lines of a Matrix's pose_rows, in NFC."""
    return [normalize("NFC", line) for line in _lines(text)]


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
