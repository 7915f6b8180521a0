"""Names of the files that a training saves on its way."""

import pytest
from likeness.trainers import adapter_files

RUN = "anna-0a1b2c3d"


@pytest.mark.parametrize("steps", [None, 50, 1_000_000])
@pytest.mark.parametrize("number", [1, 2, 12])
def test_a_files_name_tells_its_run(steps, number):
    file = f"{adapter_files.adapter_stem(RUN, steps, number)}.safetensors"
    assert adapter_files.run_name_from(file) == RUN
    assert adapter_files.is_intermediate(file) == (steps is not None)


def test_a_file_of_another_program_is_a_run_of_its_own():
    assert adapter_files.run_name_from("bob.safetensors") == "bob"
    assert not adapter_files.is_intermediate("bob-step.safetensors")


def test_of_one_step_the_file_saved_last_counts(tmp_path):
    names = [f"{adapter_files.adapter_stem(RUN, *key)}.safetensors"
             for key in ((50,), (50, 2), (50, 10), (100,), (None,), (None, 3))]  # fmt: skip
    for name in (*names, "anna-0a1b2c3d-stepsister.safetensors", "other-step000050.safetensors"):
        (tmp_path / name).touch()
    assert adapter_files.group_by_step(names) == {RUN: {50: names[2], 100: names[3]}}
    found = {path.name for path in adapter_files.intermediate_adapters(tmp_path, RUN)}
    assert found == set(names[:4])
