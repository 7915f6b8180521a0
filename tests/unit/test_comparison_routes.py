"""What the comparison viewer may ask, and what it may not."""

import importlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))["install"]()
routes = importlib.import_module("likeness.nodes.comparison_routes")
redraw = importlib.import_module("likeness.nodes.redraw_requests")
sheet = importlib.import_module("likeness.nodes.contact_sheet")
cells = importlib.import_module("likeness.nodes.draw_cells")

OURS = {"Sec-Fetch-Site": "same-origin"}
VIEW = {"images": ["a1", "b2"], "sheet": "sheet-1.png"}
ASKED = {"name": "x", "image": "b2"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "likeness" / "comparisons" / "x"
    folder.mkdir(parents=True)
    (folder / "viewer.json").write_text(json.dumps(VIEW))
    redraw._requests.clear()
    yield folder
    redraw._requests.clear()


def test_a_comparison_is_read_with_its_scores(folder, tmp_path):
    def ask(name):
        return routes.comparison(tmp_path, {"name": name})[1]

    assert ask("x") == {"view": VIEW, "scores": None, "report": False}
    (folder / "report.html").write_text("<p>")
    (folder / "scores.json").write_text('{"version": 1, "measures": [')
    assert ask("x") == {"view": VIEW, "scores": None, "report": True}
    (folder / "scores.json").write_text("[1]")
    assert ask("x")["scores"] == [1]
    view = {**VIEW, "sheet": None}
    (folder / "viewer.json").write_text(json.dumps(view))
    former = {"view": view, "scores": None, "report": False}
    assert ask("x") == former, "they are of the images before, until the new ones are whole"
    assert ask("gone") == {"view": None, "scores": None, "report": False}


BAD_NAMES = ["", "..", "../../secret", "/etc", "C:\\x", "a\x00b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_other_folder_is_read(folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "viewer.json").write_text('{"images": ["b2"]}')
    (secret / "report.html").write_text("secret")
    assert set(routes.comparison(tmp_path, {"name": name})[1]) == {"error"}
    assert routes.report(tmp_path, {"name": name})[0] == 404
    assert routes.redraw_cell(tmp_path, {"name": name, "image": "b2"}, OURS)[0] == 404
    assert not redraw.has_redraw_request(None)


def test_the_report_of_a_comparison_is_served(folder, tmp_path):
    assert routes.report(tmp_path, {"name": "x"})[0] == 404
    (folder / "report.html").write_bytes(b"<p>report</p>")
    assert routes.report(tmp_path, {"name": "x"}) == (200, b"<p>report</p>")


def test_a_report_that_is_a_link_out_of_the_folder_is_not_served(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "report.html").symlink_to(tmp_path / "secret")
    assert routes.report(tmp_path, {"name": "x"})[0] == 404


def test_a_report_reaches_neither_comfyui_nor_another_server():
    policy = routes.REPORT_HEADERS["Content-Security-Policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert rules["script-src"] == "'unsafe-inline'", "none from elsewhere"
    assert "allow-same-origin" not in rules["sandbox"], "as a page of another server"


def test_a_cell_is_drawn_again_once(folder, tmp_path):
    files = [tmp_path / "a1.png", tmp_path / "b2.png", tmp_path / "b2.png"]
    kept = sheet.ContactSheet.fingerprint_inputs(name="x", redraw="")
    assert sheet.ContactSheet.fingerprint_inputs(name="x", redraw="") == kept
    assert routes.redraw_cell(tmp_path, ASKED, OURS) == (200, {})
    assert sheet.ContactSheet.fingerprint_inputs(name="x", redraw="") != kept
    assert sheet.ContactSheet.fingerprint_inputs(name=None, redraw="") != kept
    assert not redraw.has_redraw_request("y")
    assert redraw.requested_cells("x", files) == {1, 2}
    assert redraw.requested_cells("x", files) == {1, 2}, (
        "until it is drawn: a queue may be cancelled"
    )
    told = []
    job = SimpleNamespace(name="x", files=files, notifier=SimpleNamespace(drawn=told.append))
    cells._on_cell_written(job, 1)
    assert told == [1] and redraw.requested_cells("x", files) == set()
    assert not redraw.has_redraw_request("x") and not redraw.has_redraw_request(None)


def test_a_cell_that_the_comparison_no_longer_has_is_not_waited_for(folder, tmp_path):
    routes.redraw_cell(tmp_path, ASKED, OURS)
    assert redraw.requested_cells("x", [tmp_path / "a1.png"]) == set()
    assert not redraw.has_redraw_request("x")


def test_only_comfyuis_own_page_has_a_cell_drawn_again(folder, tmp_path):
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://a", "Host": "b"}):
        assert routes.redraw_cell(tmp_path, ASKED, headers)[0] == 403
    for image in ("", "c3", "../a1"):
        assert routes.redraw_cell(tmp_path, {"name": "x", "image": image}, OURS)[0] == 404
    for view in ("{", "[]", '{"images": "b2"}'):
        (folder / "viewer.json").write_text(view)
        assert routes.redraw_cell(tmp_path, ASKED, OURS)[0] == 404
    assert not redraw.has_redraw_request(None)
