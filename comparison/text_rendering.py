"""Draws text on images: font fallback and line wrapping.

A text is drawn in one font as far as possible; characters that it lacks come from other system
fonts. A character that no font has is drawn without its accent, or else as its code point.
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

# PIL's default font covers ASCII; these cover the rest on common systems, in order of preference.
_FALLBACKS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "segoeui.ttf",
    "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "NotoEmoji-Regular.ttf", "seguiemj.ttf",
)  # fmt: skip
# Where systems keep their other fonts.
_FONT_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts",
    "%WINDIR%/Fonts", "%LOCALAPPDATA%/Microsoft/Windows/Fonts",
)  # fmt: skip
_MAX_FONTS = 1000
_STYLED = re.compile("bold|italic|oblique|light|thin|black|heavy|condensed|mono", re.IGNORECASE)
_LAST_RESORT = "lastresort"  # macOS' font that has a box for every character
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
    """The fonts of a text, in order; each character is drawn in the first font that has it."""

    fonts: tuple[Font, ...]

    def has(self, text: str) -> bool:
        """Whether every character has a glyph."""
        return all(any(_has_glyph(font, char) for font in self.fonts) for char in text)

    def text_runs(self, text: str) -> list[tuple[str, Font]]:
        """`text` as runs of one font each, from left to right."""
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
        """Width of `text` in pixels, like the method of PIL's fonts."""
        return sum(float(font.getlength(piece)) for piece, font in self.text_runs(text))


@dataclass(frozen=True)
class Line:
    """One line of text; `height` is the line height in pixels."""

    text: str
    font: FontStack
    height: int
    colour: Colour

    @property
    def width(self) -> int:
        """Width in pixels."""
        return ceil(self.font.getlength(self.text))


def paragraph(text: str, size: int, colour: Colour, width: float, most: int) -> list[Line]:
    """`text` at a font size of `size` pixels in at most `most` lines of `width` pixels.

    Accepts any text: control characters are removed, and text that is too long ends in an ellipsis.
    A character that no system font has is written as its code point, ``[U+1F600]``.
    """
    text = clean(text)
    font = font_stack_for(text, size)
    text = "".join(_renderable(char, font) for char in text)[:_MAX_LENGTH]
    height = round(1.3 * size)
    return [Line(line, font, height, colour) for line in wrap(text, font, width, most)]


def total_height(lines: Sequence[Line]) -> int:
    """Total height of lines, in pixels."""
    return sum(line.height for line in lines)


def draw_lines(page: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[Line]) -> None:
    """Draws lines one below the other, with the top left of the first at `corner`."""
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
    """The text on one line: control characters removed, whitespace collapsed."""
    spaced = " ".join(text[:_MAX_LENGTH].split())
    return "".join(c for c in spaced if c in _JOINERS or unicodedata.category(c)[0] != "C")


# Text direction. PIL's raqm reorders letters; without it they are drawn left to right as given.


def _is_rtl(text: str) -> bool:
    """Whether a text runs from right to left, by its first letter with a direction."""
    kinds = (unicodedata.bidirectional(char) for char in text)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


def _visual_order(text: str, is_rtl: bool) -> str:
    """A run of text for drawing without raqm: Hebrew and Arabic reversed, letters not joined."""
    if is_rtl:
        return _LTR_RUN.sub(lambda match: match[0][::-1], text[::-1].translate(_MIRRORED))
    return _RTL_RUN.sub(lambda match: match[0][::-1].translate(_MIRRORED), text)


# Fonts.


def font_stack_for(text: str, size: int) -> FontStack:
    """The fonts for a text: one, and fallbacks for the characters that it lacks."""
    first = font_for(text, size)
    files = _find_fallback_fonts(
        {char for char in _glyph_characters(text) if not _has_glyph(first, char)}
    )
    others = (_load_font(file, size) for file in dict.fromkeys(files) if file is not None)
    return FontStack((first, *filter(None, others)))


def font_for(text: str, size: int) -> Font:
    """The first default font with all characters of `text`, or else the one with the most."""
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
    """The characters of a text that need a glyph."""
    return {char for char in text if not char.isspace() and char not in _JOINERS}


def _is_attached(char: str) -> bool:
    """Whether a character uses the font of the one before it: an accent, a joiner, a space."""
    return char.isspace() or char in _JOINERS or unicodedata.category(char)[0] == "M"


def _default_fonts(size: int) -> Iterator[Font]:
    yield _load_font(None, size)
    yield from filter(None, (_load_font(name, size) for name in _FALLBACKS))


@lru_cache(maxsize=256)
def _load_font(name: str | None, size: int) -> Font:
    """A font by file name, or None if this system has no such font or not in that size."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


_fallback_cache: dict[str, str | None] = {}  # character to font file


def _find_fallback_fonts(characters: set[str]) -> list[str | None]:
    """A font file for each character, or None if no system font has it."""
    wanted = characters - _fallback_cache.keys()
    for file in _system_font_files() if wanted else ():
        try:
            font = ImageFont.truetype(file, 16, layout_engine=ImageFont.Layout.BASIC)
            found = {char for char in wanted if _renders_glyph(font, char)}
        except OSError:  # damaged, or a bitmap font of one size
            continue
        _fallback_cache.update(dict.fromkeys(found, file))
        wanted -= found
        if not wanted:
            break
    _fallback_cache.update(dict.fromkeys(wanted))
    return [_fallback_cache[char] for char in sorted(characters)]


@lru_cache(maxsize=1)
def _system_font_files() -> tuple[str, ...]:
    """Names and paths of the fallback fonts and of all system fonts, regular styles first."""
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
    """Whether the font has a glyph for the character."""
    return _renders_glyph(_with_basic_layout(font), char)


@lru_cache(maxsize=256)
def _with_basic_layout(font: Font) -> Font:
    """The font with the basic layout engine: raqm would substitute missing glyphs."""
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def _renders_glyph(font: Font, char: str) -> bool:
    mask = font.getmask(char)
    inked = mask.getbbox() is not None or unicodedata.category(char)[0] in "CMZ"
    return inked and bytes(mask) != bytes(font.getmask("\uffff"))


def _renderable(char: str, letters: FontStack) -> str:
    """The character, or its replacement if the fonts lack it."""
    raqm = letters.fonts[0].layout_engine == ImageFont.Layout.RAQM
    if char.isspace() or letters.has(char) or (raqm and char in _JOINERS):
        return char
    parts = unicodedata.normalize("NFKD", char)
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    if plain and plain != char and letters.has(plain):
        return plain
    return "" if _is_attached(char) else f"[U+{ord(char):04X}]"


def wrap(text: str, font: Font, width: float, most: int) -> list[str]:
    """Wraps `text` to at most `most` lines of `width` pixels; ends in an ellipsis if truncated."""
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
    """The longest prefix of `text` at most `width` pixels wide, at least one character."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low]
