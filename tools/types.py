"""Runs mypy with the settings in pyproject.toml: ``python -m tools.types``.

Checks a symlink called `likeness`, because mypy derives the package name from the folder's name.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs mypy; returns its exit status, 0 if it finds no errors."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "likeness").symlink_to(ROOT, target_is_directory=True)
        settings = ["--config-file", str(ROOT / "pyproject.toml")]
        kept = ["--cache-dir", str(ROOT / ".mypy_cache")]
        return subprocess.call([sys.executable, "-m", "mypy", *settings, *kept], cwd=folder)


if __name__ == "__main__":
    raise SystemExit(main())
