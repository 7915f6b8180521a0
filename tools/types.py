"""Checks the types of all rooms with mypy, as pyproject.toml says: ``python -m tools.types``.

mypy takes a package's name from its folder, which is another one in every checkout.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """mypy's exit status: 0 where it finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "likeness").symlink_to(ROOT, target_is_directory=True)
        settings = ["--config-file", str(ROOT / "pyproject.toml")]
        kept = ["--cache-dir", str(ROOT / ".mypy_cache")]
        return subprocess.call([sys.executable, "-m", "mypy", *settings, *kept], cwd=folder)


if __name__ == "__main__":
    raise SystemExit(main())
