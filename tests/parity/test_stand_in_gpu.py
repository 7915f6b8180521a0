"""The tests of `tests/gpu` on machines without a GPU."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "gpu" / "stand_in.py"


@pytest.mark.timeout(1800)
def test_what_runs_on_a_gpu_runs_on_a_stand_in():
    spec = importlib.util.spec_from_file_location("stand_in", SCRIPT)
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    if lack := stand_in.problem():
        pytest.skip(lack)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(SCRIPT.parent), "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[2],
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert "[100%]" in done.stdout
