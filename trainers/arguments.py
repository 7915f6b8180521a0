"""Options that commands of several rooms have."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Adds ``--tokenizer``, a list of folders."""
    parser.add_argument(
        "--tokenizer", type=Path, action="append", default=[], metavar="FOLDER",
        help="with CLIP's vocab.json and merges.txt, if none is with the base; may be repeated",
    )  # fmt: skip


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, "auto" or "cpu"."""
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto",
        help="cpu leaves a GPU alone (default: %(default)s)",
    )  # fmt: skip
