"""What the browser's panels are told and may ask, over stand-ins for ComfyUI's modules."""

from __future__ import annotations

import importlib
import json
import runpy
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.trainers.errors import LikenessError
from likeness.trainers.recipe import Subject
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))


@pytest.fixture
def nodes(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("input", "output", "temp")}
    STUB["install"](
        {f"get_{name}_directory": lambda path=path: path for name, path in folders.items()}
    )
    names = ("node_state", "routes", "photo_view")
    yield SimpleNamespace(
        **{name: importlib.import_module(f"likeness.nodes.{name}") for name in names}
    )
    STUB["install"]()


# The board


def hidden(node, workflow=None):
    pnginfo = None if workflow is None else {"workflow": {"id": workflow}}
    return SimpleNamespace(unique_id=node, extra_pnginfo=pnginfo)


@pytest.fixture
def board(nodes, monkeypatch):
    sent = []
    monkeypatch.setattr(nodes.node_state.host, "send_event", lambda *message: sent.append(message))
    nodes.node_state._published.clear()
    nodes.node_state._loaded_from = None
    nodes.node_state.sent = sent
    return nodes.node_state


def test_a_run_of_a_program_took_over_the_node_of_that_number_in_every_tab(nodes, monkeypatch):
    sent = []
    server = SimpleNamespace(client_id="script", send_sync=lambda *message: sent.append(message))
    monkeypatch.setattr(nodes.node_state.host, "PromptServer", SimpleNamespace(instance=server))
    nodes.node_state.publish(hidden("5"), "run", "anna-lora-1")
    nodes.node_state.publish(hidden("5", "w1"), "run", "anna-lora-1")
    assert [to for _, _, to in sent] == ["script", None]


def test_a_line_of_one_tab_stood_on_the_node_of_that_number_in_every_other(nodes, monkeypatch):
    host, sent = nodes.node_state.host, []
    server = SimpleNamespace(
        client_id="tab", send_progress_text=lambda text, node, sid=None: sent.append((text, sid))
    )
    monkeypatch.setattr(host, "PromptServer", SimpleNamespace(instance=server))
    monkeypatch.setattr(host.comfy.utils, "ProgressBar", lambda *_, **__: None, raising=False)
    host.Progress("5").set_status("4 of 9 cells done")
    server.client_id = None
    host.Progress("5").set_status("5 of 9 cells done")
    assert sent == [("4 of 9 cells done", "tab"), ("5 of 9 cells done", "")]


def test_two_comfyuis_on_one_output_folder_overwrote_each_others_pins(board, tmp_path):
    file = tmp_path / "output" / "likeness" / "cache" / "board.json"
    file.parent.mkdir(parents=True)
    board.publish(hidden("5", "w1"), "run", "anna-lora-1")
    board.publish(hidden("5"), "run", "of a program")
    kept = json.loads(file.read_text())
    file.unlink()  # the other writes a file of its own, which takes this one's place
    file.write_text(json.dumps([*kept, ["w2", "6", {"run": "ben-lora-1"}]]))
    board.publish(hidden("7", "w1"), "comparison", "x")
    assert [entry[:2] for entry in json.loads(file.read_text())] == [
        ["w1", "5"], ["w2", "6"], ["w1", "7"],
    ]  # fmt: skip
    assert board.published_state("w2") == {"6": {"run": "ben-lora-1"}}
    assert board.published_state("") == {"5": {"run": "of a program"}}


def test_tabs_hear_at_once_and_later_ones_ask(board, nodes):
    board.publish(hidden("5", "w1"), "run", "anna-lora-1")
    board.publish(hidden("5", "w1"), "run", "anna-lora-2")
    board.publish(hidden("6", "w1"), "comparison", "x")
    board.publish(hidden("5", "w2"), "run", "ben-lora-1")
    event, data = board.sent[0]
    assert event == "likeness.board"
    assert data == {"workflow": "w1", "node": "5", "kind": "run", "value": "anna-lora-1"}
    assert nodes.routes.board({"workflow": "w1"}) == {
        "5": {"run": "anna-lora-2"},
        "6": {"comparison": "x"},
    }
    assert nodes.routes.board({"workflow": "w3"}) == nodes.routes.board({}) == {}


@pytest.mark.parametrize("workflow", [None, {}, {"id": 5}, "text", []])
def test_a_workflow_without_an_id_is_told_as_of_none(board, workflow):
    board.publish(SimpleNamespace(unique_id=3, extra_pnginfo={"workflow": workflow}), "run", "r")
    assert board.sent[-1][1]["workflow"] == ""
    assert board.published_state("") == {"3": {"run": "r"}}


def test_after_a_restart_panels_are_not_empty(board, tmp_path):
    (tmp_path / "output").mkdir()
    board.publish(hidden("5", "w1"), "run", "anna-lora-1")
    board.publish(hidden("12:6", "w1"), "comparison", "x")
    board.publish(hidden("5"), "run", "of a program")
    board._published.clear()
    board._loaded_from = None
    assert board.published_state("w1") == {"5": {"run": "anna-lora-1"}, "12:6": {"comparison": "x"}}
    assert board.published_state("") == {}


@pytest.mark.parametrize("text", ["", "[", "5", "[[1]]", '[["w", "5", 3]]', "[" * 99_999])
def test_a_damaged_memory_of_the_board_is_none(board, tmp_path, text):
    file = tmp_path / "output" / "likeness" / "cache" / "board.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    board._loaded_from = None
    assert board.published_state("w") == {}
    board.publish(hidden("5", "w"), "run", "r")
    assert json.loads(file.read_text()) == [["w", "5", {"run": "r"}]]


def test_the_board_forgets_the_oldest(board):
    for number in range(board.MAX_NODES + 5):
        board.publish(hidden(str(number), "w"), "run", "r")
    assert len(board.published_state("w")) == board.MAX_NODES
    assert "4" not in board.published_state("w") and "5" in board.published_state("w")


# Photographs


@pytest.fixture
def photos(tmp_path):
    """A folder with a sharp photograph, its copy as JPEG, a blurred one and two refused ones."""
    folder = tmp_path / "input" / "anna"
    folder.mkdir(parents=True)
    sharp = Image.effect_noise((400, 300), 90).resize((800, 600), Image.Resampling.NEAREST)
    sharp = sharp.convert("RGB")
    sharp.save(folder / "a.png")
    sharp.save(folder / "b.jpg", quality=95)
    other = Image.effect_noise((40, 60), 90).resize((400, 600)).convert("RGB")
    other.filter(ImageFilter.GaussianBlur(20)).save(folder / "c.png")
    shutil.copy(folder / "a.png", folder / "same.png")
    (folder / "<img src=x>.png").write_text("no image")
    return folder


def ask_once(nodes, **values):
    return nodes.routes.photos({"folder": "anna", "resolution": "128", **values})


def ask(nodes, **values):
    """As the panel: until the folder is read."""
    view = ask_once(nodes, **values)
    while view.get("reading"):
        view = ask_once(nodes, **values)
    return view


def test_the_subject_panel_shows_crops_marks_and_what_is_refused(nodes, photos, tmp_path):
    view = ask(nodes)
    cards = {card["name"]: card for card in view["photos"]}
    assert set(cards) == {"a.png", "b.jpg", "c.png"}
    assert cards["a.png"]["box"] == (100, 0, 700, 600) and cards["a.png"]["size"] == (128, 128)
    assert [name for name, card in cards.items() if card["blurred"]] == ["c.png"]
    assert {cards["a.png"]["twin"], cards["b.jpg"]["twin"]} in ({None, "a.png"}, {None, "b.jpg"})
    reasons = {one["name"]: one["reason"] for one in view["refused"]}
    assert "copy of a.png" in reasons["same.png"]
    assert "not an image" in reasons["<img src=x>.png"]
    with Image.open(tmp_path / "temp" / "likeness" / cards["a.png"]["crop"]) as crop:
        assert crop.size == (128, 128)
    with Image.open(tmp_path / "temp" / "likeness" / cards["a.png"]["whole"]) as whole:
        assert whole.size == (640, 480)
    json.dumps(view)


def test_what_a_mask_leaves_out_is_dark_on_the_whole_photograph(nodes, tmp_path):
    folder = tmp_path / "input" / "masked"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 128), "white").save(folder / "a.png")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    mask.save(folder / "a-masklabel.png")
    (plain,) = ask(nodes, folder="masked")["photos"]
    (card,) = ask(nodes, folder="masked", mask='"file"')["photos"]
    assert plain["whole"] != card["whole"]
    with Image.open(tmp_path / "temp" / "likeness" / card["whole"]) as whole:
        left, right = (whole.convert("L").getpixel((x, 64)) for x in (10, 118))
    assert left > 250 and right < 90


def test_another_crop_has_images_of_its_own(nodes, photos):
    first, second = ask(nodes), ask(nodes, buckets="true")
    assert first["photos"][0]["crop"] != second["photos"][0]["crop"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"folder": "../output"}, "is not a valid folder name"),
        ({"folder": "nobody"}, "There is no folder"),
        ({"folder": ""}, "is not a valid folder name"),
        ({"resolution": "3"}, "resolution"),
        ({"resolution": "many"}, "cannot be read"),
        ({"crop": '"round"'}, "crop"),
    ],
)
def test_what_cannot_be_shown_is_said(nodes, photos, values, text):
    assert text in ask(nodes, **values)["error"]


@pytest.fixture
def reads(nodes, monkeypatch):
    """The folders that were read; they are read while `reads.free` is set."""
    read, reads = nodes.photo_view.read_subject, []
    free, begun = threading.Event(), threading.Event()

    def slowly(folder, spec):
        begun.set()
        assert free.wait(30)
        reads.append(spec)
        return read(folder, spec)

    monkeypatch.setattr(nodes.photo_view, "read_subject", slowly)
    free.set()
    return SimpleNamespace(of=reads, free=free, begun=begun)


def views_of(nodes, monkeypatch, **values):
    views = nodes.photo_view.PhotoViews(**values)
    monkeypatch.setattr(nodes.routes, "_views", views)
    return views


def test_photographs_that_take_long_hold_no_thread_of_comfyui(nodes, photos, reads, monkeypatch):
    views_of(nodes, monkeypatch, seconds=0.01)
    reads.free.clear()
    assert [ask_once(nodes) for _ in range(3)] == [{"reading": True}] * 3
    reads.free.set()
    assert ask(nodes)["photos"] and len(reads.of) == 1


def test_an_error_that_takes_long_is_said(nodes, photos, reads, monkeypatch):
    views_of(nodes, monkeypatch, seconds=0.01)
    for path in photos.iterdir():
        path.write_text("no image")
    reads.free.clear()
    assert ask_once(nodes) == {"reading": True}
    reads.free.set()
    view = ask(nodes)
    assert "can be used" in view["error"]
    assert {one["name"] for one in view["refused"]} == {path.name for path in photos.iterdir()}
    assert all("not an image" in one["reason"] for one in view["refused"])


def test_an_unchanged_folder_is_not_read_again(nodes, photos, reads, monkeypatch):
    views_of(nodes, monkeypatch)
    assert ask(nodes, captions="true") == ask(nodes, captions="true")
    assert len(reads.of) == 1
    (photos / "a.txt").write_text("sks in the snow")
    cards = ask(nodes, captions="true")["photos"]
    assert len(reads.of) == 2 and "sks in the snow" in [card["caption"] for card in cards]


def test_a_photograph_that_was_left_out_meanwhile_was_an_error_of_the_server(
    nodes, photos, monkeypatch
):
    views_of(nodes, monkeypatch)
    analyse, moved = nodes.photo_view._analyse, photos / "a.jpg"
    path = next(path for path in photos.iterdir() if path.suffix != ".txt")

    def analyse_late(photo, temp):
        if path.exists() and not moved.exists():
            path.unlink()
            moved.touch()
            raise FileNotFoundError(path)
        return analyse(photo, temp)

    monkeypatch.setattr(nodes.photo_view, "_analyse", analyse_late)
    assert ask_once(nodes) == {"reading": True}
    assert path.name not in [card["name"] for card in ask(nodes)["photos"]]


def test_what_nobody_waits_for_is_not_read(nodes, photos, reads, monkeypatch):
    now = [0.0]
    views_of(nodes, monkeypatch, seconds=0.01, clock=lambda: now[0])
    reads.free.clear()
    for resolution in ("64", "96", "128"):
        assert ask_once(nodes, resolution=resolution) == {"reading": True}
        assert reads.begun.wait(30)
        now[0] += nodes.photo_view.ABANDON_SECONDS
    ask_once(nodes)
    reads.free.set()
    assert ask(nodes)["photos"]
    assert [spec.resolution for spec in reads.of] == [64, 128], "64 had begun"
    assert ask(nodes, resolution="96")["photos"], "it is read when it is asked for again"


def test_a_folder_of_very_many_files_is_not_read_for_the_panel(nodes, photos, monkeypatch):
    monkeypatch.setattr(nodes.photo_view, "MAX_PHOTOS", 5)
    assert "photos" in ask(nodes)
    (photos / "a.txt").write_text("a caption is no image")
    assert "photos" in ask(nodes)
    for name in ("a.npz", "meta.json", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (photos / name).write_text("none of kohya's and the systems' files is")
    assert "4 other files are not used: .db, .npz, .ini and 1 more." in ask(nodes)["notes"]
    (photos / "more.png").write_text("x")
    assert "has 6 photographs; at most 5 can be shown here" in ask(nodes)["error"]


def test_a_folder_that_may_not_be_read_was_an_error_of_the_server(nodes, photos, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    assert "cannot be read: Permission denied" in ask_once(nodes)["error"]
    with pytest.raises(LikenessError, match="cannot be read: Permission denied"):
        nodes.photo_view.PhotoViews().view(photos, Subject(), photos)
