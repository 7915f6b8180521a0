"""``python -m tests.faults``, from the repository's root; ``--help`` lists the options."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"

# Equal bits need a fixed number of threads, and forks a process without threads.
os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

from likeness.trainers.files import replace_between_markers  # noqa: E402  they need the package

from .plan import Session  # noqa: E402
from .table import markdown  # noqa: E402


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--short", action="store_true", help="each fault once or twice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    return parser.parse_args()


def main() -> int:
    """Tries every fault, prints the table, and writes it if asked; 1 if anything was lost."""
    given, start = parse(), time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = Session(Path(folder), given.seed, short=given.short)
        session.all()
    text = markdown(session.rows, given.seed, time.monotonic() - start)
    print(text)
    if given.write:
        replace_between_markers(PAGE, "faults", text)
    return int(any(row.lost for row in session.rows))


if __name__ == "__main__":
    sys.exit(main())
