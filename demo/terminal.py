"""Commands of this room: demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Adds this room's commands to the parser."""
    demo = commands.add_parser("demo", help="try everything on a small model, without downloads")
    demo.add_argument("--output", type=Path, default=Path("output"))
    demo.set_defaults(run=_demo)


def _demo(given: argparse.Namespace) -> int:
    from .experiment import run

    run(given.output)
    return 0
