"""File names with ``*`` and ``?`` as rows of a comparison: the files and the rows' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ..trainers.recipe_parts import slugify
from .errors import ComparisonError
from .matrix import MAX_VARIANTS

ENDING = ".safetensors"
_WILDCARDS = re.compile(r"([*?]+)")
_CHARACTER = r"[^/\\]"
_SIMILAR = 0.4  # of difflib's ratio, 0 to 1


def is_pattern(name: str) -> bool:
    """Whether a file name has wildcards."""
    return _WILDCARDS.search(name) is not None


def expand_pattern(
    pattern: str, names: Iterable[str], row: str, place: str, roots: Iterable[str] = ()
) -> dict[str, str]:
    """As `match_files`; `row` and `place`, where the files are, are for messages.

    Raises ComparisonError if no file matches, or more than a comparison has rows.
    """
    names = list(names)
    found = match_files(pattern, names, roots)
    if not found:
        similar = _similar_names(pattern, names)
        hint = f" Similar names: {', '.join(similar)}." if similar else ""
        raise ComparisonError(f"{row}: no file in {place} matches {pattern!r}.{hint}")
    if len(found) > MAX_VARIANTS:
        raise ComparisonError(
            f"{row}: {pattern!r} matches {len(found):,} files, and a comparison has at most "
            f"{MAX_VARIANTS} rows. Write more of the name."
        )
    return found


def match_files(pattern: str, names: Iterable[str], roots: Iterable[str] = ()) -> dict[str, str]:
    """The matching `names` in natural order (2 before 10), with what the wildcards stand for.

    ``*`` is any text and ``?`` one character, both within one folder; ``/`` and ``\\`` are the
    same. A name may be prefixed with one of the folders `roots`, which the pattern may omit.
    """
    expression = _compile(pattern, roots)
    matches = {name: match for name in names if (match := expression.fullmatch(name))}
    return {name: _wildcard_text(matches[name]) for name in sorted(matches, key=natural_key)}


def _compile(pattern: str, roots: Iterable[str]) -> re.Pattern[str]:
    """The pattern with a group w0, w1, … for each run of wildcards.

    Each ``*`` but the last matches the first place that fits and is not tried again: otherwise
    several of them take exponentially long on some names. Lookahead stands for the atomic groups
    that Python 3.10 lacks.
    """
    start, *rest = _WILDCARDS.split(pattern)
    pieces = [_literal(start)]
    for number, (run, text) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
        count, is_star = run.count("?"), "*" in run
        repeat = f"{{{count},}}?" if is_star else f"{{{count}}}"
        piece = f"(?P<w{number}>{_CHARACTER}{repeat}){_literal(text)}"
        if is_star:
            pieces.append(piece)
        else:
            pieces[-1] += piece
    atomic = (f"(?=(?P<a{n}>{piece}))(?P=a{n})" for n, piece in enumerate(pieces[:-1]))
    prefix = "|".join(re.escape(root) for root in roots)
    return re.compile(rf"(?:(?:{prefix})/)?" * bool(prefix) + "".join(atomic) + pieces[-1])


def _literal(text: str) -> str:
    return "".join(r"[/\\]" if one in "/\\" else re.escape(one) for one in text)


def _wildcard_text(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return "-".join(text for name, text in groups.items() if name[0] == "w").removesuffix(ENDING)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts names as people do: by the numbers in them, ignoring case."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


def _similar_names(pattern: str, names: Iterable[str]) -> list[str]:
    stems = {_stem(name): name for name in names}
    wanted = _stem(_WILDCARDS.sub("", pattern))
    similar = [stems[one] for one in get_close_matches(wanted, stems, cutoff=_SIMILAR)]
    return sorted(similar, key=natural_key)


def _stem(name: str) -> str:
    return re.split(r"[/\\]", name.lower())[-1].removesuffix(ENDING)


def label_matches(label: str, matches: Mapping[str, str]) -> list[str]:
    """Names of the rows of a pattern called `label`: followed by what the wildcards stand for.

    A single file has the label itself.
    """
    found: list[str] = []
    for text in matches.values():
        part = slugify(text.replace(".", "-"), max(8, 56 - len(label))).strip("-_")
        name = f"{label}_{part}" if part and len(matches) > 1 else label
        found.append(unique_label(name, {one.lower() for one in found}))
    return found


def unique_label(label: str, taken: Iterable[str]) -> str:
    """The label, numbered if it is among `taken`, which are in lower case."""
    taken, name, number = set(taken), label, 1
    while name.lower() in taken:
        number += 1
        name = f"{label}-{number}"
    return name
