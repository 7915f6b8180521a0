"""Tags of a prompt in several orders, so that none is learned by its place."""

from __future__ import annotations

from . import rng
from .recipe import Recipe

# Orders of a photograph's tags, and of all: few enough for a frozen text encoder to encode at once.
ORDERS, ALL_ORDERS = 8, 2048


def tag_orders(recipe: Recipe, caption: str | None, photo: int, photos: int = 1) -> tuple[str, ...]:
    """A photograph's prompt in the distinct ones of `ORDERS` random orders of its tags.

    There are fewer, at least two, if all `photos` of the run would have more than `ALL_ORDERS`.

    Tags are what commas separate. The first `subject.keep_tags`, and each that contains the token,
    keep their places. The orders follow from the recipe's seed and the photograph's number `photo`.
    Only the prompt as it is without `subject.shuffle_tags`, or if fewer than two tags can move.
    """
    prompt, subject = recipe.instance_prompt(caption), recipe.subject
    tags = [tag for part in prompt.split(",") if (tag := part.strip())]
    free = [
        place
        for place, tag in enumerate(tags)
        if place >= subject.keep_tags and subject.token.lower() not in tag.lower()
    ]
    if not subject.shuffle_tags or len(free) < 2:
        return (prompt,)
    found = []
    for number in range(max(2, min(ORDERS, ALL_ORDERS // photos))):
        order = rng.permutation(len(free), recipe.seed, f"tags of photo {photo}", number)
        moved = dict(zip(free, (tags[free[index]] for index in order), strict=True))
        found.append(", ".join(moved.get(place, tag) for place, tag in enumerate(tags)))
    return tuple(dict.fromkeys(found))
