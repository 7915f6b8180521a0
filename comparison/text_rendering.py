"""Text in pictures: fonts that know its characters, lines that fit a width.

One font writes a whole text, as far as it can; a character that it lacks is of another font of this
system. Where none has it, it is its letter without the accent, or else its code point.
"""

from __future__ import annotations

import os
import re
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
# Where systems have their other fonts.
_FONT_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts",
    "%WINDIR%/Fonts", "%LOCALAPPDATA%/Microsoft/Windows/Fonts",
)  # fmt: skip
_MAX_FONTS = 1000
_STYLED = re.compile("bold|italic|oblique|light|thin|black|heavy|condensed|mono", re.IGNORECASE)
_LAST_RESORT = "lastresort"  # macOS' font of boxes for everything
_MAX_LENGTH = 2000
_JOINERS = "\u200c\u200d"
_RTL_CHARACTERS = (
    "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff"
)
_LTR_RUN = re.compile(rf"[^\W{_RTL_CHARACTERS}]+(?:[.,:'+-][^\W{_RTL_CHARACTERS}]+)*")
_RTL_RUN = re.compile(rf"[{_RTL_CHARACTERS}]+(?:\W+[{_RTL_CHARACTERS}]+)*")
_MIRRORED = str.maketrans("()[]{}<>", ")(][}{><")


@dataclass(frozen=True)
class FontStack:
    """The fonts of a text, the first of most of it; each character is of the first that has it."""

    fonts: tuple[Font, ...]

    def has(self, text: str) -> bool:
        """Whether there is a shape for each character."""
        return all(any(_has_glyph(font, char) for font in self.fonts) for char in text)

    def text_runs(self, text: str) -> list[tuple[str, Font]]:
        """`text` as pieces of one font each, from left to right."""
        if len(self.fonts) == 1:
            return [(text, self.fonts[0])]
        text_runs: list[tuple[str, Font]] = []
        for char in text:
            before, font = text_runs.pop() if text_runs else ("", self.fonts[0])
            chosen = font if before and _is_attached(char) else self._font_of(char)
            if before and chosen is not font:
                text_runs.append((before, font))
                before = ""
            text_runs.append((before + char, chosen))
        return text_runs[::-1] if _is_rtl(text) else text_runs

    def _font_of(self, char: str) -> Font:
        return next((font for font in self.fonts if _has_glyph(font, char)), self.fonts[0])

    def getlength(self, text: str) -> float:
        """Pixels from the first to the last letter, as PIL's fonts call it."""
        return sum(float(font.getlength(piece)) for piece, font in self.text_runs(text))


@dataclass(frozen=True)
class Line:
    """One line of text; `height` is its share of a column of lines, in pixels."""

    text: str
    font: FontStack
    height: int
    colour: Colour

    @property
    def width(self) -> int:
        """Pixels from its first to its last letter."""
        return ceil(self.font.getlength(self.text))


def paragraph(text: str, size: int, colour: Colour, width: float, most: int) -> list[Line]:
    """`text` in letters of `size` pixels as at most `most` lines of `width` pixels.

    Any text will do: control characters are left out, and what is too long ends in an ellipsis.
    A character that no font of this system has is written as its code point, ``[U+1F600]``.
    """
    text = clean(text)
    font = font_stack_for(text, size)
    text = "".join(_renderable(char, font) for char in text)[:_MAX_LENGTH]
    height = round(1.3 * size)
    return [Line(line, font, height, colour) for line in wrap(text, font, width, most)]


def total_height(lines: Sequence[Line]) -> int:
    """Height of lines one below the other, in pixels."""
    return sum(line.height for line in lines)


def draw_lines(page: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[Line]) -> None:
    """Writes lines one below the other, the first at `corner`, its top left."""
    left, top = corner
    for line in lines:
        x, baseline = float(left), top + line.font.fonts[0].getmetrics()[0]
        is_rtl = _is_rtl(line.text)
        for piece, font in line.font.text_runs(line.text):
            raqm = font.layout_engine == ImageFont.Layout.RAQM
            shown = piece if raqm else _visual_order(piece, is_rtl)
            direction = ("rtl" if is_rtl else "ltr") if raqm else None
            page.text((x, baseline), shown, line.colour, font, anchor="ls", direction=direction)
            x += font.getlength(piece)
        top += line.height


def clean(text: str) -> str:
    """One line of visible text: no control characters, each run of spaces a single one."""
    spaced = " ".join(text[:_MAX_LENGTH].split())
    return "".join(c for c in spaced if c in _JOINERS or unicodedata.category(c)[0] != "C")


# Directions. PIL's raqm orders letters; without it they are put from left to right as they come.


def _is_rtl(text: str) -> bool:
    """Whether a text runs from right to left: its first letter of either direction says so."""
    kinds = (unicodedata.bidirectional(char) for char in text)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


def _visual_order(text: str, is_rtl: bool) -> str:
    """A piece of a text as it is drawn without raqm: Hebrew and Arabic turned round, unjoined."""
    if is_rtl:
        return _LTR_RUN.sub(lambda match: match[0][::-1], text[::-1].translate(_MIRRORED))
    return _RTL_RUN.sub(lambda match: match[0][::-1].translate(_MIRRORED), text)


# Fonts.


def font_stack_for(text: str, size: int) -> FontStack:
    """The fonts for a text, as few as write all that this system can write."""
    first = font_for(text, size)
    files = _find_fallback_fonts(
        {char for char in _glyph_characters(text) if not _has_glyph(first, char)}
    )
    others = (_load_font(file, size) for file in dict.fromkeys(files) if file is not None)
    return FontStack((first, *filter(None, others)))


def font_for(text: str, size: int) -> Font:
    """The first usual font with all characters of `text`, or else the one with most of them."""
    characters = _glyph_characters(text)
    best, most = None, -1
    for font in _default_fonts(size):
        known = sum(_has_glyph(font, c) for c in characters)
        if known > most:
            best, most = font, known
        if known == len(characters):
            break
    return best


def _glyph_characters(text: str) -> set[str]:
    """The characters of a text that want a shape."""
    return {char for char in text if not char.isspace() and char not in _JOINERS}


def _is_attached(char: str) -> bool:
    """Whether a character is drawn with the one before it: an accent, a joiner, a space."""
    return char.isspace() or char in _JOINERS or unicodedata.category(char)[0] == "M"


def _default_fonts(size: int) -> Iterator[Font]:
    yield _load_font(None, size)
    yield from filter(None, (_load_font(name, size) for name in _FALLBACKS))


@lru_cache(maxsize=256)
def _load_font(name: str | None, size: int) -> Font:
    """A font by its file, None if this system has no such font, or none of that size."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


_fallback_cache: dict[str, str | None] = {}  # the font file for a character that was looked for


def _find_fallback_fonts(characters: set[str]) -> list[str | None]:
    """For each character a font's file; None where no font of this system has it."""
    wanted = characters - _fallback_cache.keys()
    for file in _system_font_files() if wanted else ():
        try:
            font = ImageFont.truetype(file, 16, layout_engine=ImageFont.Layout.BASIC)
            found = {char for char in wanted if _renders_glyph(font, char)}
        except OSError:  # damaged, or has pictures of one size only
            continue
        _fallback_cache.update(dict.fromkeys(found, file))
        wanted -= found
        if not wanted:
            break
    _fallback_cache.update(dict.fromkeys(wanted))
    return [_fallback_cache[char] for char in sorted(characters)]


@lru_cache(maxsize=1)
def _system_font_files() -> tuple[str, ...]:
    """Names and paths of fonts: the usual ones, and all of this system, the upright ones first."""
    found = []
    for folder in _FONT_FOLDERS:
        for place, _, names in os.walk(os.path.expandvars(os.path.expanduser(folder))):
            for name in names:
                if (
                    name.lower().endswith((".ttf", ".ttc", ".otf"))
                    and _LAST_RESORT not in name.lower()
                ):
                    found.append((bool(_STYLED.search(name)), os.path.join(place, name)))
    return (*_FALLBACKS, *(path for _, path in sorted(found)[:_MAX_FONTS]))


@lru_cache(maxsize=16384)
def _has_glyph(font: Font, char: str) -> bool:
    """Whether the font has a shape of its own for the character."""
    return _renders_glyph(_with_basic_layout(font), char)


@lru_cache(maxsize=256)
def _with_basic_layout(font: Font) -> Font:
    """The font as it draws single characters: raqm puts others beside those that it cannot."""
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def _renders_glyph(font: Font, char: str) -> bool:
    mask = font.getmask(char)
    inked = mask.getbbox() is not None or unicodedata.category(char)[0] in "CMZ"
    return inked and bytes(mask) != bytes(font.getmask("\uffff"))


def _renderable(char: str, letters: FontStack) -> str:
    """The character as the fonts can write it."""
    raqm = letters.fonts[0].layout_engine == ImageFont.Layout.RAQM
    if char.isspace() or letters.has(char) or (raqm and char in _JOINERS):
        return char
    parts = unicodedata.normalize("NFKD", char)
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    if plain and plain != char and letters.has(plain):
        return plain
    return "" if _is_attached(char) else f"[U+{ord(char):04X}]"


def wrap(text: str, font: Font, width: float, most: int) -> list[str]:
    """`text` in at most `most` lines of `width` pixels; where it goes on, an ellipsis."""
    lines: list[str] = []
    rest = text
    while rest:
        head = _fitting_prefix(rest, font, width)
        if head != rest and len(lines) == most - 1:
            head = _fitting_prefix(rest, font, width - font.getlength("…"))
            return [*lines, f"{head.rstrip()}…"]
        if head != rest and " " in head and rest[len(head)] != " ":
            head = head[: head.rindex(" ")]
        lines.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return lines


def _fitting_prefix(text: str, font: Font, width: float) -> str:
    """The longest beginning of `text` that is at most `width` pixels long; at least a character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low]
