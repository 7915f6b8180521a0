"""How a run executes its steps."""

from types import SimpleNamespace

import pytest
from likeness.trainers import compute
from likeness.trainers.memory_tiers import FULL
from likeness.trainers.presets import preset


@pytest.mark.parametrize(("known", "told"), [(True, 0), (False, 1)])
def test_graphs_were_recorded_on_amd_where_a_failure_shows_as_wrong_numbers(
    known, told, monkeypatch
):
    monkeypatch.setattr(compute, "supports_cuda_graphs", lambda device: known)
    said = []
    run = SimpleNamespace(
        recipe=preset("lora-r4"), note=said.append,
        accelerator=SimpleNamespace(device=SimpleNamespace(type="cuda")),
    )  # fmt: skip
    assert compute.can_capture_graphs(run, FULL) == known
    assert len(said) == told and all("AMD" in text for text in said)
