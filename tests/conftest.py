"""Loads the checkout as the package `likeness`, as `__main__.py` does."""

import os
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Small models gain nothing from threads, and lose much where several processes share the cores.
# Child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()
