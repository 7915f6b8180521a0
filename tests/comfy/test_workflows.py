"""Every bundled workflow runs to its end in a real ComfyUI, on the miniature at reduced size."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
BASE, POSES = "zz-miniature.safetensors", "zz-miniature-openpose.safetensors"

TRAIN = {"base_model": BASE, "steps": 2, "preview_every": 2, "optimizer": "adamw"}
TRAIN |= {"precision": "fp32"}
REDUCED = {
    "CheckpointLoaderSimple": {"ckpt_name": BASE},
    "ControlNetLoader": {"control_net_name": POSES},
    "Likeness_Subject": {"resolution": 64},
    "Likeness_ClassImages": {"count": 2, "steps": 1},
    "Likeness_TrainLoRA": TRAIN,
    "Likeness_TrainDreamBooth": TRAIN,
    "Likeness_Matrix": {"width": 64, "height": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 1},
}
SIX = {"sunglasses", "girlfriend", "umbrella", "kitchen", "forest", "street"}

# Rows of each sheet, its columns, and the adapters that are trained.
SHEETS = {
    "study_1_knowledge_check": (["base"], {"name", "name@2", "name@3"}, 0),
    "study_2_base": (["base"], SIX, 0),
    "study_3_tiny": (["base", "tiny"], SIX, 1),
    "study_4_standard": (["base", "standard"], SIX, 1),
    "study_5_lora_r1": (["base", "lora-r1"], SIX, 1),
    "study_6_lora_r4": (["base", "lora-r4"], SIX, 1),
    "study_7_lora_r8": (["base", "lora-r8"], SIX, 1),
    "study_8_standard_controlnet": (["standard", "standard_cnet"], SIX, 1),
    "study_9_lora_r1_controlnet": (["lora-r1", "lora-r1_cnet"], SIX, 1),
}
ALL_ROWS = ["base", "tiny", "standard", "standard_cnet", "lora-r1", "lora-r1_cnet"]
ALL_ROWS += ["lora-r4", "lora-r8"]
SHEETS["study_everything"] = (ALL_ROWS, SIX, 5)
SHEETS["miniature"] = (ALL_ROWS, SIX | {f"{key}-class" for key in SIX}, 5)


@pytest.fixture(scope="module")
def server(miniature_server):
    """A ComfyUI with the random miniature and a folder of photographs."""
    running = miniature_server({})
    photos = running.home / "input" / "my_photos"
    photos.mkdir()
    for path in sorted((ROOT / "demo" / "subject").glob("*.png"))[:3]:
        shutil.copy(path, photos)
    return running


@pytest.fixture
def reduced(server, workflow):
    """A bundled workflow with small values wherever a widget is not connected."""

    def make(name):
        prompt = workflow(server, name)
        for node in prompt.values():
            for widget, value in REDUCED.get(node["class_type"], {}).items():
                if not isinstance(node["inputs"].get(widget), list):
                    node["inputs"][widget] = value
        return prompt

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs_to_its_end(server, reduced, name):
    outcome = server.run(reduced(name))
    assert outcome.status == "success", outcome.error
    assert "Traceback" not in outcome.log and "not loaded" not in outcome.log
    if name in SHEETS:
        check_sheet(server, name)
    else:
        assert outcome.outputs, "an image is saved"


@pytest.mark.skipif(
    not os.environ.get("LIKENESS_FULL"), reason="ten minutes on a CPU: set LIKENESS_FULL=1"
)
def test_the_miniature_runs_to_its_end_as_it_is(server, workflow):
    outcome = server.run(workflow(server, "miniature"))
    assert outcome.status == "success", outcome.error
    check_sheet(server, "miniature", "96x128")


def check_sheet(server, name, size="64x64"):
    """Every cell is drawn and laid out, and the sheet carries what was queued."""
    from PIL import Image

    rows, columns, trained = SHEETS[name]
    first, _, rest = name.partition("_")
    known = {"study_everything": "study-everything", "miniature": "miniature"}
    folder = known.get(name) or f"{first}-{rest.partition('_')[2].replace('_', '-')}"
    place = server.home / "output" / "likeness" / "comparisons" / folder
    for row in rows:
        assert {path.stem for path in (place / row / size).glob("*.jpg")} == columns
    with Image.open(max(place.glob("sheet-*.png"), key=lambda p: p.stat().st_mtime)) as sheet:
        nodes = json.loads(sheet.text["prompt"]).values()
    kinds = [node["class_type"] for node in nodes]
    assert sum(REDUCED.get(kind) is TRAIN for kind in kinds) == trained
    plan = json.loads((place / "plan.json").read_text(encoding="utf-8"))
    digests = [variant["adapter"] for variant in plan["variants"]]
    assert len({*digests} - {None}) == trained, "each row has an adapter of its own"


def test_a_training_of_one_workflow_is_reused_by_the_next(server, reduced):
    assert server.run(reduced("study_5_lora_r1")).status == "success"
    before = sorted((server.home / "output" / "loras").iterdir())
    assert before
    assert server.run(reduced("study_9_lora_r1_controlnet")).status == "success"
    assert sorted((server.home / "output" / "loras").iterdir()) == before
