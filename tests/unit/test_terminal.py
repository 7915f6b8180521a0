import errno
import logging

import pytest
from likeness.comparison import terminal as comparison
from likeness.comparison.errors import ComparisonError
from likeness.terminal import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "steps"),
        (["--width", "100"], "width"),
        (["--height", "32"], "height"),
        (["--guidance", "-1"], "guidance"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**64)], "--seed"),
        (["--name", "../x"], "--name"),
        (["--clip-skip", "13"], "--clip-skip"),
    ],
)
def test_a_wrong_value_of_draw_is_one_clear_error(capsys, arguments, says):
    assert main(["draw", "a dog", "--base", "gone.safetensors", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


def test_a_full_disk_is_told_without_a_traceback(capsys, monkeypatch):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device", "cells/1.png")

    monkeypatch.setattr(comparison, "find_plan", full)
    assert main(["plan", "study"]) == 1
    said = capsys.readouterr().err
    assert "The disk is full" in said and "cells/1.png" in said


def test_bitsandbytes_tells_its_errors_and_not_which_kernels_it_lacks(monkeypatch):
    """It would print "Failed to load CPU gemm_4bit_forward" at every command that imports peft."""
    told = {}

    def find(name):
        log = logging.getLogger("bitsandbytes.backends.cpu.ops")
        told.update({level: log.isEnabledFor(level) for level in (logging.WARNING, logging.ERROR)})
        raise ComparisonError("no plan")

    monkeypatch.setattr(comparison, "find_plan", find)
    assert main(["plan", "study"]) == 1
    assert told == {logging.WARNING: False, logging.ERROR: True}
