"""What a Contact Sheet expands to, run in the order that ComfyUI may choose least kindly."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text

ROOT = Path(__file__).resolve().parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "comfy" / "stub.py"))


class Builder:
    """Collects nodes as ComfyUI's GraphBuilder does."""

    def __init__(self, prefix):
        self.prefix, self.nodes = prefix, {}

    def node(self, kind, **inputs):
        id = f"{self.prefix}{len(self.nodes)}"
        node = SimpleNamespace(id=id, kind=kind, inputs=inputs, out=lambda n: [id, n])
        node.set_input, node.set_override_display_id = inputs.__setitem__, lambda shown: None
        self.nodes[id] = node
        return node

    def finalize(self):
        return self.nodes


@pytest.fixture
def nodes(monkeypatch):
    STUB["install"]()
    names = ("cells", "draw_cells", "matrix")
    found = {name: importlib.import_module(f"likeness.nodes.{name}") for name in names}
    monkeypatch.setattr(found["draw_cells"], "graph_builder", Builder)
    monkeypatch.setattr(found["draw_cells"], "is_eager_input", lambda kind, name: True)
    return SimpleNamespace(**found)


def job_of(nodes, variants, missing=None):
    """A comparison of these rows under three prompts, drawn by an adapter, a pose and a sampler."""
    m, prompts = nodes.matrix, prompt_set_from_text("a = a dog\nb = a cat\nc = a cow")
    graph = {
        "m": {"class_type": "Matrix", "inputs": {}},
        "1": {"class_type": "Checkpoint", "inputs": {}},
        "2": {"class_type": "Adapter", "inputs": {
            "model": ["1", 0], "file": ["m", m.ADAPTER], "strength": ["m", m.ADAPTER_STRENGTH]}},
        "3": {"class_type": "Sampler", "inputs": {
            "model": ["2", 0], "pose": ["m", m.POSE], "prompt": ["m", m.PROMPT]}},
    }  # fmt: skip
    the_plan = plan(variants, prompts, yoga_poses(), with_pose="both")
    matrix = m.CellMatrix(the_plan, tuple(one.name for one in variants), "m")
    cells = the_plan.cells()
    return nodes.draw_cells.Job(
        matrix=matrix, graph=nodes.cells.read_cell_graph(graph.__getitem__, ["3", 0], "m"),
        values=tuple(map(matrix.values, cells)), files=(), skipped=0, copies=None,
        missing=tuple(range(len(cells))) if missing is None else missing,
        node_id="s", name="x", suffix="png", text={}, started=0.0, notifier=None,
    )  # fmt: skip


def run(nodes, job):
    """All nodes of the expansion by id, in an order of ComfyUI's: the last that is ready."""
    builder = Builder("root")
    root = nodes.draw_cells.draw_cells(builder, job, 0, len(job.missing))[0]
    known, stands_for, ran = builder.finalize(), {}, {}

    def finished(id):
        while id in stands_for:
            id = stands_for[id]
        return id in ran or id not in known

    while not finished(root):
        ready = next(
            node for node in reversed(known.values())
            if node.id not in ran and node.id not in stands_for
            and all(finished(link[0]) for link in node.inputs.values() if nodes.cells.is_link(link))
        )  # fmt: skip
        if ready.kind != "Likeness_DrawCells":
            ran[ready.id] = ready
            continue
        given = {name: [value] for name, value in ready.inputs.items()}
        output = nodes.draw_cells.DrawCells.execute(**given)
        assert not {*output.expand} & {*known}, "ComfyUI tells nodes apart by their ids"
        known |= output.expand
        stands_for[ready.id] = output.args[0][0]
    return ran


ROWS = [
    Variant(name="base"),
    Variant(name="half", adapter="a" * 64, strength_unet=0.5, strength_text=0.5),
    Variant(name="whole", adapter="a" * 64),
]


@pytest.mark.parametrize("missing", [None, (0, 4, 5, 13)])
def test_missing_cells_are_drawn_once_and_in_their_order(nodes, missing):
    job = job_of(nodes, ROWS, missing)
    kept = [one.inputs["number"] for one in run(nodes, job).values() if "KeepCell" in one.kind]
    assert kept == list(range(len(job.missing)))


def test_an_adapter_is_loaded_once_for_all_cells_of_its_strength(nodes):
    ran = run(nodes, job_of(nodes, ROWS)).values()
    assert [one.inputs["strength"] for one in ran if one.kind == "Adapter"] == [1.0, 0.5, 1.0]


def test_a_cell_is_drawn_with_its_pose_or_with_an_empty_image(nodes):
    job = job_of(nodes, ROWS[:1])
    ran = run(nodes, job)
    samplers = [one for one in ran.values() if one.kind == "Sampler"]
    assert [one.inputs["prompt"] for one in samplers] == ["a dog", "a cat", "a cow"] * 2
    poses = [(ran[id].kind, output) for id, output in (one.inputs["pose"] for one in samplers)]
    assert poses == [("EmptyImage", 0)] * 3 + [("Likeness_PoseSet", 1)] * 3
    people = [len(one.inputs["keypoints"]) for one in ran.values() if "PoseSet" in one.kind]
    assert people == [1, 1, 1]


def test_an_error_in_a_cell_wrote_the_whole_comparison_into_comfyuis_history(nodes):
    job = job_of(nodes, [Variant(name="base"), Variant(name="r4", adapter="4" * 64)])
    assert len(repr(job)) < 200
    assert "node_id='s', name='x'" in repr(job)
