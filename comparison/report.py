"""The report: one HTML file with images, scores, losses, recipes, and how to reproduce them.

It opens from disk and makes no network requests: a content security policy forbids them. It holds
no local paths, so it can be shared as is.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from math import sqrt
from pathlib import Path
from platform import python_version
from typing import TypeGuard

from PIL import Image

from ..trainers.adapter import AdapterInfo
from ..trainers.files import write_atomic
from ..trainers.recipe import DreamBooth, Recipe
from ..trainers.resize import RESIZED_FROM_KEY
from .charts import Series, loss_chart
from .encoders import open_rgb
from .html import Html, join, tag
from .matrix import Cell, Plan
from .row_adapters import RowAdapter
from .score_table import format_cell_scores, score_table
from .scores import Scores

_FILES = Path(__file__).parent / "report_files"
_MAX_PIXELS = 80_000_000  # in all images together
_QUALITY = 88
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class Reproduction:
    """One way to reproduce the comparison: a command, or a workflow to save as `file`."""

    title: str
    text: str
    file: str | None = None


@dataclass(frozen=True)
class Report:
    """The contents of a report. `images` has a file for each cell; missing ones stay empty."""

    title: str
    plan: Plan
    images: Sequence[Path]
    row_adapters: Sequence[RowAdapter]
    scores: Scores | None
    reproduction: Sequence[Reproduction]
    version: str


def write_report(path: Path, report: Report) -> None:
    """Writes the file atomically. Raises OSError, or ComparisonError for a damaged image."""
    write_atomic(path, render_html(report))


def render_html(report: Report) -> str:
    """The report's HTML."""
    style, script = (
        Html((_FILES / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", report.title),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("header", tag("h1", report.title, dir="auto"), tag("p", _summary(report))),
        tag("main", *filter(None, _sections(report))),
        _viewer(),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _summary(report: Report) -> str:
    plan, settings = report.plan, report.plan.image
    there = sum(path.is_file() for path in report.images)
    parts = [f"{len(plan.rows())} rows × {len(plan.columns())} columns"]
    parts += [f"{there} of {len(report.images)} images"] if there < len(report.images) else []
    parts += [f"{settings.width} × {settings.height} pixels", f"seed {plan.seed}"]
    return ", ".join(parts)


def _sections(report: Report) -> Iterator[Html | None]:
    yield _section("Images", _grid(report))
    yield _section("Scores", score_table(report.plan, report.scores)) if report.scores else None
    yield _section("Training", *_training(report))
    yield _section("Recipes", *_recipes(report))
    yield (
        _section("Reproduce", *map(_reproduction, report.reproduction))
        if report.reproduction
        else None
    )
    yield _section("Versions", _versions(report.version))


def _section(title: str, *content: Html | None) -> Html | None:
    found = [part for part in content if part is not None]
    return tag("section", tag("h2", title), found) if found else None


# Images.


def _grid(report: Report) -> Html:
    """The table of images; its labels stay visible while it is scrolled."""
    plan, cells = report.plan, report.plan.cells()
    across = len(plan.columns())
    side = sqrt(_MAX_PIXELS / max(1, len(cells)))
    head = [
        tag("th", tag("b", cell.key), tag("p", cell.prompt, dir="auto", title=cell.prompt))
        for cell in cells[:across]
    ]
    lines = []
    for row, name in enumerate(plan.rows()):
        places = range(row * across, (row + 1) * across)
        shown = [_cell(report, cells[place], place, name, side) for place in places]
        lines.append(tag("tr", tag("th", name, scope="row"), shown))
    table = tag(
        "table", tag("thead", tag("tr", tag("td"), head)), tag("tbody", lines), class_="sheet"
    )
    negative = plan.prompts.negative
    return join(
        tag("div", table, class_="wide", tabindex=0),
        tag("p", tag("b", "Negative prompt: "), negative, dir="auto") if negative else None,
    )


def _cell(report: Report, cell: Cell, place: int, row: str, side: float) -> Html:
    path = report.images[place]
    if not path.is_file():
        return tag("td", tag("div", "not generated", class_="empty"))
    caption = f"{row} · {cell.key} · seed {cell.seed}" + (f" · {cell.pose}" if cell.pose else "")
    image = tag(
        "img", src=_data_uri(path, side), alt=f"{row}: {cell.prompt}", data_row=cell.row,
        data_column=cell.column, data_caption=caption, loading="lazy",
    )  # fmt: skip
    button = tag("button", image, type="button", title="Enlarge")
    return tag("td", button, tag("small", format_cell_scores(report.scores, place)))


def _data_uri(path: Path, side: float) -> str:
    """The image as a JPEG data URI of at most `side` * `side` pixels."""
    image = open_rgb(path)
    scale = min(1.0, side / sqrt(image.width * image.height))
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    data = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(data, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _viewer() -> Html:
    """The dialog that enlarges an image; filled by the script."""
    close = tag("button", "×", type="button", class_="close", aria_label="Close")
    figure = tag("figure", tag("img", alt=""), tag("figcaption"))
    return tag("dialog", close, figure, aria_label="Image")


# Training.


def _training(report: Report) -> Iterator[Html]:
    series = [
        Series(one.name, one.result.losses)
        for one in report.row_adapters
        if one.result is not None and len(one.result.losses) > 1
    ]
    if series:
        yield tag("h3", "Loss")
        yield loss_chart(series)
    rows = [_training_row(one) for one in report.row_adapters if one.adapter is not None]
    if rows:
        names = ("row", "method", "resolution", "learning rate", "steps", "final loss", "precision",
                 "time (last attempt)", "peak memory")  # fmt: skip
        head = tag("tr", [tag("th", name) for name in names])
        yield tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="wide")


def _training_row(one: RowAdapter) -> Html:
    recipe, info, result = one.recipe, one.info, one.result
    loss = info.loss if info and not _is_resized(info) else None  # that of the larger rank
    steps = result.steps if result else info and info.steps
    values = [
        _method(recipe, info) if recipe else info and info.family,
        recipe and f"{recipe.subject.resolution}",
        recipe and _format_scientific(recipe.optimizer.learning_rate),
        steps,
        f"{loss:.4f}" if loss is not None else None,
        result and result.precision,
        result and format_duration(sum(result.seconds.values())),
        f"{result.peak_memory / 1024**3:.2f} GB" if result else None,
    ]
    cells = [tag("td", "–" if value is None else value) for value in values]
    return tag("tr", tag("th", one.name, scope="row"), cells)


def _method(recipe: Recipe, info: AdapterInfo | None) -> str:
    if isinstance(recipe.method, DreamBooth):
        return "DreamBooth" + (", text encoder too" if recipe.text_encoder.train else "")
    dora, rank = recipe.method.dora, recipe.method.rank
    if info and info.rank:  # the file's own: other programs resize too
        dora, rank = info.kind == "dora", info.rank
    text = f"{'DoRA' if dora else 'LoRA'} of rank {rank}"
    if _is_resized(info):
        text += f", resized from {info.metadata[RESIZED_FROM_KEY]}"
    return text


def _is_resized(info: AdapterInfo | None) -> TypeGuard[AdapterInfo]:
    return info is not None and RESIZED_FROM_KEY in info.metadata


def _format_scientific(value: float) -> str:
    """``2e-6``, ``1.5e-4``."""
    digits, power = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def format_duration(seconds: float) -> str:
    """``48.2 s``, ``5:07 min`` or ``2:03 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _recipes(report: Report) -> Iterator[Html]:
    for one in report.row_adapters:
        if one.recipe is not None:
            yield tag(
                "details",
                tag("summary", one.name, " ", tag("code", one.recipe.digest()[:12])),
                tag("pre", one.recipe.to_json(), dir="auto"),
            )


def _reproduction(reproduction: Reproduction) -> Html:
    parts = [tag("h3", reproduction.title)]
    if reproduction.file is None:
        return join(parts, tag("pre", reproduction.text))
    data = base64.b64encode(reproduction.text.encode()).decode()
    link = tag(
        "a", f"Save {reproduction.file}", download=reproduction.file, href=f"data:;base64,{data}"
    )
    shown = tag(
        "details", tag("summary", reproduction.file), tag("pre", reproduction.text, dir="auto")
    )
    return join(parts, tag("p", link), shown)


def _versions(version: str) -> Html:
    found = [("Likeness", version), ("Python", python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return tag("p", ", ".join(f"{name} {number}" for name, number in found))


def format_workflow(workflow: object) -> str:
    """A workflow as indented JSON."""
    return json.dumps(workflow, indent=1, ensure_ascii=False)
