"""What the comparison viewer is told, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))


@pytest.fixture
def viewer():
    STUB["install"]()
    return importlib.import_module("likeness.nodes.viewer")


@pytest.fixture
def news():
    STUB["install"]()
    return importlib.import_module("likeness.nodes.throttle")


@pytest.fixture
def small_plan():
    prompts = prompt_set_from_text("a = on the beach\nb = <b>in the rain</b>")
    return plan([Variant(name="base"), Variant(name="r4")], prompts, seed=7)


@pytest.fixture
def cells(tmp_path):
    """Four cells, of which the first two are drawn."""
    folder = tmp_path / "likeness" / "cells"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (768, 1024), (number * 200, 0, 0)).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(4)]


def test_messages_are_at_most_four_a_second_and_none_is_lost(news):
    now, sent = 100.0, []
    some = news.Throttle(sent.append, clock=lambda: now)
    for number in range(100):
        some.add({str(number): number})
        now += 0.01
    some.flush()
    assert len(sent) == 5  # at 0, 0.25, 0.5 and 0.75 s, and the rest
    assert sorted(int(key) for message in sent for key in message) == list(range(100))
    some.flush()
    assert len(sent) == 5


def test_messages_that_took_long_were_sent_one_after_another(news):
    now, sent = 0.0, []

    def send(message):
        nonlocal now
        sent.append(message)
        now += 2 * news.INTERVAL_SECONDS

    some = news.Throttle(send, clock=lambda: now)
    some.add({"step": 1})
    some.add({"step": 2})
    assert sent == [{"step": 1}]
    now += news.INTERVAL_SECONDS
    some.add({"step": 3})
    assert sent == [{"step": 1}, {"step": 3}]


def test_the_last_value_of_a_name_counts(news):
    now, sent = 0.0, []
    some = news.Throttle(sent.append, clock=lambda: now)
    some.add({"step": 1})
    some.add({"step": 2})
    some.add({"step": 3, "loss": 0.5})
    some.flush()
    assert sent == [{"step": 1}, {"step": 3, "loss": 0.5}]


def test_the_view_says_which_cells_are_drawn_and_makes_their_thumbnails(
    viewer, small_plan, cells, tmp_path
):
    folder = tmp_path / "likeness" / "comparisons" / "x"
    viewer.write_view(folder, small_plan, cells, "sheet-1.png", "Trained on another base: r4.")
    view = json.loads((folder / "viewer.json").read_text())
    assert view["remark"] == "Trained on another base: r4."
    assert view["rows"] == ["base", "r4"]
    assert [column["prompt"] for column in view["columns"]] == [
        "on the beach",
        "<b>in the rain</b>",
    ]
    assert view["columns"][0]["seed"] == 7
    assert view["images"] == ["0", "1", "2", "3"]
    assert [at > 1e12 for at in view["drawn"]] == [True, True, False, False]
    made = sorted((tmp_path / "likeness" / "cache" / "thumbnails").iterdir())
    assert [path.name for path in made] == ["0.webp", "1.webp"]
    with Image.open(made[0]) as small:
        assert small.size == (288, 384)


def test_viewers_hear_of_each_cell_and_later_ones_read_the_file(
    viewer, news, small_plan, cells, tmp_path, monkeypatch
):
    monkeypatch.setattr(viewer, "Throttle", lambda send: news.Throttle(send, clock=lambda: 0.0))
    sent = []
    monkeypatch.setattr(viewer, "send_event", lambda event, data: sent.append((event, data)))
    folder = tmp_path / "likeness" / "comparisons" / "x"
    hidden = SimpleNamespace(unique_id="12", extra_pnginfo={"workflow": {"id": "w"}})
    told = viewer.CellNotifier(hidden, folder, small_plan, cells)
    Image.new("RGB", (8, 8)).save(cells[2])
    told.drawn(2)
    ((event, data),) = sent
    assert event == "likeness.cells" and data["node"] == "12" and data["name"] == "x"
    assert data["workflow"] == "w"
    assert list(data["drawn"]) == ["2"] and data["drawn"]["2"] == viewer.mtime_ms(cells[2]) > 0
    view = json.loads((folder / "viewer.json").read_text())
    assert [at > 0 for at in view["drawn"]] == [True, True, True, False]
    assert data["finished"] is False
    told.drawn(1)
    told.set_status("3 of 4 cells done")
    told.flush()
    assert list(sent[-1][1]["drawn"]) == ["1"]
    assert sent[-1][1]["line"] == "3 of 4 cells done"
    told.finished()
    assert sent[-1][1] == {
        "node": "12", "workflow": "w", "name": "x", "drawn": {}, "finished": True, "line": "",
    }  # fmt: skip
