"""A Matrix is drawn cell by cell in a real ComfyUI, in order, and never twice."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
PROMPTS, ADAPTERS = LIGHT["PROMPTS"], LIGHT["ADAPTERS"]
graph, node, renamed = LIGHT["graph"], LIGHT["node"], LIGHT["renamed"]
cancel_at, cells, settled_cells = LIGHT["cancel_at"], LIGHT["cells"], LIGHT["settled_cells"]


def encoded(name, prompts=PROMPTS, adapters=("none (base)", "one.safetensors", "two.safetensors")):
    """What is drawn, in order, when everything is."""
    texts = [line.split(" = ")[1] for line in prompts]
    return [f"{adapter} {text}, {name}" for adapter in adapters for text in texts]


def test_every_cell_is_drawn_in_order_and_each_adapter_is_loaded_once(server, drawn):
    outcome = server.run(graph("order"))
    assert outcome.status == "success", outcome.error
    lines = drawn("all")
    cells = [line for line in lines if line[0] == "draw"]
    assert [cell[1] for cell in cells] == encoded("order")
    assert {cell[3] for cell in cells} == {"5"}  # the seed, all down every column
    loads = [line[1] for line in lines if line[0] == "load"]
    assert loads == ["none (base)", "one.safetensors", "two.safetensors"]
    # A variant is loaded when the one before it is done.
    assert lines.index(["load", "one.safetensors"]) > lines.index(cells[2])
    assert lines.index(["load", "two.safetensors"]) > lines.index(cells[5])
    # Nothing of a cell runs before the cell before it is drawn.
    assert lines.index(["encode", "none (base)", "in the rain, order"]) > lines.index(cells[0])
    folder = server.home / "output" / "likeness" / "comparisons" / "order"
    for row in ("base", "one", "r2"):
        assert {p.name for p in (folder / row / "64x96").iterdir()} == {
            "beach.png",
            "rain.png",
            "chess.png",
        }


def test_an_adapter_at_several_strengths_is_several_rows(server, drawn):
    rows = ("one.safetensors", "half = one.safetensors @ 0.5")
    prompt = graph("strong", prompts=PROMPTS[:1], adapters=rows)
    assert "Row half has a strength, but nothing uses it" in server.refused(prompt)
    prompt["6"]["inputs"]["strength"] = ["2", 10]
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    assert [line[4] for line in drawn("all") if line[0] == "draw"] == ["1.0", "0.5"]


def test_the_sheet_is_shown_and_says_what_is_done_and_left(server, drawn):
    said, shown = [], []

    def listen(message):
        if isinstance(message, bytes) and message[:4] == b"\x00\x00\x00\x03":
            said.append(message[8:].decode())
        elif not isinstance(message, bytes) and message["type"] == "executed":
            shown.append(message["data"])

    prompt = graph("shown", prompts=PROMPTS[:2], adapters=("base",))
    outcome = server.run(prompt, listen)
    assert outcome.status == "success", outcome.error
    assert any(text.startswith("71 of 2 cells done, 1 left, about") for text in said), said
    assert said[-1] == "72 cells: 2 generated now, 0 reused"
    assert outcome.previews >= 2
    images = [data for data in shown if (data["output"] or {}).get("images")]
    assert [data["display_node"] for data in images] == ["7", "7"]  # at once, and when done

    drawn()
    again = server.run(prompt)  # from ComfyUI's cache, if it has room for it
    assert drawn("all") == []
    (image,) = again.outputs["7"]["images"]
    assert image == images[-1]["output"]["images"][0]
    assert (server.home / "output" / image["subfolder"] / image["filename"]).is_file()


def test_after_a_cancel_and_after_a_restart_exactly_the_others_are_drawn(server, drawn):
    everything, before = encoded("cancelled"), len(cells(server))
    slow = graph("cancelled", seconds=1.0)

    assert server.run(slow, cancel_at(server, "3 of 9 cells done")).status == "interrupted"
    kept = len(settled_cells(server, before + 3)) - before
    assert kept in (3, 4)  # a fourth may have been done before the queue was told
    # A node that runs is not stopped midway: one more may have been drawn and not kept.
    assert first_words(drawn) in (everything[:kept], everything[: kept + 1])

    assert server.run(slow, cancel_at(server, "6 of 9 cells done")).status == "interrupted"
    more = len(settled_cells(server, before + 6)) - before
    assert more in (6, 7)
    assert first_words(drawn) in (everything[kept:more], everything[kept : more + 1])

    server.stop()
    server.start()
    said = []
    assert server.run(slow, said.append).status == "success"
    assert first_words(drawn) == everything[more:]
    line = f"9 cells: {9 - more} generated now, {more} reused".encode()
    assert any(line in text for text in said if type(text) is bytes)

    server.stop()
    server.start()
    assert server.run(slow).status == "success"
    assert drawn("all") == [], "all is there: nothing is loaded, encoded or drawn"


def first_words(drawn):
    """What the cells that were drawn have encoded."""
    return [cell[0] for cell in drawn()]


def test_a_copied_group_draws_its_own_sheet(server, drawn):
    one, other = graph("copied"), renamed(graph("copied"), "1")
    other["17"]["inputs"]["name"] = "copy"
    other["16"]["inputs"]["seconds"] = 0.001
    outcome = server.run(one | other)
    assert outcome.status == "success", outcome.error
    assert len(drawn()) == 18


def test_nodes_that_got_other_ids_draw_as_before(server, drawn):
    assert server.run(graph("moved")).status == "success"
    drawn()
    moved = renamed(graph("moved", seconds=0.001), "12:")  # as inside of a subgraph
    outcome = server.run(moved)
    assert outcome.status == "success", outcome.error
    assert len(drawn()) == 9


def test_a_deleted_cell_is_drawn_again(server, drawn):
    assert server.run(graph("deleted")).status == "success"
    drawn()
    assert server.run(graph("deleted")).status == "success"
    assert drawn("all") == []
    newest = max(cells(server), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    assert server.run(graph("deleted")).status == "success"
    assert len(drawn()) == 1 and newest.is_file()


def test_images_with_alpha_are_kept_with_it_and_shown(server, drawn):
    prompt = graph("alpha", prompts=PROMPTS[:1])
    prompt["8"] = node("TestAlpha", image=["6", 0])
    prompt["7"]["inputs"]["image"] = ["8", 0]
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    assert outcome.previews >= 3 and len(drawn()) == 3
    newest = max(cells(server), key=lambda path: path.stat().st_mtime_ns)
    with Image.open(newest) as image:
        assert image.mode == "RGBA"
    assert server.run(graph("after")).status == "success", "the server lives on"


def test_a_widget_with_a_long_text_is_no_file(server, drawn):
    text = "é" * 130 + ".png"  # fewer characters than a name may have, and more bytes
    outcome = server.run(graph("long", prompts=(f"x = {text}",), adapters=("base",)))
    assert outcome.status == "success", outcome.error


def test_a_changed_prompt_draws_its_column_only(server, drawn):
    assert server.run(graph("column")).status == "success"
    drawn()
    changed = (PROMPTS[0], "rain = in the snow", PROMPTS[2])
    assert server.run(graph("column", prompts=changed)).status == "success"
    assert first_words(drawn) == [
        f"{adapter} in the snow, column"
        for adapter in ("none (base)", "one.safetensors", "two.safetensors")
    ]


def test_another_order_and_other_names_draw_nothing(server, drawn):
    assert server.run(graph("renamed")).status == "success"
    drawn()
    folder = server.home / "output" / "likeness" / "comparisons" / "renamed"
    old, new = (folder / row / "64x96" / "rain.png" for row in ("base", "plain"))
    before = old.read_bytes()
    rows = ("two.safetensors", "first = one.safetensors", "plain = base")
    outcome = server.run(graph("renamed", prompts=PROMPTS[::-1], adapters=rows))
    assert outcome.status == "success", outcome.error
    assert drawn("all") == []
    assert new.read_bytes() == before
    assert not old.parent.parent.exists(), "no row is called so any more"


def test_another_row_and_a_replaced_adapter_draw_their_rows(server, drawn):
    assert server.run(graph("rows", adapters=ADAPTERS[:2])).status == "success"
    drawn()
    more = (*ADAPTERS[:2], "three.safetensors")
    assert server.run(graph("rows", adapters=more)).status == "success"
    assert first_words(drawn) == encoded("rows", adapters=["three.safetensors"])
    (server.home / "models" / "loras" / "three.safetensors").write_bytes(b"trained for longer")
    assert server.run(graph("rows", adapters=more)).status == "success"
    assert first_words(drawn) == encoded("rows", adapters=["three.safetensors"])


def test_a_pattern_draws_what_is_missing_of_its_rows_and_sees_new_files(server, drawn):
    assert server.run(graph("pattern", adapters=("base", "one.safetensors"))).status == "success"
    drawn()
    rows = ("base", "*o*.safetensors")
    assert server.run(graph("pattern", adapters=rows)).status == "success"
    assert first_words(drawn) == encoded("pattern", adapters=["two.safetensors"])
    late = server.home / "models" / "loras" / "polo.safetensors"
    late.write_bytes(b"trained later")
    outcome = server.run(graph("pattern", adapters=rows))
    late.unlink()
    assert outcome.status == "success", outcome.error
    assert first_words(drawn) == encoded("pattern", adapters=["polo.safetensors"])
    folder = server.home / "output" / "likeness" / "comparisons" / "pattern"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "base", "one", "polo", "two",
    }  # fmt: skip
    refused = server.refused(graph("pattern", adapters=("base", "tow*")))
    assert "no file in Load Adapter's list matches 'tow*'. Similar names: two" in refused


def test_cells_are_drawn_again_on_request_at_each_queue(server, drawn):
    assert server.run(graph("again")).status == "success"
    before = {path: path.stat().st_mtime_ns for path in cells(server)}
    for _ in range(2):
        assert server.run(graph("again", redraw="one / beach\nr2 / c*")).status == "success"
        changed = {path for path in cells(server) if path.stat().st_mtime_ns != before[path]}
        assert len(changed) == 2
        before = {path: path.stat().st_mtime_ns for path in cells(server)}
    assert "'nobody' matches no cell" in server.refused(graph("again", redraw="nobody"))


def test_a_cell_to_draw_again_was_the_image_that_comfyui_had_kept(server, drawn):
    assert server.run(graph("anew")).status == "success"
    drawn()
    for _ in range(2):
        assert server.run(graph("anew", redraw="one / beach")).status == "success"
        assert len(drawn()) == 1


def test_with_and_without_a_pose_the_noise_is_the_same(server, drawn):
    prompt = graph("posed", adapters=("base", "one.safetensors"), with_pose="both", draws=2)
    prompt["8"] = node("Likeness_PoseSet", poses="all four yoga poses", width=64, height=96)
    prompt["2"]["inputs"] |= {"poses": ["8", 0], "control_strength": 0.8}
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    drawn_cells = [(float(s), int(seed), float(light)) for _, _, seed, s, light in drawn()]
    rows = [drawn_cells[start : start + 6] for start in range(0, 24, 6)]
    for plain, posed in (rows[:2], rows[2:]):
        assert [cell[1] for cell in plain] == [cell[1] for cell in posed] == [5, 6] * 3
        assert {cell[0] for cell in plain} == {0.0} and {cell[2] for cell in plain} == {0.0}
        assert {cell[0] for cell in posed} == {0.8} and all(cell[2] > 0 for cell in posed)
    assert rows[1] == rows[3], "the same poses for every variant"
    folder = server.home / "output" / "likeness" / "comparisons" / "posed"
    assert (folder / "one_cnet" / "64x96" / "chess@2.png").is_file()


def test_the_sheet_carries_the_workflow_and_shows_every_cell(server):
    from PIL import Image

    prompt = graph("carried", adapters=("base",))
    saved = {"nodes": [], "extra": {"by": "this test"}}
    status, answer = server.post(
        "/prompt", {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": saved}}}
    )
    assert status == 200, answer
    folder = server.home / "output" / "likeness" / "comparisons" / "carried"
    wait_for(server, answer["prompt_id"])
    (path,) = folder.glob("sheet-*.png")
    with Image.open(path) as sheet:
        assert json.loads(sheet.text["workflow"]) == saved
        carried = json.loads(sheet.text["prompt"])
        colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert {key: value["inputs"] for key, value in carried.items()} == {
        key: value["inputs"] for key, value in prompt.items()
    }
    for name in ("beach", "rain", "chess"):
        with Image.open(folder / "base" / "64x96" / f"{name}.png") as cell:
            assert cell.size == (64, 96) and cell.getpixel((5, 5)) in colours
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert [prompt["key"] for prompt in plan["prompts"]["prompts"]] == ["beach", "rain", "chess"]


def wait_for(server, prompt_id):
    import time

    deadline = time.monotonic() + 60
    while not server.get(f"/history/{prompt_id}") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert server.get(f"/history/{prompt_id}")[prompt_id]["status"]["status_str"] == "success"


def test_without_a_contact_sheet_nothing_behind_the_matrix_runs(server, drawn):
    prompt = graph("blocked")
    prompt["7"] = node("SaveImage", images=["6", 0], filename_prefix="blocked")
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    assert drawn("all") == []
    assert not list((server.home / "output").glob("blocked*"))


def test_many_cells_are_no_deep_chain(server, drawn):
    lines = [f"p{number} = prompt {number}" for number in range(150)]
    prompt = graph("many", prompts=lines, adapters=ADAPTERS[:2], width=64, height=64)
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    assert first_words(drawn) == encoded("many", lines, ("none (base)", "one.safetensors"))
