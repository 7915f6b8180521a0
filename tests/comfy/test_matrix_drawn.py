"""A Matrix with core's own loader, sampler and ControlNet, on the random miniature: 8 rows of 6.

The graph is the bundled workflow `study_everything`, its trainings replaced by files.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]

LIGHT = runpy.run_path(str(Path(__file__).with_name("light.py")))
cells, settled_cells = LIGHT["cells"], LIGHT["settled_cells"]

BASE, POSES = "zz-miniature.safetensors", "zz-miniature-openpose.safetensors"
KEYS = ("sunglasses", "girlfriend", "umbrella", "kitchen", "forest", "street")
ADAPTERS = {
    "base": "base",
    "tuned": "tuned.safetensors",
    "other": "other.safetensors",
    "r1": "r1.safetensors",
    "r4": "r4.safetensors",
    "r8": "r8.safetensors",
}
POSED = ("tuned", "r1")
ROWS = ["base", "tuned", "tuned_cnet", "other", "r1", "r1_cnet", "r4", "r8"]
SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": BASE},
    "ControlNetLoader": {"control_net_name": POSES},
    "KSampler": {"steps": 2},
    "Likeness_Matrix": {
        "width": 64,
        "height": 64,
        "adapters": "\n".join(f"{label} = {file}" for label, file in ADAPTERS.items()),
        "pose_rows": "\n".join(POSED),
    },
}


# Writes down, when a cell's prompt is there, how many loaded UNets have patches.
PACK = """
import comfy.model_management as models
from pathlib import Path

class Loaded:
    INPUT_TYPES = lambda: {"required": {
        "text": ("STRING",), "file": ("STRING",), "label": ("STRING",)}}
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "run", "tests"
    def run(self, text, file, label):
        patched = [one.model.patches for one in models.current_loaded_models]
        count = sum(any("diffusion_model" in str(key) for key in keys) for keys in patched)
        with Path(file).open("a") as lines:
            lines.write(f"{count} {label}\\n")
        return (text,)

NODE_CLASS_MAPPINGS = dict(TestLoaded=Loaded)
"""


@pytest.fixture(scope="module")
def server(miniature_server):
    """A ComfyUI with the random miniature, two fine-tunes of it, and three LoRAs."""
    running = miniature_server({"loaded": PACK})
    write_adapters(next(running.models.rglob(BASE)), running.home / "models")
    return running


def write_adapters(checkpoint, models):
    """The files of ADAPTERS, of random weights."""
    import torch
    from likeness.trainers import lora
    from likeness.trainers.adapter import save_adapter
    from likeness.trainers.adapter_metadata import build_metadata
    from likeness.trainers.base_model import load_base
    from likeness.trainers.recipe import LoRA, Recipe
    from likeness.trainers.single_file import save_single_file

    generator = torch.Generator().manual_seed(0)
    for name in ("tuned", "other"):
        base = load_base(checkpoint)
        with torch.no_grad():
            for weight in (*base.unet.parameters(), *base.text_encoder.parameters()):
                weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
        parts = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder}
        path = models / "checkpoints" / f"{name}.safetensors"
        save_single_file(path, **parts, dtype="fp16", metadata={})
    for rank in (1, 4, 8):
        base, method = load_base(checkpoint), LoRA(rank=rank)
        lora.attach(base.unet, base.text_encoder, method, seed=1)
        with torch.no_grad():
            for weight in lora.trainable_parameters(base.unet, base.text_encoder).values():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        tensors = lora.export(base.unet, base.text_encoder, method)
        path = models / "loras" / f"r{rank}.safetensors"
        save_adapter(path, tensors, build_metadata(Recipe(method=method), steps=1, losses=[]))


@pytest.fixture
def graph(server, workflow):
    """The comparison of `study_everything` under a name; `changes` are by node type."""

    def make(name, **changes):
        prompt = workflow(server, "study_everything")
        left_out = ("Train", "Subject", "ClassImages", "Preview", "LossGraph", "Score")
        prompt = {
            key: node
            for key, node in prompt.items()
            if not any(part in node["class_type"] for part in left_out)
        }
        values = {**SMALL, "Likeness_ContactSheet": {"name": name, "single_images": "png"}}
        for node in prompt.values():
            kind, inputs = node["class_type"], node["inputs"]
            if kind == "Likeness_PromptSet":  # its words come from the Subject that is left out
                inputs |= {"token": "sks", "class_word": "man"}
            for widget, value in {**values.get(kind, {}), **changes.get(kind, {})}.items():
                if not isinstance(inputs.get(widget), list):
                    inputs[widget] = value
            for key in [key for key in inputs if key.startswith("adapter_")]:
                del inputs[key]
        return prompt

    return make


class Counting:
    """Counts how often each of the user's nodes runs; cancels after so many cells if asked."""

    def __init__(self, server, prompt, cancel_after=None):
        self.kinds = {key: node["class_type"] for key, node in prompt.items()}
        self.server, self.cancel_after, self.ran, self.order = server, cancel_after, Counter(), []

    def __call__(self, message):
        if isinstance(message, bytes):
            said = f"{self.cancel_after} of {len(ROWS) * len(KEYS)} cells done".encode()
            if self.cancel_after and said in message:
                self.server.post("/interrupt", {})
        elif message["type"] == "executing" and message["data"].get("node"):
            kind = self.kinds.get(message["data"].get("display_node"))
            self.ran[kind] += 1
            self.order.append(kind)


def run(server, prompt, cancel_after=None):
    """(outcome, how often each kind of the user's nodes ran)."""
    counting = Counting(server, prompt, cancel_after)
    return server.run(prompt, counting), counting


def images(server, name):
    """The single images of a comparison by row and key, as bytes of pixels."""
    from PIL import Image

    folder = server.home / "output" / "likeness" / "comparisons" / name
    found = {}
    for row in ROWS:
        for key in KEYS:
            with Image.open(folder / row / "64x64" / f"{key}.png") as image:
                found[row, key] = image.tobytes()
    return found


def test_eight_rows_of_six_prompts_load_each_variant_once(server, graph):
    outcome, counting = run(server, graph("whole"))
    assert outcome.status == "success", outcome.error
    assert counting.ran["KSampler"] == counting.ran["VAEDecode"] == len(ROWS) * len(KEYS)
    assert counting.ran["Likeness_LoadAdapter"] == len(ADAPTERS)
    assert counting.ran["CheckpointLoaderSimple"] == counting.ran["ControlNetLoader"] == 1
    drawn = images(server, "whole")
    assert len(set(drawn.values())) == len(drawn), "no two cells are alike"
    # Variants follow one another: no other is loaded while one has cells left.
    loads = [n for n, kind in enumerate(counting.order) if kind == "Likeness_LoadAdapter"]
    between = [
        counting.order[start:end].count("KSampler")
        for start, end in zip(loads, [*loads[1:], None], strict=True)
    ]
    assert between == [6 * sum(row.startswith(label) for row in ROWS) for label in ADAPTERS]


def test_a_cell_is_what_the_same_nodes_draw_by_themselves(server, graph):
    from PIL import Image

    assert run(server, graph("whole"))[0].status == "success"
    drawn = images(server, "whole")
    place = server.home / "output" / "likeness" / "comparisons" / "whole"
    plan = json.loads((place / "plan.json").read_text(encoding="utf-8"))
    texts = {prompt["key"]: prompt["text"] for prompt in plan["prompts"]["prompts"]}
    for row, key in (("base", "forest"), ("other", "street"), ("r4", "girlfriend")):
        prompt = graph("whole")
        ids = {node["class_type"]: number for number, node in prompt.items()}
        matrix, sheet = ids["Likeness_Matrix"], ids["Likeness_ContactSheet"]
        values = [ADAPTERS[row], texts[key], plan["prompts"]["negative"], 0, None, 0.0, row, 64, 64]
        values[0] = "none (base)" if row == "base" else values[0]
        values += [None, 1.0]  # the matrix, and the adapter's strength
        black = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
        prompt["black"] = {"class_type": "EmptyImage", "inputs": black}
        values[4] = ["black", 0]
        for node in prompt.values():
            for name, value in node["inputs"].items():
                if isinstance(value, list) and value[0] == matrix:
                    node["inputs"][name] = values[value[1]] if value[1] < len(values) else value
        image = prompt[sheet]["inputs"]["image"]
        saving = {"images": image, "filename_prefix": f"alone-{row}"}
        prompt["save"] = {"class_type": "SaveImage", "inputs": saving}
        for kind in ("Likeness_Matrix", "Likeness_ContactSheet", "Likeness_PromptSet"):
            del prompt[ids[kind]]
        del prompt[ids["Likeness_PoseSet"]]
        outcome = server.run(prompt)
        assert outcome.status == "success", outcome.error
        (saved,) = outcome.outputs["save"]["images"]
        with Image.open(server.home / "output" / saved["filename"]) as image:
            assert image.tobytes() == drawn[row, key], (row, key)


def test_each_file_that_a_training_left_on_its_way_is_a_row(server, graph):
    loras = server.home / "models" / "loras"
    for step, source in ((10, "r1"), (20, "r8")):
        shutil.copy(loras / f"{source}.safetensors", loras / f"r4-step{step:06d}.safetensors")
    rows = {"adapters": "lora = r4.safetensors @ steps", "with_pose": "without", "pose_rows": ""}
    prompt = graph("steps", Likeness_Matrix={**SMALL["Likeness_Matrix"], **rows})
    for node in prompt.values():
        if node["class_type"] == "Likeness_PromptSet":
            node["inputs"] |= {"prompts": "own text", "text": "a photo of sks man"}
    outcome, counting = run(server, prompt)
    assert outcome.status == "success", outcome.error
    assert counting.ran["KSampler"] == 3
    place = server.home / "output" / "likeness" / "comparisons" / "steps"
    plan = json.loads((place / "plan.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in plan["variants"]] == ["lora_10", "lora_20", "lora"]
    assert len({row["adapter"] for row in plan["variants"]}) == 3


def test_after_a_cancel_and_after_a_restart_exactly_the_others_run(server, graph):
    total, before = len(ROWS) * len(KEYS), len(cells(server))
    prompt = graph("stopped", Likeness_Matrix={**SMALL["Likeness_Matrix"], "seed": 11})
    outcome, counting = run(server, prompt, cancel_after=3)
    assert outcome.status == "interrupted" and 3 <= counting.ran["KSampler"] < 20
    kept = len(settled_cells(server, before + 3)) - before
    # Some may have been done when the queue was told, and one drawn that was not kept.
    assert 3 <= kept <= counting.ran["KSampler"] <= kept + 1

    outcome, counting = run(server, prompt, cancel_after=20)
    assert outcome.status == "interrupted"
    more = len(settled_cells(server, before + 20)) - before - kept
    assert 20 - kept <= more < total - kept and counting.ran["KSampler"] in (more, more + 1)

    server.stop()
    server.start()
    outcome, counting = run(server, prompt)
    assert outcome.status == "success", outcome.error
    assert counting.ran["KSampler"] == total - kept - more
    assert len(cells(server)) - before == total

    server.stop()
    server.start()
    outcome, counting = run(server, prompt)
    assert outcome.status == "success", outcome.error
    assert set(counting.ran) <= {"Likeness_PromptSet", "Likeness_PoseSet", "Likeness_Matrix",
                                 "Likeness_ContactSheet"}  # fmt: skip


def test_a_changed_prompt_runs_its_column_only(server, graph):
    from likeness.comparison.prompts import bundled_set

    study = bundled_set("study")
    lines = "\n".join(f"{prompt.key} = {prompt.text}" for prompt in study.prompts)
    texts = {"prompts": "own text", "text": lines, "negative": study.negative}
    assert run(server, graph("column", Likeness_PromptSet=texts))[0].status == "success"
    before = images(server, "column")
    changed = {**texts, "text": lines.replace("with umbrella", "with an umbrella")}
    outcome, counting = run(server, graph("column", Likeness_PromptSet=changed))
    assert outcome.status == "success", outcome.error
    assert counting.ran["KSampler"] == len(ROWS)
    after = images(server, "column")
    assert {key for row, key in after if after[row, key] != before[row, key]} == {"umbrella"}


def test_a_replaced_adapter_runs_its_rows_only(server, graph):
    models, prompt = server.home / "models" / "loras", graph("replaced")
    assert run(server, prompt)[0].status == "success"
    shutil.copy(models / "r4.safetensors", models / "new.safetensors")
    (models / "new.safetensors").replace(models / "r1.safetensors")
    outcome, counting = run(server, prompt)
    assert outcome.status == "success", outcome.error
    assert counting.ran["KSampler"] == 2 * len(KEYS)  # with and without a pose
    assert counting.ran["Likeness_LoadAdapter"] == 1


def test_cores_lora_loader_drew_the_former_file_after_it_was_replaced(server, graph):
    """ComfyUI keeps what nodes gave, and that loader its last file, by the file's name."""
    from PIL import Image

    loras, place = server.home / "models" / "loras", server.home / "output/likeness/comparisons"
    shutil.copy(loras / "r4.safetensors", loras / "swapped.safetensors")

    def drawn(file):
        rows = {"adapters": f"lora = {file}", "with_pose": "without", "pose_rows": ""}
        prompt = graph("swapped", Likeness_Matrix={**SMALL["Likeness_Matrix"], **rows})
        for node in prompt.values():
            if node["class_type"] == "Likeness_PromptSet":
                node["inputs"] |= {"prompts": "own text", "text": "man = a photo of sks man"}
            if node["class_type"] == "Likeness_LoadAdapter":
                node["class_type"] = "LoraLoader"
                node["inputs"]["lora_name"] = node["inputs"].pop("adapter")
        outcome = server.run(prompt)
        assert outcome.status == "success", outcome.error
        with Image.open(place / "swapped" / "lora" / "64x64" / "man.png") as image:
            return image.tobytes()

    before = drawn("swapped.safetensors")
    shutil.copy(loras / "r8.safetensors", loras / "new.safetensors")
    (loras / "new.safetensors").replace(loras / "swapped.safetensors")
    after = drawn("swapped.safetensors")
    assert after == drawn("r8.safetensors") != before


def test_a_control_net_of_another_family_is_named_before_the_queue_starts(server, graph):
    import torch
    from safetensors.torch import save_file

    name = "control_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    path = server.home / "models" / "controlnet" / "pose-xl.safetensors"
    save_file({name: torch.zeros(8, 2048)}, path)
    prompt = graph("unfit", ControlNetLoader={"control_net_name": path.name})
    assert "pose-xl.safetensors is for SDXL" in server.refused(prompt)


def test_a_variants_weights_are_let_go_before_the_next_ones_are_loaded(server, graph):
    """Memory freed only while the next are loaded is too often no place for them."""
    prompt = graph("loaded", Likeness_Matrix={**SMALL["Likeness_Matrix"], "seed": 12})
    ids = {node["class_type"]: key for key, node in prompt.items()}
    matrix, file = ids["Likeness_Matrix"], server.home / "loaded.txt"
    (encode,) = [
        node
        for node in prompt.values()
        if node["class_type"] == "CLIPTextEncode" and node["inputs"]["text"] == [matrix, 1]
    ]
    inputs = {"text": [matrix, 1], "file": str(file), "label": [ids["Likeness_LoadAdapter"], 2]}
    prompt["probe"] = {"class_type": "TestLoaded", "inputs": inputs}
    encode["inputs"]["text"] = ["probe", 0]
    assert run(server, prompt)[0].status == "success"
    counts: dict[str, list[int]] = {}
    for line in file.read_text().splitlines():
        count, label = line.split(maxsplit=1)
        counts.setdefault(label, []).append(int(count))
    base, *others = counts.values()
    assert len(others) == len(ADAPTERS) - 1 and base == [0] * len(KEYS)
    for first, *rest in others:  # a row with a pose has the same texts: core may encode them twice
        assert first == 0 and set(rest) == {1} and (len(rest) + 1) % len(KEYS) == 0
