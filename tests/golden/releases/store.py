"""Stores what this version writes, for later versions to read: run it once for each release.

    python tests/golden/releases/store.py

Writes `<version>/` beside this file: runs of the tiny random model that were stopped at their
second step, with a LoRA, a DoRA and a full fine-tune, and the bundled workflows without their
looks.
"""

from __future__ import annotations

import json
import runpy
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

from accelerate import Accelerator  # noqa: E402
from likeness import __version__  # noqa: E402
from likeness.demo.random_model import write_random_model  # noqa: E402
from likeness.trainers.events import EventWriter  # noqa: E402
from likeness.trainers.loop import train  # noqa: E402
from likeness.trainers.places import Places  # noqa: E402
from likeness.trainers.preparation import prepare  # noqa: E402
from likeness.trainers.presets import preset  # noqa: E402
from likeness.trainers.run_folder import RunFolder  # noqa: E402
from likeness.trainers.safetensors_file import read_header  # noqa: E402
from likeness.trainers.stop import StopRequest, StopSignal  # noqa: E402

KEPT = ("id", "type", "inputs", "widgets_values")
METHODS = {"lora": {}, "dora": {"dora": True}, "dreambooth": {"kind": "dreambooth"}}


class AfterTwo(StopSignal):
    """Asks to save after the second step."""

    steps = 0

    def asked(self, accelerator: Accelerator, *, save_due: bool = False) -> StopRequest:
        """One answer a step."""
        self.steps += 1
        return StopRequest.SAVE if self.steps == 2 else StopRequest.NONE


def trained(places: Places, method: dict[str, object]) -> RunFolder:
    """A run of four steps that was stopped after two."""
    recipe = preset("lora-r1").changed(
        subject={"resolution": 64},
        prior={"count": 1, "steps": 1},
        schedule={"steps": 4},
        method=method,
        compute={"attention": "sdpa", "precision": "fp32"},
        optimizer={"name": "adamw", "learning_rate": 1e-3},
        objective={"ema_decay": 0.9},
    )
    folder = prepare(recipe, places)
    writer = EventWriter(folder.events)
    train(folder, Accelerator(cpu=True), writer.emit, AfterTwo(folder.stop))
    writer.close()
    return folder


def keep(folder: RunFolder, target: Path) -> None:
    """Copies a run without what names this machine."""
    shutil.copytree(folder.path, target, ignore=shutil.ignore_patterns("lock", "places.json"))
    (target / "photos.json").unlink()
    result = json.loads((target / "result.json").read_text(encoding="utf-8"))
    adapter = Path(result["adapter"])
    shutil.copy(adapter, target / "adapter.safetensors")
    (target / "result.json").write_text(json.dumps(result | {"adapter": "adapter.safetensors"}))
    if folder.recipe().method.kind == "dreambooth":
        name_weights(target)
    lines = (target / "events.jsonl").read_text(encoding="utf-8")
    (target / "events.jsonl").write_text(lines.replace(str(adapter), "adapter.safetensors"))


def name_weights(target: Path) -> None:
    """Puts the names and shapes of a checkpoint's weights in place of its 13 MB."""
    (path,) = (target / "checkpoints").glob("*/weights.safetensors")
    shapes = dict(sorted(read_header(path).shapes.items()))
    (target / "weights.json").write_text(json.dumps(shapes) + "\n", encoding="utf-8")
    shutil.rmtree(target / "checkpoints")


def workflows() -> dict[str, object]:
    """Nodes, values and links of the bundled graphs."""
    found = {}
    for path in sorted((ROOT / "workflows").glob("*.json")):
        graph = json.loads(path.read_text(encoding="utf-8"))
        nodes = [{k: node[k] for k in KEPT if k in node} for node in graph["nodes"]]
        found[path.stem] = {"nodes": nodes, "links": graph["links"]}
    return found


def main() -> None:
    """Writes the folder of this version anew."""
    target = HERE / __version__
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        photos = room / "photos"
        shutil.copytree(ROOT / "demo" / "subject", photos)
        places = Places(
            base=write_random_model(room / "base.safetensors", dtype="fp32"),
            photos=photos,
            **{name: room / name for name in ("runs", "loras", "checkpoints", "cache")},
        )
        for name, method in METHODS.items():
            keep(trained(places, method), target / name)
    text = json.dumps(workflows(), ensure_ascii=False, separators=(",", ":"))
    (target / "workflows.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
