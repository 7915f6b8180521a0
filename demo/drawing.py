"""Draws antialiased flat shapes on a canvas in local coordinate frames.

Lengths are in units of the frame. The outermost frame has its origin at the top left, y downwards
and the canvas height as unit, so drawings are independent of resolution. Colours are (r, g, b),
0 to 255. Rasterised with aggdraw.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, hypot, pi, radians, sin
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..trainers.errors import MissingPackage

try:
    import aggdraw
except ImportError as error:
    raise MissingPackage("aggdraw", "Drawing the miniature's world") from error

Colour = tuple[int, int, int]
Array = NDArray[np.float64]
Random = np.random.Generator

_SHADOW = (38, 22, 58)
_SUNLIGHT = (255, 246, 224)


@lru_cache
def hexed(text: str) -> Colour:
    """``"#RRGGBB"`` as a colour."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blends `share` (0 to 1) of `b` into `a`."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def darker(colour: Colour, share: float) -> Colour:
    """The colour in cool shadow."""
    return mix(colour, mix(colour, _SHADOW, 0.75), share)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour in warm light."""
    return mix(colour, _SUNLIGHT, share)


def one_of(random: Random, *colours: str) -> Colour:
    """A random one of the colours, given as ``"#RRGGBB"``."""
    return hexed(colours[int(random.integers(len(colours)))])


class Canvas:
    """An image in a coordinate frame; nested frames share the image.

    `matrix` (2, 2) and `origin` (2,) map points of the frame to pixels: ``p @ matrix + origin``.
    """

    __slots__ = ("_draw", "_image", "_rows", "_start", "_steps", "aspect", "matrix", "origin")

    def __init__(self, width: int, height: int, top: Colour, bottom: Colour) -> None:
        """A canvas of `width` by `height` pixels with a vertical gradient."""
        shares = np.linspace(0, 1, height)[:, None]  # (H, 1)
        rows = np.asarray(top) + (np.asarray(bottom) - np.asarray(top)) * shares  # (H, 3)
        column = Image.fromarray(np.rint(rows).astype(np.uint8)[:, None])
        self._image = column.resize((width, height), Image.Resampling.NEAREST)
        self._draw: Any = aggdraw.Draw(self._image)
        self._steps = 3 + height // 192
        self.aspect = width / height
        self._place(np.eye(2) * height, np.zeros(2))

    def _place(self, matrix: Array, origin: Array) -> None:
        self.matrix, self.origin = matrix, origin
        self._rows, self._start = matrix.tolist(), origin.tolist()

    def frame(
        self, x: float, y: float, unit: float = 1.0, degrees: float = 0.0, mirror: bool = False
    ) -> Canvas:
        """A frame at (x, y) with `unit` times the scale, rotated clockwise by `degrees`.

        With `mirror`, its x axis is flipped.
        """
        inner = object.__new__(Canvas)
        inner._draw, inner._image, inner._steps = self._draw, self._image, self._steps
        inner.aspect = self.aspect
        c, s = unit * cos(radians(degrees)), unit * sin(radians(degrees))
        rows = np.array(((-c, -s) if mirror else (c, s), (-s, c)))
        inner._place(rows @ self.matrix, np.array((x, y)) @ self.matrix + self.origin)
        return inner

    def shows(self, y: float) -> bool:
        """Whether `y` in an upright frame lies above the image's lower edge."""
        return bool(y * self._rows[1][1] + self._start[1] < self._image.height)

    def _pixels(self, points: ArrayLike) -> Array:
        mapped: Array = np.asarray(points) @ self.matrix + self.origin
        return mapped

    def fill(self, points: ArrayLike, colour: Colour, alpha: float = 1.0) -> None:
        """Draws a polygon with sharp corners, `points` (N, 2)."""
        self._draw.polygon(self._pixels(points).ravel().tolist(), _brush(colour, alpha))

    def blob(self, points: ArrayLike, colour: Colour, alpha: float = 1.0) -> None:
        """Draws a smooth closed shape through `points` (N, 2); a repeated point is a corner."""
        nodes = self._pixels(points)
        curve = _closed_spline(len(nodes), self._steps) @ nodes
        self._draw.polygon(curve.ravel().tolist(), _brush(colour, alpha))

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float = 1.0
    ) -> None:
        """Draws an ellipse around (x, y) with semi-axes `rx`, `ry`."""
        (ax, ay), (bx, by) = self._rows
        if ay != 0.0 and rx != ry:
            self.fill(_circle(8 * self._steps) * (rx, ry) + (x, y), colour, alpha)
            return
        ox, oy = self._start
        u, v = x * ax + y * bx + ox, x * ay + y * by + oy
        scale = hypot(ax, ay)
        rx, ry = rx * scale, ry * scale
        self._draw.ellipse((u - rx, v - ry, u + rx, v + ry), None, _brush(colour, alpha))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: float = 1.0
    ) -> None:
        """Draws a rectangle between two corners."""
        (ax, ay), (bx, by) = self._rows
        ox, oy = self._start
        # Without numpy, which is slow for four points: places have many boxes.
        left, down = (x0 * ax + ox, x0 * ay + oy), (y0 * bx, y0 * by)
        right, low = (x1 * ax + ox, x1 * ay + oy), (y1 * bx, y1 * by)
        pixels = (
            left[0] + down[0], left[1] + down[1], right[0] + down[0], right[1] + down[1],
            right[0] + low[0], right[1] + low[1], left[0] + low[0], left[1] + low[1],
        )  # fmt: skip
        self._draw.polygon(pixels, _brush(colour, alpha))

    def card(
        self, x0: float, y0: float, x1: float, y1: float, radius: float, colour: Colour
    ) -> None:
        """Draws a rectangle with rounded corners."""
        arcs, sides = _rounded(self._steps)
        inner = (x1 - x0 - 2 * radius, y1 - y0 - 2 * radius)
        self.fill(arcs * radius + sides * inner + (x0 + radius, y0 + radius), colour)

    def stroke(
        self, points: ArrayLike, width: ArrayLike, colour: Colour, alpha: float = 1.0
    ) -> None:
        """Draws a smooth line with round ends through `points` (N, 2); `width` may be (N,)."""
        nodes = self._pixels(points)
        centre_and_slope, centre, turn = _rim(len(nodes), self._steps)
        # As complex numbers x + iy, a rim point is the centre plus the turned, scaled slope.
        both = (centre_and_slope @ nodes).view(np.complex128)[:, 0]  # (2 K,)
        path, along = both[: len(turn)], both[len(turn) :]
        half = 0.5 * hypot(*self._rows[0]) * np.asarray(width, float)
        if half.ndim:
            half = centre @ half  # (K,)
        rim = path + along * (turn * (half / (np.abs(along) + 1e-9)))
        self._draw.polygon(rim.view(np.float64).tolist(), _brush(colour, alpha))

    def glow(self, x: float, y: float, radius: float, colour: Colour, alpha: float) -> None:
        """Draws a soft light of stacked translucent discs with `alpha` each."""
        for share in (1.0, 0.86, 0.72, 0.58, 0.44, 0.30):
            self.oval(x, y, radius * share, radius * share, colour, alpha)

    def pixels(self) -> NDArray[np.uint8]:
        """The image, uint8 (H, W, 3)."""
        self._draw.flush()
        return np.array(self._image)


def moved(points: ArrayLike, x: float, y: float) -> Array:
    """The points (N, 2), shifted."""
    shifted: Array = np.asarray(points, float) + np.array((x, y))
    return shifted


def mirrored(right: ArrayLike) -> Array:
    """A closed outline symmetric about x = 0, from its right half given top to bottom.

    The first and the last point lie on the axis and are not duplicated.
    """
    right = np.asarray(right, float)
    return np.concatenate((right, right[-2:0:-1] * (-1, 1)))


@lru_cache(maxsize=8192)
def _brush(colour: Colour, alpha: float) -> Any:
    return aggdraw.Brush(colour, round(alpha * 255))


@lru_cache
def _circle(points: int) -> Array:
    turn = np.arange(points) * (2 * pi / points)
    return np.stack((np.cos(turn), np.sin(turn)), axis=1)


def _weights(steps: int) -> Array:
    """Catmull-Rom weights (steps, 4) of the control points -1, 0, 1, 2 between 0 and 1."""
    t = np.arange(steps)[:, None] / steps
    columns = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    return 0.5 * np.concatenate(columns, axis=1)


def _slopes(steps: int) -> Array:
    """The derivative of `_weights` by t, (steps, 4)."""
    t = np.arange(steps)[:, None] / steps
    columns = (-1 + 4 * t - 3 * t**2, -10 * t + 9 * t**2, 1 + 8 * t - 9 * t**2, 3 * t**2 - 2 * t)
    return 0.5 * np.concatenate(columns, axis=1)


@lru_cache
def _closed_spline(points: int, steps: int) -> Array:
    """Matrix (points * steps, points) from control points to a closed Catmull-Rom curve."""
    basis = np.zeros((points, steps, points))
    for i in range(points):
        for j in range(4):
            basis[i, :, (i + j - 1) % points] += _weights(steps)[:, j]
    return basis.reshape(-1, points)


@lru_cache
def _rounded(steps: int) -> tuple[Array, Array]:
    """A rounded rectangle as unit arcs and the corners they belong to, (K, 2) each."""
    turn = np.arange(steps + 1) * (pi / 2 / steps)
    quarter = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    arcs, sides = [], []
    for x, y in ((1, 1), (0, 1), (0, 0), (1, 0)):
        arc = quarter if x == y else quarter[::-1]
        arcs.append(arc * (2 * x - 1, 2 * y - 1))
        sides.append(np.full_like(arc, (x, y)))
    return np.concatenate(arcs), np.concatenate(sides)


@lru_cache
def _rim(points: int, steps: int) -> tuple[Array, Array, NDArray[np.complex128]]:
    """The rim of a thick line with round ends, as linear maps of its control points.

    Returns the maps to the centre of each of the rim's K points with the slope there below it,
    (2 K, points), to the centre alone, (K, points), and the direction of the rim from the centre
    against the slope, (K,) complex: to the left there, around the end, to the right back.
    """
    spline, slope = _open_spline(points, steps)
    last = len(spline) - 1
    there, back = np.arange(last + 1), np.arange(last, -1, -1)
    cap = np.full(steps - 1, last)
    at = np.concatenate((there, cap, back, 0 * cap))
    half_turn = np.arange(1, steps) * (pi / steps)
    angle = np.concatenate((0.0 * there, half_turn, 0.0 * back + pi, half_turn + pi))
    return np.concatenate((spline[at], slope[at])), spline[at], -1j * np.exp(1j * angle)


@lru_cache
def _open_spline(points: int, steps: int) -> tuple[Array, Array]:
    """Matrices ((points - 1) * steps + 1, points) of control points to an open curve and slope."""
    basis = np.zeros(((points - 1) * steps + 1, points))
    slope = np.zeros_like(basis)
    for i in range(points - 1):
        rows = slice(i * steps, (i + 1) * steps)
        for j in range(4):
            at = min(max(i + j - 1, 0), points - 1)
            basis[rows, at] += _weights(steps)[:, j]
            slope[rows, at] += _slopes(steps)[:, j]
    basis[-1, -1] = slope[-1, -1] = 1
    slope[-1, -2] = -1
    return basis, slope
