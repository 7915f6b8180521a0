"""States that runs of other lengths share; equivalent and continued runs: test_preparation.py."""

import shutil

import pytest
from filelock import FileLock
from likeness.trainers.earlier_runs import record_shared_state, saved_states, unused_state_note
from likeness.trainers.places import Places
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import RunFolder


@pytest.fixture
def places(tmp_path):
    names = ("base", "photos", "runs", "loras", "checkpoints", "cache")
    return Places(**{name: tmp_path / name for name in names})


@pytest.fixture
def begin(places):
    """Makes a run's folder with checkpoints after `saved` steps."""

    def begin(steps, *saved, **parts):
        bound = {"base": {"digest": "a" * 64}, "subject": {"digest": "b" * 64}}
        recipe = preset("lora-r4").changed(**bound).changed(schedule={"steps": steps}, **parts)
        folder = RunFolder(places.runs / recipe.run_name())
        folder.path.mkdir(parents=True)
        folder.recipe_file.write_text(recipe.to_json())
        for step in saved:
            (folder.checkpoints / f"step-{step:06d}").mkdir(parents=True)
            (folder.checkpoints / f"step-{step:06d}" / "state.json").touch()
        return folder

    return begin


def states(folder, places):
    """What a run that is prepared now may start from."""
    record_shared_state(folder, folder.recipe(), places)
    return [(one.run.path, one.step) for one in saved_states(folder, folder.recipe(), places)]


def test_800_steps_that_became_1200_were_trained_again_from_the_start(places, begin):
    short, own = begin(800, 400, 800), begin(1200, 300)
    assert states(own, places) == [(short.path, 800), (own.path, 300)]
    assert states(short, places) == [(short.path, 800), (short.path, 400)]


def test_a_shorter_run_takes_no_state_after_its_last_step(places, begin):
    long = begin(1200, 600, 1200)
    assert states(begin(800), places) == [(long.path, 600)]


@pytest.mark.parametrize(
    "parts",
    [
        {"seed": 1},
        {"optimizer": {"learning_rate": 2e-4}},
        {"text_encoder": {"last_step": 400}},
        {"subject": {"token": "ohwx"}},
        {"base": {"prediction": "v_prediction"}},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_a_run_that_trains_otherwise_shares_no_state(places, begin, parts):
    begin(800, 800, **parts)
    own = begin(1200)
    assert states(own, places) == [] and unused_state_note(own.recipe(), places) is None


def test_a_run_of_another_name_and_with_previews_shares_its_state(places, begin):
    previews = {"every": 5, "prompts": ["a cat"]}
    begin(800, 800, name="anna", previews=previews, saving={"every": 7})
    assert [step for _, step in states(begin(1200), places)] == [800]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"schedule": {"lr_scheduler": "cosine"}}, "'cosine' spans all steps"),
        ({"saving": {"adapters_every": 100}}, "from the first steps on"),
    ],
    ids=["cosine", "adapters_every"],
)
def test_a_run_that_cannot_use_a_shorter_ones_state_says_why(places, begin, parts, says):
    def begin_both(steps, *saved):
        rest = dict(parts)
        schedule = {"steps": steps, **rest.pop("schedule", {})}
        bound = begin(steps, *saved)
        recipe = bound.recipe().changed(schedule=schedule, **rest)
        bound.recipe_file.write_text(recipe.to_json())
        return bound

    short, own = begin_both(800, 400, 800), begin_both(1200)
    assert states(own, places) == []
    note = unused_state_note(own.recipe(), places)
    assert says in note and f"{short.path.name}, which" in note and "has trained 800 steps" in note


def test_the_state_of_a_run_that_trains_now_is_left_alone(places, begin):
    short, own = begin(800, 800), begin(1200)
    with FileLock(short.lock):
        assert states(own, places) == []


def test_the_processes_of_a_run_started_from_different_steps(places, begin):
    """One saw the other run's lock taken, by another process that looked at it."""
    short, own = begin(800, 800), begin(1200)
    assert states(own, places) == [(short.path, 800)]
    with FileLock(short.lock):
        found = saved_states(own, own.recipe(), places)
    assert [(one.step, one.shared) for one in found] == [(800, True)]


def test_a_state_that_is_gone_or_passed_is_not_used(places, begin):
    short, own = begin(800, 800), begin(1200)
    assert states(own, places) == [(short.path, 800)]
    shutil.rmtree(short.checkpoints)
    assert saved_states(own, own.recipe(), places) == []
    for harm in ("", "[]", '{"run": "../x", "step": 800}', '{"run": 1, "step": null}'):
        own.shared_state_file.write_text(harm)
        assert saved_states(own, own.recipe(), places) == []
