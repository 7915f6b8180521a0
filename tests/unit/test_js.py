"""The browser's side: the tests in tests/js, and what every file of js/ keeps to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from likeness.trainers.image_io import _UNREAD_EXTENSIONS, image_extensions

ROOT = Path(__file__).resolve().parents[2]
JS = ROOT / "js"
FILES = sorted(JS.rglob("*.js"))
STYLES = sorted((JS / "css").iterdir())
NODE_MAJOR = 20


def node() -> str:
    """Node.js; skips the test where there is none that is new enough."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR:
        pytest.skip(f"node {version.strip()} is older than {NODE_MAJOR}")
    return found


def test_the_tests_of_the_browsers_side():
    tests = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    done = subprocess.run(
        [node(), "--test", *tests],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"^# fail 0$", done.stdout, re.MULTILINE)
    assert int(re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[1]) > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(JS).as_posix())
def test_text_is_never_read_as_markup(path):
    code = path.read_text(encoding="utf-8")
    for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser"):
        assert bad not in code
    assert not re.search(r"\beval\(|new Function", code)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(JS).as_posix())
def test_nothing_comes_from_elsewhere(path):
    code = path.read_text(encoding="utf-8")
    known = code.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://", known)
    for source in re.findall(r"^import .*? from \"(.*?)\";", code, re.MULTILINE | re.DOTALL):
        core = re.fullmatch(r"(\.\./)+scripts/(app|api)\.js", source)
        assert core or (path.parent / source).resolve() in FILES, source
    assert "/extensions/" not in code  # the pack's folder name is the user's


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_style_sheets_fetch_nothing(path):
    style = path.read_text(encoding="utf-8")
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("path", [*FILES, *STYLES], ids=lambda path: path.name)
def test_files_are_of_a_readable_size(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 350
    assert max(map(len, lines)) <= 110


def test_files_that_subject_reads_were_not_copied_when_dropped_on_it():
    """Browsers know no MIME type of some; the expression means the same in Python."""
    source = (JS / "lib" / "photos.js").read_text()
    accepted = re.compile(re.search(r"IMAGE =\s*/(.+)/i;", source)[1], re.IGNORECASE)
    targas = {".icb", ".vda", ".vst"}  # of the eighties
    readable = image_extensions() - {*_UNREAD_EXTENSIONS} - targas
    assert {".jpg", ".tga", ".jfif"} < readable
    assert [end for end in sorted(readable) if not accepted.search(f"a{end}")] == []
    assert not accepted.search("a.npz")
