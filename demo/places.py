"""The six places, with random details."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawing import Canvas, Colour, Random
from .indoors import kitchen, kitchen_light, office, office_light, plain, plain_light
from .outdoors import beach, beach_light, forest, forest_light, street, street_light

# Place -> colours of the vertical gradient, and a function that draws over it in a frame with x
# centred on 0 and y from 0 to 1, given half the image's width.
_PLACES: dict[
    str,
    tuple[Callable[[Random], tuple[Colour, Colour]], Callable[[Canvas, float, Random], None]],
] = {
    "plain": (plain_light, plain),
    "kitchen": (kitchen_light, kitchen),
    "forest": (forest_light, forest),
    "street": (street_light, street),
    "beach": (beach_light, beach),
    "office": (office_light, office),
}


def new_canvas(place: str, width: int, height: int, zoom: float, variation: int) -> Canvas:
    """A canvas with the place drawn on it, zoomed towards the upper middle."""
    random = np.random.default_rng((variation, 7))
    light, furnish = _PLACES[place]
    canvas = Canvas(width, height, *light(random))
    mirror = bool(random.random() < 0.5)
    view = canvas.frame(0.5 * canvas.aspect, 0.30 - 0.30 * zoom, zoom, mirror=mirror)
    furnish(view, 0.5 * canvas.aspect, random)
    return canvas
