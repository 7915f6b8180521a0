"""Which memory tier a run takes, where there is a state to go on from."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from likeness.trainers import memory_tiers, tier_choice
from likeness.trainers.earlier_runs import SavedState
from likeness.trainers.errors import OptimizerMismatch, RecipeError
from likeness.trainers.memory_tiers import EIGHT_BIT, FULL, IN_BACKWARD, Machine
from likeness.trainers.presets import preset

GPU = Machine(precision="bf16", has_bf16=True, processes=1, bitsandbytes=True, cpu_8bit_adam=True)
WITHOUT = Machine(
    precision="bf16", has_bf16=True, processes=1, bitsandbytes=False, cpu_8bit_adam=False
)
TWO = Machine(precision="bf16", has_bf16=True, processes=2, bitsandbytes=True, cpu_8bit_adam=True)


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run of the preset `standard` with AdamW, with a state of its own or of an earlier run."""

    def begin(machine, own=None, earlier=None, state=True, **parts):
        def folder(name, tier):
            file = tmp_path / f"{name}.json"
            if tier:
                memory_tiers.save_tier(file, tier)
            run = SimpleNamespace(tier_file=file, path=tmp_path / name)
            if tier and state:
                states.append(SavedState(run, preset("standard"), 1))
            return run

        states = []
        own_folder, _ = folder("own", own), folder("earlier", earlier)
        monkeypatch.setattr(tier_choice, "saved_states", lambda *_: states)
        monkeypatch.setattr(tier_choice, "detect_machine", lambda *_: machine)
        monkeypatch.setattr(tier_choice, "model_size", lambda *_: None)
        monkeypatch.setattr(tier_choice, "free_memory", lambda *_: 0)
        monkeypatch.setattr(memory_tiers, "select_tier", lambda choice, *_: (choice[0], None))
        recipe = preset("standard").changed(optimizer={"name": "adamw"}).changed(**parts)
        accelerator = SimpleNamespace(is_main_process=True)
        return SimpleNamespace(
            folder=own_folder, recipe=recipe, places=None, accelerator=accelerator,
            precision=machine.precision, note=pytest.fail, tier=None,
        )  # fmt: skip

    return begin


def test_a_run_changed_its_optimizer_when_bitsandbytes_was_gone_and_began_anew(begun):
    run = begun(WITHOUT, own=EIGHT_BIT)
    with pytest.raises(OptimizerMismatch, match=r"pip install.*bitsandbytes; or raise attempt"):
        tier_choice.check_tier(run)
    assert tier_choice.choose_tier(begun(GPU, own=EIGHT_BIT), None, {}) is EIGHT_BIT
    assert tier_choice.choose_tier(begun(WITHOUT, own=EIGHT_BIT, state=False), None, {}) is FULL


def test_at_full_speed_a_run_in_8_bits_was_continued_from_step_0(begun):
    continues = {"continues": "0" * 64, "compute": {"memory": "full"}}
    with pytest.raises(OptimizerMismatch, match=r"memory to '8bit' or 'auto'; or clear continues"):
        tier_choice.check_tier(begun(GPU, earlier=EIGHT_BIT, **continues))
    auto = begun(GPU, earlier=EIGHT_BIT, continues="0" * 64)
    assert tier_choice.choose_tier(auto, None, {}) is EIGHT_BIT


def test_a_tier_that_is_gone_makes_way_for_one_with_the_same_optimizer(begun):
    assert tier_choice.choose_tier(begun(TWO, own=IN_BACKWARD), None, {}) is EIGHT_BIT


def test_a_tier_below_that_of_the_earlier_state_is_kept_once_the_run_fell_to_it(begun):
    run = begun(GPU, earlier=FULL)
    memory_tiers.save_tier(run.folder.tier_file, memory_tiers.CHECKPOINTING)
    assert tier_choice.choose_tier(run, None, {}) is memory_tiers.CHECKPOINTING


def test_a_named_tier_that_this_machine_has_not_is_refused_before_the_base_is_loaded(begun):
    with pytest.raises(RecipeError, match="bitsandbytes"):
        tier_choice.check_tier(begun(WITHOUT, compute={"memory": "8bit"}))


@pytest.fixture
def shared(begun, monkeypatch):
    """A run that may start from the state of a run with other steps, and its notes."""

    def begin(machine, tier, **parts):
        run, told = begun(machine, earlier=tier, **parts), []
        states = [replace(state, shared=True) for state in tier_choice.saved_states()]
        monkeypatch.setattr(tier_choice, "saved_states", lambda *_: states)
        monkeypatch.setattr(tier_choice, "forget_shared_state", lambda folder: states.clear())
        run.note = told.append
        return run, told

    return begin


def test_another_runs_state_kept_a_new_run_from_starting_without_bitsandbytes(shared):
    run, told = shared(WITHOUT, EIGHT_BIT)
    tier_choice.check_tier(run)
    assert len(told) == 1 and "is not used" in told[0]
    assert tier_choice.choose_tier(run, None, {}) is FULL


def test_a_run_took_another_ones_tier_whether_it_fits_or_not(shared, monkeypatch):
    run, told = shared(GPU, FULL)
    monkeypatch.setattr(memory_tiers, "select_tier", lambda choice, *_: (choice[-1], None))
    assert tier_choice.choose_tier(run, None, {}) is not FULL and not told


def test_out_of_memory_a_run_does_without_another_ones_state(shared):
    run, told = shared(GPU, FULL)
    run.tier, run.accelerator.num_processes = memory_tiers.CHECKPOINTING, 1
    assert tier_choice.fall_back_to_lower_tier(run)
    assert "is not used" in told[0] and "restarts in tier '8bit'" in told[1]
