"""Text in pictures: a font that knows the characters, lines that fit a width."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

from PIL import ImageDraw, ImageFont

Font = Any  # PIL.ImageFont.FreeTypeFont
Colour = tuple[int, int, int]

# PIL's own font knows ASCII; for the rest, fonts of the usual systems in order.
_FALLBACKS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "segoeui.ttf",
    "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "NotoEmoji-Regular.ttf", "seguiemj.ttf",
)  # fmt: skip
_LONGEST = 2000
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Line:
    """One line of text; `height` is its share of a column of lines, in pixels."""

    text: str
    font: Font
    height: int
    colour: Colour

    @property
    def width(self) -> int:
        """Pixels from its first to its last letter."""
        length: float = self.font.getlength(self.text)
        return ceil(length)


def paragraph(text: str, size: int, colour: Colour, width: float, most: int) -> list[Line]:
    """`text` in letters of `size` pixels as at most `most` lines of `width` pixels.

    Any text will do: control characters are left out, and what is too long ends in an ellipsis.
    """
    text = clean(text)
    font = font_for(text, size)
    text = "".join(_plain(char, font) for char in text)
    height = round(1.3 * size)
    return [Line(line, font, height, colour) for line in wrap(text, font, width, most)]


def height_of(lines: Sequence[Line]) -> int:
    """Height of lines one below the other, in pixels."""
    return sum(line.height for line in lines)


def write(page: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[Line]) -> None:
    """Writes lines one below the other, the first at `corner`, its top left."""
    x, y = corner
    for line in lines:
        page.text((x, y), line.text, fill=line.colour, font=line.font)
        y += line.height


def clean(text: str) -> str:
    """One line of visible text: no control characters, each run of spaces a single one."""
    spaced = " ".join(text[:_LONGEST].split())
    return "".join(c for c in spaced if c in _JOINERS or unicodedata.category(c)[0] != "C")


def font_for(text: str, size: int) -> Font:
    """The first font that has all characters of `text`, or else the one that has most of them."""
    characters = {c for c in text if not c.isspace() and c not in _JOINERS}
    best, most = None, -1
    for font in _fonts(size):
        known = sum(_has(font, c) for c in characters)
        if known > most:
            best, most = font, known
        if known == len(characters):
            break
    return best


def _fonts(size: int) -> Iterator[Font]:
    yield _load(None, size)
    yield from filter(None, (_load(name, size) for name in _FALLBACKS))


@lru_cache(maxsize=256)
def _load(name: str | None, size: int) -> Font:
    """A font by its file's name, None if this system has no such font."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


@lru_cache(maxsize=16384)
def _has(font: Font, char: str) -> bool:
    """Whether the font has a shape of its own for the character."""
    return bytes(font.getmask(char)) != bytes(font.getmask("\uffff"))


def _plain(char: str, font: Font) -> str:
    """The character, or its letter without the accent where the font has only that."""
    letter = unicodedata.normalize("NFKD", char)[0]
    return letter if _has(font, letter) and not _has(font, char) else char


def wrap(text: str, font: Font, width: float, most: int) -> list[str]:
    """`text` in at most `most` lines of `width` pixels; where it goes on, an ellipsis."""
    lines: list[str] = []
    rest = text
    while rest:
        head = _fitting(rest, font, width)
        if head != rest and len(lines) == most - 1:
            head = _fitting(rest, font, width - font.getlength("…"))
            return [*lines, f"{head.rstrip()}…"]
        if head != rest and " " in head and rest[len(head)] != " ":
            head = head[: head.rindex(" ")]
        lines.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return lines


def _fitting(text: str, font: Font, width: float) -> str:
    """The longest beginning of `text` that is at most `width` pixels long; at least a character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low]
