import pytest
from likeness.comparison import lettering
from likeness.comparison.lettering import clean, font_for, paragraph, wrap

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


def test_accents_are_left_out_where_no_font_has_them(monkeypatch):
    monkeypatch.setattr(lettering, "_FALLBACKS", ())
    (line,) = paragraph("Zürich, naïve café", 16, (0, 0, 0), 500, 1)
    assert line.text == "Zurich, naive cafe"
