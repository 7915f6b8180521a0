"""Photographs that are left out: which files move, and what is never moved or overwritten."""

from __future__ import annotations

import importlib
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.trainers.recipe import Subject
from likeness.trainers.subject import read_subject
from PIL import Image

STUB = runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8188"}


@pytest.fixture
def nodes(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("input", "output", "temp")}
    STUB["install"](
        {f"get_{name}_directory": lambda path=path: path for name, path in folders.items()}
    )
    names = ("left_out", "routes", "paths", "photo_view")
    yield SimpleNamespace(
        **{name: importlib.import_module(f"likeness.nodes.{name}") for name in names}
    )
    STUB["install"]()


@pytest.fixture
def anna(tmp_path):
    folder = tmp_path / "input" / "anna"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def leave_out(nodes, anna):
    return lambda name, **values: move(nodes.left_out.leave_out, anna, name, **values)


@pytest.fixture
def put_back(nodes, anna):
    return lambda name, **values: move(nodes.left_out.put_back, anna, name, **values)


def move(route, anna, name, folder="anna", headers=OURS):
    status, data = route(anna.parent, {"folder": folder, "name": name}, headers)
    return data["name"] if status == 200 else (status, data["error"])


def write(folder, *names):
    """Files that contain their names."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)


def listing(folder):
    """{path: content} of all files below a folder, and "name/": None of empty folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    } | {
        f"{path.name}/": None
        for path in folder.iterdir()
        if path.is_dir() and not any(path.iterdir())
    }


SIDECARS = ["a.txt", "a.caption", "a-masklabel.png"]


def test_a_photograph_goes_with_its_captions_and_mask_and_comes_back(leave_out, put_back, anna):
    write(anna, "a.jpg", *SIDECARS, "b.jpg", "b.txt", "a.json", "a-masklabel.jpg")
    before = listing(anna)
    assert leave_out("a.jpg") == "a.jpg"
    aside = ["left out/a.jpg", *(f"left out/{name}" for name in SIDECARS)]
    assert set(listing(anna)) == {*aside, "b.jpg", "b.txt", "a.json", "a-masklabel.jpg"}
    assert put_back("a.jpg") == "a.jpg"
    assert listing(anna) == before, "without an empty folder"


def test_a_sidecar_stays_with_the_other_photograph_of_its_name(leave_out, put_back, anna):
    write(anna, "a.jpg", "a.PNG", *SIDECARS)
    before = listing(anna)
    leave_out("a.jpg")
    assert set(listing(anna)) == {"left out/a.jpg", "a.PNG", *SIDECARS}
    leave_out("a.PNG")
    assert not any("/" not in name for name in listing(anna))
    assert [put_back("a.jpg"), put_back("a.PNG")] == ["a.jpg", "a.PNG"]
    assert listing(anna) == before


def test_another_file_of_the_name_of_one_that_was_left_out_is_not_overwritten(
    leave_out, put_back, anna
):
    write(anna, "a.jpg", "a.txt")
    leave_out("a.jpg")
    (anna / "a.jpg").write_text("another")
    (anna / "a.txt").write_text("another's")
    assert leave_out("a.jpg") == "a (1).jpg"
    assert listing(anna) == {
        "left out/a.jpg": "a.jpg",
        "left out/a.txt": "a.txt",
        "left out/a (1).jpg": "another",
        "left out/a (1).txt": "another's",
    }
    assert put_back("a (1).jpg") == "a (1).jpg"
    write(anna, "a.txt", "a (2).txt")
    assert put_back("a.jpg") == "a (3).jpg"
    assert listing(anna) == {
        "a.txt": "a.txt",
        "a (1).jpg": "another",
        "a (1).txt": "another's",
        "a (2).txt": "a (2).txt",
        "a (3).jpg": "a.jpg",
        "a (3).txt": "a.txt",
    }


def test_a_name_that_is_taken_in_between_is_not_overwritten(nodes, leave_out, anna, monkeypatch):
    write(anna, "a.jpg")
    write(anna / "left out", "a.jpg")
    monkeypatch.setattr(nodes.left_out, "_free_stem", lambda folder, stem, endings: stem)
    before = listing(anna)
    status, error = leave_out("a.jpg")
    assert status == 409 and "a.jpg cannot be moved: File exists" in error
    assert listing(anna) == before


@pytest.mark.parametrize("failing", ["a.jpg", "a.txt", "a-masklabel.png"])
def test_a_file_that_is_open_on_windows_is_named_and_nothing_is_moved(
    nodes, leave_out, anna, monkeypatch, failing
):
    write(anna, "a.jpg", *SIDECARS)
    before = listing(anna)

    def rename(source, target):
        if source.name == failing:
            error = PermissionError(13, "The process cannot access the file")
            error.winerror = 32
            raise error
        os.replace(source, target)

    monkeypatch.setattr(nodes.left_out, "replace", rename)
    status, error = leave_out("a.jpg")
    assert status == 409 and f"{failing} is open in another program" in error
    assert listing(anna) == before


def test_a_folder_that_may_not_be_written_is_a_readable_error(
    nodes, leave_out, put_back, anna, monkeypatch
):
    write(anna, "a.jpg")
    write(anna / "left out", "b.jpg")

    def refused(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(nodes.left_out, "_rename", refused)
    for status, error in (leave_out("a.jpg"), put_back("b.jpg")):
        assert status == 409
        assert "cannot be moved: Permission denied. Give ComfyUI's user write access to" in error
        assert f"{anna}." in error
    monkeypatch.setattr(nodes.left_out, "make_folder", lambda folder: refused(folder, folder))
    assert "a.jpg cannot be moved: Permission denied" in leave_out("a.jpg")[1]


def test_a_file_in_the_place_of_the_folder_is_a_readable_error(leave_out, anna):
    write(anna, "a.jpg", "left out")
    status, error = leave_out("a.jpg")
    assert status == 409 and "a.jpg cannot be moved: File exists" in error
    assert listing(anna) == {"a.jpg": "a.jpg", "left out": "left out"}


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../other/x.jpg", "sub/x.jpg", "sub", "gone.jpg", "left out", "a:b.jpg"),
        *("/etc/passwd", "..\\other\\x.jpg", "a.jpg\0", "a.txt", "a-masklabel.png", ".hidden.jpg"),
        *("link.jpg", "left out/b.jpg", "con"),
    ],
)
def test_only_a_photograph_of_the_folder_is_moved(leave_out, put_back, anna, name):
    write(anna, "a.jpg", "a.txt", "a-masklabel.png", ".hidden.jpg")
    write(anna / "left out", "b.jpg")
    write(anna / "sub", "x.jpg")
    write(anna.parent / "other", "x.jpg")
    (anna / "link.jpg").symlink_to(anna.parent / "other" / "x.jpg")
    before = listing(anna.parent)
    assert leave_out(name)[0] == 404
    assert put_back(name)[0] == 404
    assert listing(anna.parent) == before


@pytest.mark.parametrize("folder", ["", "..", "anna/..", "/etc", "link", "nobody", "ANNA\0"])
def test_no_other_folder_is_written(leave_out, put_back, anna, tmp_path, folder):
    write(tmp_path / "outside", "a.jpg")
    (anna.parent / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    write(tmp_path, "a.jpg")
    before = listing(tmp_path)
    assert leave_out("a.jpg", folder=folder)[0] == 404
    assert put_back("a.jpg", folder=folder)[0] == 404
    assert listing(tmp_path) == before


def test_a_sub_folder_that_is_a_link_to_elsewhere_is_not_used(nodes, leave_out, anna, tmp_path):
    write(anna, "a.jpg")
    write(tmp_path / "outside", "secret.jpg")
    (anna / "left out").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert leave_out("a.jpg")[0] == 404
    assert nodes.left_out.left_out_names(anna.parent, "anna") == []


def test_a_link_within_the_folder_is_moved_itself_and_comes_back(nodes, leave_out, put_back, anna):
    write(anna, "a.jpg")
    (anna / "b.jpg").symlink_to("a.jpg")
    assert leave_out("b.jpg") == "b.jpg"
    assert listing(anna)["a.jpg"] == "a.jpg"
    assert nodes.left_out.left_out_names(anna.parent, "anna") == ["b.jpg"], "though it is broken"
    assert put_back("b.jpg") == "b.jpg"
    assert (anna / "b.jpg").read_text() == "a.jpg"


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://x", "Host": "y"}]
)
def test_another_page_can_move_nothing(leave_out, put_back, anna, headers):
    write(anna, "a.jpg")
    write(anna / "left out", "b.jpg")
    before = listing(anna)
    assert leave_out("a.jpg", headers=headers)[0] == 403
    assert put_back("b.jpg", headers=headers)[0] == 403
    assert listing(anna) == before


def test_the_miniatures_own_drawings_stay(nodes, leave_out, anna):
    folder = anna.parent / nodes.left_out.miniature.SUBJECT
    write(folder, "a.jpg")
    assert leave_out("a.jpg", folder=folder.name)[0] == 404
    assert listing(folder) == {"a.jpg": "a.jpg"}
    assert nodes.left_out.left_out_names(anna.parent, folder.name) == []


def test_what_is_left_out_is_neither_trained_nor_offered_as_a_folder(nodes, leave_out, anna):
    for number, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(anna / name)
    (anna / "other").mkdir()
    leave_out("a.png")
    found = read_subject(anna, Subject(resolution=64))
    assert [photo.path.name for photo in found.photos] == ["b.png"]
    assert found.notes == ("Sub-folders are not read: other.",)
    assert nodes.paths.image_folders(anna.parent) == ["anna"]
    leave_out("b.png")
    assert nodes.paths.image_folders(anna.parent) == ["anna"], "all can be put back"
    (anna.parent / "left out").mkdir()
    (anna.parent / "left out" / "a.png").write_bytes(b"x")
    assert nodes.paths.image_folders(anna.parent) == ["anna"]


def test_the_panel_is_told_what_is_left_out_also_when_it_is_all(nodes, leave_out, anna):
    Image.effect_noise((64, 64), 90).convert("RGB").save(anna / "a.png")
    (anna / "b.png").write_text("no image")

    def ask():
        view = {"reading": True}
        while view.get("reading"):
            view = nodes.routes.photos({"folder": "anna", "resolution": "64"})
        return [photo["name"] for photo in view.get("photos", ())], view["left_out"]

    assert ask() == (["a.png"], [])
    leave_out("a.png")
    assert ask() == ([], ["a.png"])
    leave_out("b.png")
    write(anna / "left out", "b.txt", "b.caption", "b-masklabel.png", ".hidden.png")
    (anna / "left out" / "sub").mkdir()
    assert ask() == ([], ["a.png", "b.png"])
    assert nodes.routes.photos({"folder": "../x"})["left_out"] == []


def test_what_is_left_out_does_not_count_as_a_photograph(nodes, leave_out, anna, monkeypatch):
    write(anna, "a.png", "b.png", "c.png")
    leave_out("c.png")
    monkeypatch.setattr(nodes.photo_view, "MAX_PHOTOS", 2)
    assert "at most" not in nodes.routes.photos({"folder": "anna"}).get("error", "")
