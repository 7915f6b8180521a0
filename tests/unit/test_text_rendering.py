import os
import shutil
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from likeness.comparison import text_rendering
from likeness.comparison.text_rendering import clean, draw_lines, font_for, paragraph, wrap
from PIL import Image, ImageDraw, ImageFont, features

TEXTS = ["a few short words", "x" * 300, "שלום עולם " * 9, "one " + "y" * 90 + " two", "wide  gap"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [40, 200])
def test_lines_fit_and_lose_nothing_but_spaces(text, width):
    font = font_for(text, 16)
    lines = wrap(clean(text), font, width, 1000)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_words_stay_whole_where_they_fit():
    font = font_for("a", 16)
    width = font.getlength("some words")
    assert wrap("some words more", font, width, 9) == ["some words", "more"]
    assert wrap("some wordsmore", font, width, 9) == ["some", "wordsmore"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_is_left_out_ends_in_an_ellipsis_that_fits(most):
    font = font_for("word", 16)
    lines = wrap("word " * 60, font, 100, most)
    assert len(lines) == most
    assert [line.endswith("…") for line in lines] == [False] * (most - 1) + [True]
    assert all(font.getlength(line) <= 100 for line in lines)


def test_a_width_of_nothing_ends_too():
    assert wrap("abc", font_for("abc", 16), 0, 2) == ["a", "b…"]


def test_text_is_cleaned():
    assert clean(" a\tb\nc\x00d\u202e\ud800 ") == "a b cd"
    assert len(clean("x" * 10**6)) == 2000


def test_a_blank_text_has_no_lines():
    assert paragraph(" \n", 16, (0, 0, 0), 100, 3) == []


def test_one_font_is_chosen_for_the_whole_text():
    ascii_font = font_for("sunglasses", 16)
    assert font_for("street", 16) is ascii_font
    other = font_for("Größe", 16)
    if other is ascii_font:
        pytest.skip("no other font on this system")
    assert font_for("Größe and a long tail of plain words", 16) is other


# Characters that one font has not


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A system whose fonts are those that are put into the folder that is given."""

    def forget():
        text_rendering._system_font_files.cache_clear()
        text_rendering._load_font.cache_clear()
        text_rendering._fallback_cache.clear()

    monkeypatch.setattr(text_rendering, "_FALLBACKS", ())
    monkeypatch.setattr(text_rendering, "_FONT_FOLDERS", (str(tmp_path),))
    forget()
    yield tmp_path
    forget()


@pytest.fixture
def wide(system):
    """A font of many scripts that no list names."""
    try:
        found = ImageFont.truetype("DejaVuSans.ttf", 16).path
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    path = system / "deeper" / "Unlisted.ttf"
    path.parent.mkdir()
    shutil.copy(found, path)
    return path


def only_line(text):
    (line,) = paragraph(text, 16, (0, 0, 0), 900, 1)
    return line


def drawn(line):
    """Which pixels of a page are ink after a line is written on it."""
    page = Image.new("L", (900, 40), 255)
    draw_lines(ImageDraw.Draw(page), (4, 4), [replace(line, colour=0)])
    return np.asarray(page) < 128


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich, naïve café", "Zurich, naive cafe"),
        ("① ﬀ", "1 ff"),
        ("a 森😀", "a [U+68EE][U+1F600]"),
        ("e\u0301 ❤\ufe0f", "e [U+2764]"),
    ],
)
def test_what_no_font_has_is_written_as_what_can_be_read(system, text, shown):
    assert only_line(text).text == shown


def test_a_font_that_no_list_names_is_found(wide):
    (wide.parent / "a-broken.ttf").write_bytes(b"not a font")
    shutil.copy(wide, wide.parent / "LastResort.otf")
    line = only_line("report Ωმ 12 ❤")
    assert line.text == "report Ωმ 12 ❤"
    latin, other = line.font.fonts
    assert other.path == str(wide)
    assert line.font.text_runs(line.text) == [
        ("report ", latin), ("Ωმ ", other), ("12 ", latin), ("❤", other),
    ]  # fmt: skip
    assert line.width == ceil(sum(font.getlength(t) for t, font in line.font.text_runs(line.text)))
    assert drawn(line)[:, 4 : 4 + line.width].any(axis=0).mean() > 0.5


def test_upright_fonts_come_before_others(system):
    for name in ("A-Bold.ttf", "B-Regular.ttf", "C.otf", "D.txt", "ALightItalic.TTC"):
        (system / name).write_bytes(b"")
    assert [file.rsplit(os.sep, 1)[1] for file in text_rendering._system_font_files()] == [
        "B-Regular.ttf", "C.otf", "A-Bold.ttf", "ALightItalic.TTC",
    ]  # fmt: skip


def test_pieces_of_a_text_from_right_to_left_stand_in_its_order(wide):
    line = only_line("שלום abc")
    assert [text for text, _ in line.font.text_runs(line.text)] == ["abc", "שלום "]
    assert [text for text, _ in line.font.text_runs("abc שלום")] == ["abc ", "שלום"]


def test_accents_stay_with_their_letters(wide):
    line = only_line("aმ\u0301b")
    assert [text for text, _ in line.font.text_runs(line.text)] == ["a", "მ\u0301", "b"]


# Directions


@pytest.mark.parametrize("raqm", [True, False])
@pytest.mark.parametrize("text", ["שלום עולם", "مرحبا بالعالم", "ab שלום (12) 森", "שלום ab 1.5"])
def test_right_to_left_is_drawn_with_raqm_and_without(wide, monkeypatch, raqm, text):
    if raqm and not features.check("raqm"):
        pytest.skip("PIL has no raqm here")
    monkeypatch.setattr(ImageFont.core, "HAVE_RAQM", raqm)
    text_rendering._load_font.cache_clear()
    line = only_line(text)
    engine = line.font.fonts[-1].layout_engine
    assert engine == (ImageFont.Layout.RAQM if raqm else ImageFont.Layout.BASIC)
    assert drawn(line).sum() > 100


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("שלום עולם", "םלוע םולש"),
        ("abc שלום עולם 12", "abc םלוע םולש 12"),
        ("שלום 1.5 abc עולם", "םלוע abc 1.5 םולש"),
        ("שלום (12) [U+68EE]", "[U+68EE] (12) םולש"),
        ("a dog (12)", "a dog (12)"),
    ],
)
def test_without_raqm_hebrew_is_turned_round(text, order):
    assert text_rendering._visual_order(text, text_rendering._is_rtl(text)) == order


def test_hebrew_looks_the_same_with_raqm_and_without(wide, monkeypatch):
    if not features.check("raqm"):
        pytest.skip("PIL has no raqm here")
    texts = ("שלום עולם", "שלום (12) abc", "abc שלום d")
    with_raqm = [drawn(only_line(text)) for text in texts]
    monkeypatch.setattr(ImageFont.core, "HAVE_RAQM", False)
    text_rendering._load_font.cache_clear()
    for text, expected in zip(texts, with_raqm, strict=True):
        assert (drawn(only_line(text)) != expected).sum() < 0.3 * expected.sum()


def test_a_lone_accent_that_raqm_would_put_on_a_circle_is_left_out(wide):
    assert only_line("x\u093f").text == "x"


def test_a_word_keeps_its_joiners(wide):
    if not features.check("raqm"):
        pytest.skip("PIL has no raqm here")
    assert "\u200c" in only_line("می\u200cخواهم").text
