"""Charts as inline SVG: losses over steps, and means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .estimates import Estimate
from .html import Html, tag

COLOURS = 8  # defined in the style sheet; further lines reuse them
_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 34
_POINTS = 240


@dataclass(frozen=True)
class Series:
    """A line of a chart: its name, and a value for each step, from step 1."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class _Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return f"{self.start + share * (self.end - self.start):.1f}"

    def ticks(self, max_ticks: int) -> list[float]:
        """At most `max_ticks` + 1 round values, multiples of 1, 2 or 5 times a power of 10."""
        span = (self.high - self.low) or 1
        power = 10.0 ** math.floor(math.log10(span / max_ticks))
        step = next(n * power for n in (1, 2, 5, 10) if n * power * max_ticks >= span * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def loss_chart(series: Sequence[Series]) -> Html:
    """Losses over optimizer steps with a legend; smoothed, as single steps are mostly noise."""
    chart = loss_lines(series)
    if not chart:
        return chart
    legend = [
        tag("li", tag("span", class_=f"key c{number % COLOURS}"), one.name)
        for number, one in enumerate(series)
    ]
    return tag("figure", chart, tag("ul", legend, class_="legend"))


def loss_lines(series: Sequence[Series], **attributes: str) -> Html:
    """The chart without a legend, an SVG with further attributes; "" without values."""
    lines = [(one.name, *smooth_ema(one.values)) for one in series]
    if not any(steps for _, steps, _ in lines):
        return Html("")
    heights = np.concatenate([values for _, _, values in lines])
    x = _Axis(0, max(len(one.values) for one in series), _LEFT, _WIDTH - _RIGHT)
    y = _Axis(float(heights.min()), float(heights.max()), _HEIGHT - _BOTTOM, _TOP)
    drawn = [
        tag(
            "polyline",
            tag("title", name),
            points=" ".join(f"{x(s)},{y(v)}" for s, v in zip(steps, values, strict=True)),
            class_=f"series c{number % COLOURS}",
        )
        for number, (name, steps, values) in enumerate(lines)
    ]
    return tag(
        "svg", _grid(x, y), drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="losses", role="img",
        aria_label="Loss over optimizer steps", **attributes,
    )  # fmt: skip


def _grid(x: _Axis, y: _Axis) -> list[Html]:
    marks = []
    for value in y.ticks(5):
        height = y(value)
        marks.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=height, y2=height))
        marks.append(tag("text", f"{value:.4g}", x=_LEFT - 6, y=height, class_="y"))
    for value in x.ticks(8):
        marks.append(tag("text", f"{value:.6g}", x=x(value), y=_HEIGHT - _BOTTOM + 16, class_="x"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [*marks, tag("text", "step", x=middle, y=_HEIGHT - 3, class_="x")]


def smooth_ema(values: Sequence[float]) -> tuple[list[int], np.ndarray]:
    """(steps, exponential moving averages) over about 1/15 of the steps, at up to 240 points.

    Bias-corrected as in Adam (arXiv:1412.6980); non-finite values are skipped.
    """
    decay = 1 - 1 / max(1.0, len(values) / 15)
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        means.append(mean / weight if weight else math.nan)
    steps = np.unique(np.linspace(1, len(values), min(_POINTS, len(values))).round().astype(int))
    drawn = np.array(means)[steps - 1]
    known = np.isfinite(drawn)
    return steps[known].tolist(), drawn[known]


def whisker(found: Estimate, low: float, high: float, reference: float | None) -> Html:
    """A mean and its interval on an axis from `low` to `high`, with a mark at the reference."""
    x = _Axis(low, high, 6, 114)
    marks = []
    if reference is not None:
        marks.append(tag("line", x1=x(reference), x2=x(reference), y1=1, y2=13, class_="reference"))
    if found.low is not None and found.high is not None:
        marks.append(tag("line", x1=x(found.low), x2=x(found.high), y1=7, y2=7))
    dot = tag("circle", cx=x(found.mean), cy=7, r=3.5)
    return tag("svg", marks, dot, viewBox="0 0 120 14", class_="whisker", aria_hidden="true")
