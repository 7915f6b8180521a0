"""What earlier releases wrote is still read: adapters, checkpoints, runs, workflows."""

import json
import runpy
from pathlib import Path

import pytest
import torch
import transformers
from likeness.comparison.sample import load_with_adapter
from likeness.demo.random_model import write_random_model
from likeness.trainers import checkpoint, lora_merge
from likeness.trainers.adapter import load_adapter, read_metadata, recipe_of
from likeness.trainers.base_model import load_base
from likeness.trainers.dreambooth import trainable_parameters
from likeness.trainers.events import EventReader
from likeness.trainers.optimizers import build_optimizer
from likeness.trainers.run_folder import RunFolder, saved_steps
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
GRAPHS = runpy.run_path(str(HERE.parent / "comfy" / "graphs.py"))
RELEASES = sorted(path for path in (HERE / "releases").iterdir() if path.is_dir())


def each(*kinds):
    """A test for each release's run of these kinds."""
    runs = [release / kind for release in RELEASES for kind in kinds]
    return pytest.mark.parametrize("run", runs, ids=lambda path: "/".join(path.parts[-2:]))


each_lora = each("lora", "dora")
each_run = each("lora", "dora", "dreambooth")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("base") / "base.safetensors", dtype="fp32")


@each_lora
def test_an_adapter_is_read_and_changes_the_model(run, base):
    path = run / "adapter.safetensors"
    info = read_metadata(path)
    assert (info.kind, info.rank, info.steps) == (run.name, 1, 2)
    assert recipe_of(path) == RunFolder(run).recipe() == info.recipe
    model = load_base(base)
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    lora_merge.merge(model.unet, model.text_encoder, load_adapter(path))
    changed = [k for k, v in model.unet.state_dict().items() if not torch.equal(v, before[k])]
    names = [k for k in load_adapter(path) if k.endswith(".lora_down.weight")]
    assert len(changed) == sum(k.startswith("lora_unet_") for k in names)


@each("dreambooth")
def test_a_full_fine_tune_is_read_and_changes_the_model(run, base):
    path = run / "adapter.safetensors"
    info = read_metadata(path)
    assert (info.kind, info.steps) == ("checkpoint", 2)
    assert recipe_of(path) == RunFolder(run).recipe() == info.recipe
    model, before = load_with_adapter(base, path), load_base(base)
    # transformers 4 draws other random weights for the base's text encoder.
    same = ["unet"] if transformers.__version__.startswith("4.") else ["unet", "text_encoder"]
    for part in same:
        new, old = (getattr(one, part).parameters() for one in (model, before))
        moved = torch.stack([(a - b).abs().max() for a, b in zip(new, old, strict=True)])
        assert moved.max() < 0.02  # two steps at a rate of 0.001
        assert (moved > 2e-4).float().mean() > 0.5  # biases ahead of a norm have no gradient


@each("dreambooth")
def test_a_stopped_fine_tune_finds_its_weights_by_name(run, base):
    names = json.loads((run / "weights.json").read_text(encoding="utf-8"))
    model = load_base(base)
    weights = trainable_parameters(model.unet, model.text_encoder)
    assert {name: list(weight.shape) for name, weight in weights.items()} == names


@each_lora
def test_a_stopped_run_can_go_on(run):
    folder = RunFolder(run)
    recipe, (step,) = folder.recipe(), saved_steps(folder.checkpoints)
    path = checkpoint.step_folder(folder.checkpoints, step)
    weights = load_file(path / "weights.safetensors")
    parameters = {k: torch.nn.Parameter(torch.zeros_like(v)) for k, v in weights.items()}
    groups = [
        {"params": [p for k, p in parameters.items() if k.startswith(part)], "lr": 1e-3}
        for part in ("unet.", "text_encoder.")
    ]
    state = checkpoint.TrainingState(
        parameters,
        build_optimizer(recipe.optimizer, groups),
        torch.amp.GradScaler("cpu", enabled=False),
        checkpoint.EMAModel(list(parameters.values()), decay=0.9),
    )
    done, losses = checkpoint.load(path, state, recipe.digest())
    assert done == step == len(losses) == 2
    assert all(torch.equal(parameters[k], v) for k, v in weights.items())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    assert all(p.isfinite().all() for p in parameters.values())


@each_run
def test_a_runs_events_are_read(run):
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = EventReader(run / "events.jsonl").new_events()
    assert len(events) == len(lines)
    assert {"stage", "step", "checkpoint", "saved"} <= {event.kind for event in events}


@each_run
def test_a_runs_result_is_read(run, monkeypatch):
    monkeypatch.chdir(run)
    result = RunFolder(run).result()
    assert result is not None and result.stopped and result.steps == 2


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_workflows_fit_the_nodes_of_today(release):
    """Values of a saved graph go to widgets by their order: new widgets come last."""
    ours = json.loads((HERE / "our_nodes.json").read_text(encoding="utf-8"))
    graphs = json.loads((release / "workflows.json").read_text(encoding="utf-8"))
    nodes = [node for graph in graphs.values() for node in graph["nodes"]]
    nodes = [node for node in nodes if node["type"].startswith("Likeness_")]
    assert len(nodes) > 20
    for node in nodes:
        row = ours[node["type"]]
        known = {part["name"] for part in row["inputs"]}
        assert {slot["name"] for slot in node["inputs"]} <= known, node["type"]
        check_values(node, row)


def check_values(node, row):
    values = list(node.get("widgets_values") or [])
    kinds = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
    for part in row["inputs"]:
        if part["type"] not in GRAPHS["WIDGETS"]:
            continue
        if not values:
            assert "default" in part or part["type"] == "COMBO", (node["type"], part["name"])
            continue
        value = values.pop(0)
        assert isinstance(value, kinds[part["type"]]), (node["type"], part["name"], value)
        if part.get("control_after_generate", part["name"] in ("seed", "noise_seed")):
            assert values.pop(0) in ("fixed", "increment", "decrement", "randomize")
    assert not values, f"{node['type']} has values without a widget: {values}"
