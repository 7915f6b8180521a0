"""What a Contact Sheet keeps of a comparison, and draws of it, in a real ComfyUI."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from likeness.comparison.study import newest_sheet
from PIL import Image

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]

LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
PROMPTS, graph, node = LIGHT["PROMPTS"], LIGHT["graph"], LIGHT["node"]
cancel_at = LIGHT["cancel_at"]


def folder_of(server, name):
    return server.home / "output" / "likeness" / "comparisons" / name


def scored(prompt):
    """The prompt with a Score, which finds no encoders and writes a report."""
    none = dict.fromkeys(("clip_image", "clip_text", "dinov2"), "none")
    return prompt | {"8": node("Likeness_Score", study=["7", 1], face=False, **none)}


def test_a_cancelled_comparison_took_the_report_of_the_one_before(server):
    assert server.run(scored(graph("kept", adapters=("base",)))).status == "success"
    folder = folder_of(server, "kept")
    kept = [folder / name for name in ("report.html", "scores.json", "plan.json")]
    kept += [*folder.glob("base/64x96/*.png"), newest_sheet(folder)]
    before = {path: path.read_bytes() for path in kept}
    assert len(before) == 7
    slow = scored(graph("kept", adapters=("one.safetensors",), seconds=1.0))
    assert server.run(slow, cancel_at(server, "1 of 3 cells done")).status == "interrupted"
    assert {path: path.read_bytes() for path in kept} == before
    assert newest_sheet(folder).read_bytes() == before[kept[-1]]
    view = server.get("/likeness/comparison?name=kept")
    assert view["view"]["rows"] == ["one"] and view["scores"] is None
    assert server.run(slow).status == "success"
    assert not (folder / "base").exists() and (folder / "one" / "64x96" / "rain.png").is_file()
    assert "one" in (folder / "report.html").read_text(encoding="utf-8")
    assert server.get("/likeness/comparison?name=kept")["scores"] is not None


def test_some_cells_alone_are_drawn_and_the_score_waits(server, drawn):
    prompt = scored(graph("some", adapters=("base", "one.safetensors")))
    prompt["7"]["inputs"]["draw_only"] = "one / rain"
    said = []
    outcome = server.run(prompt, said.append)
    assert outcome.status == "success", outcome.error
    assert [line[0] for line in drawn()] == ["one.safetensors in the rain, some"]
    assert any(
        b"1 generated now, 0 reused, 5 skipped by draw_only" in one
        for one in said
        if type(one) is bytes
    )
    folder = folder_of(server, "some")
    (image,) = outcome.outputs["7"]["images"]
    assert (folder / image["filename"]).is_file()
    assert not (folder / "plan.json").exists() and not (folder / "report.html").exists()
    prompt["7"]["inputs"]["draw_only"] = "beach"
    assert server.run(prompt).status == "success"
    assert len(drawn()) == 2
    prompt["7"]["inputs"]["draw_only"] = ""
    assert server.run(prompt).status == "success"
    assert len(drawn()) == 3, "the others"
    assert (folder / "report.html").is_file() and newest_sheet(folder).name == image["filename"]
    prompt["7"]["inputs"]["draw_only"] = "one"
    assert server.run(prompt).status == "success"
    assert drawn() == [] and (folder / "report.html").is_file(), "all are there: it is whole"


def test_names_of_other_scripts_are_borne_by_files_sheet_and_report(server):
    loras = server.home / "models" / "loras"
    for name in ("Анна", "安娜 v2"):
        (loras / f"{name}.safetensors").write_bytes(name.encode())
    rows = ("Анна.safetensors", "安娜 v2.safetensors", "Größe = base")
    prompt = scored(graph("Vergleich Müller", adapters=rows, prompts=("пляж = on the beach",)))
    outcome = server.run(prompt)
    assert outcome.status == "success", outcome.error
    folder = folder_of(server, "Vergleich Müller")
    for row in ("Анна", "安娜-v2", "Größe"):
        assert (folder / row / "64x96" / "пляж.png").is_file()
        assert row in (folder / "report.html").read_text(encoding="utf-8")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in plan["variants"]] == ["Анна", "安娜-v2", "Größe"]
    assert outcome.outputs["7"]["images"][0]["subfolder"].endswith("/Vergleich Müller")
    with Image.open(newest_sheet(folder)) as sheet:
        assert json.loads(sheet.text["prompt"])["7"]["inputs"]["name"] == "Vergleich Müller"


def test_a_file_chosen_with_its_kind_is_drawn_anew_when_it_is_replaced(server, drawn):
    models = server.home / "models"
    (models / "checkpoints").mkdir(exist_ok=True)
    for kind in ("loras", "checkpoints"):
        (models / kind / "twice.safetensors").write_bytes(kind.encode())
    prompt = graph("kinds", adapters=("loras/twice.safetensors",), prompts=PROMPTS[:1])
    assert server.run(prompt).status == "success"
    assert len(drawn()) == 1
    (models / "loras" / "twice.safetensors").write_bytes(b"trained again")
    assert server.run(prompt).status == "success"
    assert len(drawn()) == 1
    bare = graph("kinds", adapters=("twice.safetensors",), prompts=PROMPTS[:1])
    assert "choose one of loras/twice.safetensors" in server.refused(bare)
