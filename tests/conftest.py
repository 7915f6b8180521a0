"""Loads the checkout as the package `likeness`, as `__main__.py` does; finds ComfyUI."""

import os
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Threads do not speed up small models, and slow them down if several processes share the cores.
# Child processes inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()


@pytest.fixture(autouse=True)
def _no_hidden_packages():
    """Undoes the hiding of optional packages by training and drawing, which is per process."""
    yield
    for package in ("xformers", "bitsandbytes"):
        if sys.modules.get(package, package) is None:
            del sys.modules[package]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """Runs each file's tests in one process, and all with a full-size ComfyUI in the same one.

    Two such servers and the models compared with them do not fit in 24 GB.
    """
    for item in items:
        full_size = "base_checkpoint" in item.fixturenames
        item.add_marker(pytest.mark.xdist_group("full-size" if full_size else str(item.path)))


@pytest.fixture(scope="session")
def subjects():
    """Folders of photographs, one per subject; skips if LIKENESS_SUBJECTS names none."""
    named = os.environ.get("LIKENESS_SUBJECTS")
    found = sorted(path for path in Path(named).iterdir() if path.is_dir()) if named else []
    if not found:
        pytest.skip("LIKENESS_SUBJECTS names no folder of subjects (CONTRIBUTING.md)")
    return found


@pytest.fixture(scope="session")
def comfyui():
    """Skips the tests that need a real ComfyUI if there is none."""
    from likeness.tools.comfyui import NoComfyUI, find_comfyui

    try:
        find_comfyui()
    except NoComfyUI as reason:
        pytest.skip(str(reason))
