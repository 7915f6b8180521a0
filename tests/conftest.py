"""Loads the checkout as the package `likeness`, as `__main__.py` does."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()
