"""Scores formatted as a text table, an HTML table, and a line below an image."""

from __future__ import annotations

from .charts import whisker
from .estimates import Estimate, format_score
from .html import Html, join, tag
from .matrix import Plan
from .scores import Measure, Scores

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_AMONG = "the photographs among themselves"


def format_scores(plan: Plan, scores: Scores) -> str:
    """A line for each measure and row, and the notes on measures that are left out."""
    lines = []
    for measure in scores.measures:
        lines.append(f"{measure.label}{ARROWS[measure.better]}, {measure.encoder}")
        found = list(zip(plan.rows(), scores.rows[measure.key], strict=True))
        found.append((_AMONG, scores.photographs[measure.key]))
        wide = max(len(name) for name, one in found if one)
        lines += [f"  {name:<{wide}}  {one.text()}" for name, one in found if one]
    return "\n".join([*lines, *scores.notes])


def format_cell_scores(scores: Scores | None, place: int) -> str:
    """A cell's subject and prompt match, as the line below its image."""
    if scores is None:
        return ""
    parts = []
    for kind in ("subject", "prompt"):
        keys = [m.key for m in scores.measures if m.key.startswith(f"{kind}.")]
        values = (scores.cells[key][place] for key in keys)
        found = next((value for value in values if value is not None), None)
        parts += [f"{kind} {found:.2f}"] if found is not None else []
    return " · ".join(parts)


def score_table(plan: Plan, scores: Scores) -> Html:
    """Rows and measures with intervals, explanations of the measures, and the notes."""
    notes = tag("ul", [tag("li", note) for note in scores.notes], class_="notes")
    if not scores.measures:
        return notes
    head = tag("tr", tag("td"), [_head(measure) for measure in scores.measures])
    lines = [_line(scores, row, name) for row, name in enumerate(plan.rows())]
    table = tag("table", tag("thead", head), tag("tbody", lines, _photographs(scores)))
    meanings = {measure.label: measure.meaning for measure in scores.measures}
    return join(
        tag("div", table, class_="wide", tabindex=0),
        tag("p", "Means over prompts, with 95 % bootstrap intervals.", class_="hint"),
        tag("dl", [(tag("dt", label), tag("dd", text)) for label, text in meanings.items()]),
        notes if scores.notes else None,
    )


def _head(measure: Measure) -> Html:
    label = tag("b", measure.label + ARROWS[measure.better])
    better = f"; {measure.better} is better" if measure.better else ""
    return tag("th", label, tag("p", measure.encoder), title=measure.meaning + better)


def _line(scores: Scores, row: int, name: str) -> Html:
    cells = [_score(scores, m.key, scores.rows[m.key][row]) for m in scores.measures]
    return tag("tr", tag("th", name, scope="row"), cells)


def _photographs(scores: Scores) -> Html | None:
    found = [scores.photographs[measure.key] for measure in scores.measures]
    if not any(found):
        return None
    cells = [tag("td", tag("b", format_score(one.mean)) if one else None) for one in found]
    return tag("tr", tag("th", _AMONG, scope="row"), cells, class_="reference")


def _score(scores: Scores, key: str, found: Estimate | None) -> Html:
    if found is None:
        return tag("td", "–", class_="none")
    reference = scores.photographs[key]
    drawn = whisker(found, *_range(scores, key), reference.mean if reference else None)
    interval = found.text().partition(" ")[2]
    return tag("td", tag("b", format_score(found.mean)), drawn, tag("small", interval))


def _range(scores: Scores, key: str) -> tuple[float, float]:
    """The lowest and highest value of a column, intervals included."""
    found = [one for one in (*scores.rows[key], scores.photographs[key]) if one]
    ends = [end for one in found for end in (one.low, one.mean, one.high) if end is not None]
    return min(ends), max(ends)
