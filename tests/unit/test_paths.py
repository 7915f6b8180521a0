"""Names that come from a workflow stay inside their folder."""

import importlib
import os
import runpy
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from likeness.trainers.errors import LikenessError

runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))["install"]()
names = importlib.import_module("likeness.nodes.paths")


GOOD = ["anna", "people/anna", "Ωmega", "Анна 2", "写真：一", "a.b", "-x"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_taken(tmp_path, name):
    assert names.safe_join(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../x", "a/../b", "a/./b", "/etc", "a//b", "a/", "\\\\host\\x"),
        *("C:/x", "C:x", "a:b", "a::$DATA", "x\0", "a\nb", "a\x7fb"),
        *("con", "NUL.txt", "aux .x", "COM1", "lpt¹", "conin$", "x/prn"),
        *("anna.", "anna ", " anna", "...", ". .", "a*", 'a"', "a|b", "<a>", "a?"),
        *("a∕b", "a⁄b", "a／b", "a＼b", "..∖x", "a⧸b", "½"),
        *("‥", "．．", "․․", "ｃｏｎ", "ＮＵＬ.txt"),
        *("a\u202egnp", "a\u200bb", "\ufeffa", "a\u2028b", "\ud800"),
        *("a" * 256, "é" * 200, "/".join("a" * 17)),
    ],
)
def test_bad_names_are_refused(tmp_path, name):
    with pytest.raises(LikenessError, match="not a valid folder name"):
        names.safe_join(tmp_path, name)


def test_links_do_not_lead_out_and_loops_are_refused(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "out").mkdir()
    (root / "out").symlink_to(tmp_path / "out", target_is_directory=True)
    (root / "inner").mkdir()
    (root / "link").symlink_to(root / "inner", target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    for name in ("out", "out/deeper"):
        with pytest.raises(LikenessError, match="leads out"):
            names.safe_join(root, name)
    assert names.safe_join(root, "link/new").parent.resolve() == root / "inner"
    with pytest.raises(LikenessError):
        names.safe_join(root, "loop")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40))
def test_any_text_is_refused_or_stays_inside(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp()
    try:
        path = names.safe_join(root, text)
    except LikenessError:
        return
    for form in (str(path), unicodedata.normalize("NFKC", str(path))):
        assert os.path.normpath(form).startswith(f"{root}{os.sep}")


def put_image(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "1.png").touch()


def test_kohyas_folders_were_not_listed(tmp_path):
    put_image(tmp_path, "anna/img/10_sks man", "anna/reg/1_man", "anna", "Berta/a/b/c", "c/d/e/f/g")
    assert names.image_folders(tmp_path) == [
        "anna",
        "anna/img/10_sks man",
        "anna/reg/1_man",
        "Berta/a/b/c",
    ]


def test_hidden_and_linked_folders_are_not_listed(tmp_path):
    put_image(tmp_path, "a/.cache", ".hidden/b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "notes.txt").touch()
    assert names.image_folders(tmp_path) == []


def test_a_slow_disk_costs_the_deeper_folders_not_the_others(tmp_path):
    put_image(tmp_path, *(f"{top}/{name}" for top in "ab" for name in ("x", "x/y", "x/y/z")))
    seconds = iter([0.0, *[0.01] * 3, 99.0])
    assert names.image_folders(tmp_path, lambda: next(seconds, 99.0)) == [
        "a/x",
        "a/x/y",
        "a/x/y/z",
        "b/x",
        "b/x/y",
    ]
    assert names.image_folders(tmp_path, iter([0.0, *[99.0] * 9]).__next__) == ["a/x", "b/x"]


def test_a_huge_folder_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_MAX_ENTRIES", 3)
    put_image(tmp_path, *(f"a/b/{number}" for number in range(9)))
    assert len(names.image_folders(tmp_path)) == 3


def test_a_folder_that_may_not_be_read_ended_in_a_traceback(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "anna").mkdir()
    for method in ("iterdir", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refused)
            with pytest.raises(LikenessError, match="cannot be read: Permission denied"):
                names.photo_folder(tmp_path, "anna")
