import colorsys
import json
from itertools import pairwise

import numpy as np
import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.sheet import (
    MAX_PIXELS,
    MAX_SIDE,
    Label,
    contact_sheet,
    plan_layout,
    write_sheet,
)
from PIL import Image

NASTY = [
    "😀" * 40 + " and words",
    "שלום עולם " * 30,
    "مرحبا بالعالم " * 30,
    "x" * 300,
    "森の中の男" * 60,
    "Größe, naïve, Ελλάδα, Москва",
    "tab\tline\nnull\x00over\u202eride \ud800",
    "👩‍👩‍👧‍👦🏳️‍🌈 " * 20,
    "",
    " ",
]


def colour(index, count):
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index / count, 1, 1))


def grid(rows, columns, size=(24, 32)):
    """Images of one colour each, all different."""
    return [
        [Image.new("RGB", size, colour(r * columns + c, rows * columns)) for c in range(columns)]
        for r in range(rows)
    ]


def labels(count, name="label"):
    return [Label(f"{name}-{index}", "some more words about it") for index in range(count)]


def areas(sheet):
    """Box (left, top, right, bottom) and number of pixels of each saturated colour."""
    pixels = np.asarray(sheet)
    ys, xs = np.nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 200)
    codes = pixels[ys, xs] @ np.array([65536, 256, 1])
    values, found, counts = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.argsort(found, kind="stable")
    starts = np.cumsum(counts) - counts
    low = [np.minimum.reduceat(axis[order], starts) for axis in (xs, ys)]
    high = [np.maximum.reduceat(axis[order], starts) + 1 for axis in (xs, ys)]
    boxes = zip(*low, *high, strict=True)
    return {
        (value >> 16, value >> 8 & 255, value & 255): (box, count)
        for value, box, count in zip(values, boxes, counts, strict=True)
    }


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (8, 6), (12, 2), (1, 30)])
def test_each_image_is_whole_and_in_its_place(rows, columns):
    sheet = contact_sheet(labels(rows), labels(columns), grid(rows, columns))
    found = areas(sheet)
    assert len(found) == rows * columns
    for (left, top, right, bottom), count in found.values():
        assert count == (right - left) * (bottom - top), "an image is covered"
        assert (right - left) / (bottom - top) == pytest.approx(24 / 32, rel=0.02)
    if columns <= 25:
        for r in range(rows):
            boxes = [found[colour(r * columns + c, rows * columns)][0] for c in range(columns)]
            assert len({box[1] for box in boxes}) == 1
            assert all(a[2] < b[0] for a, b in pairwise(boxes))


@pytest.mark.parametrize("rows", range(1, 13))
@pytest.mark.parametrize("columns", [1, 6, 25, 26, 200, 1000])
def test_pages_are_bounded_and_cells_as_large_as_may_be(rows, columns):
    layout = plan_layout(rows, columns, (768, 1024), True)
    width, height = layout.size
    assert max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS
    assert 48 <= max(layout.cell) <= 512
    if rows * columns <= 72:
        assert max(layout.cell) == 512


@pytest.mark.parametrize("size", [(256, 256), (768, 1024)])
def test_the_longest_labels_take_no_more_than_was_planned(size):
    name = "words " * 60
    rows, columns = [Label(name, name)] * 2, [Label(name, name)] * 3
    images = [[Image.new("RGB", size)] * 3] * 2
    notes = [[name] * 3] * 2
    planned = plan_layout(2, 3, size, True).size
    made = contact_sheet(rows, columns, images, notes=notes).size
    assert made[0] <= planned[0] and made[1] <= planned[1]


def test_too_many_images_for_a_page_are_refused():
    with pytest.raises(ComparisonError, match="too many for one sheet"):
        plan_layout(128, 1000, (768, 1024), False)


@pytest.mark.parametrize("size", [(768, 1024), (1024, 256), (8, 8)])
@pytest.mark.parametrize("text", NASTY)
def test_no_label_of_any_kind_covers_an_image_or_leaves_the_page(text, size):
    label = [Label(text, text)]
    sheet = contact_sheet(label, label, grid(1, 1, size), notes=[[text]])
    ((left, top, right, bottom), pixels) = areas(sheet)[255, 0, 0]
    assert pixels == (right - left) * (bottom - top)
    page = np.asarray(sheet)
    for edge in (page[:2], page[-2:], page[:, :2], page[:, -2:]):
        assert (edge == 255).all()


def ink(sheet):
    return (np.asarray(sheet).max(axis=2) < 140).sum()


def test_labels_and_notes_are_written():
    plain = ink(contact_sheet([Label("")], [Label("")], [[None]]))
    assert plain == 0
    assert ink(contact_sheet([Label("base")], [Label("")], [[None]])) > 0
    assert ink(contact_sheet([Label("")], [Label("forest")], [[None]])) > 0
    assert ink(contact_sheet([Label("")], [Label("")], [[None]], notes=[["0.5"]])) > 0


def test_absent_images_are_empty_frames(tmp_path):
    (tmp_path / "there.png").write_bytes(b"")
    grid(1, 1)[0][0].save(tmp_path / "there.png")
    row = [tmp_path / "there.png", tmp_path / "absent.png", None]
    sheet = contact_sheet(labels(1), labels(3), [row])
    assert len(areas(sheet)) == 1
    frame = (np.asarray(sheet) == (218, 218, 222)).all(axis=2)
    columns = np.nonzero(frame.any(axis=0))[0]
    assert (np.diff(columns) > 1).sum() == 1, "two frames"


def test_a_sheet_without_any_image_is_frames():
    assert contact_sheet(labels(2), labels(2), [[None] * 2] * 2).size[1] > 500


def test_images_of_other_shapes_and_modes_are_shown_whole():
    row = [
        Image.new("RGB", (300, 400), "red"),
        Image.new("RGB", (400, 300), "blue"),
        Image.new("P", (30, 40)),
        Image.new("RGBA", (30, 40), (0, 255, 0, 255)),
    ]
    found = areas(contact_sheet(labels(1), labels(4), [row]))
    (left, top, right, bottom), _ = found[0, 0, 255]
    assert (right - left) / (bottom - top) == pytest.approx(4 / 3, rel=0.02)
    assert {(255, 0, 0), (0, 255, 0)} < set(found)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "forest.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ComparisonError, match=r"forest\.png cannot be shown"):
        contact_sheet(labels(1), labels(1), [[tmp_path / "forest.png"]])


@pytest.mark.parametrize(
    ("rows", "columns", "images", "notes", "message"),
    [
        (0, 1, [], None, "at least one row"),
        (1, 0, [[]], None, "at least one row"),
        (2, 1, [[None]], None, "2 rows of 1 columns"),
        (1, 2, [[None]], None, "images do not match"),
        (1, 1, [[None]], [["a", "b"]], "notes do not match"),
    ],
)
def test_a_grid_of_another_shape_is_an_error(rows, columns, images, notes, message):
    with pytest.raises(ComparisonError, match=message):
        contact_sheet(labels(rows), labels(columns), images, notes=notes)


def test_the_workflow_is_in_the_file(tmp_path):
    sheet = contact_sheet(labels(1), labels(1), [[None]])
    workflow = {"nodes": [{"title": "Zürich 😀"}]}
    write_sheet(tmp_path / "a" / "sheet.png", sheet, {"workflow": workflow, "prompt": "{}"})
    with Image.open(tmp_path / "a" / "sheet.png") as again:
        assert json.loads(again.text["workflow"]) == workflow
        assert again.text["prompt"] == "{}"
        assert again.convert("RGB").tobytes() == sheet.tobytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sheet.png"]
