"""Command-line options shared by several packages."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Adds ``--tokenizer``, a list of folders."""
    parser.add_argument(
        "--tokenizer", type=Path, action="append", default=[], metavar="FOLDER",
        help="folder with CLIP's vocab.json and merges.txt, if the base has none; repeatable",
    )  # fmt: skip


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, "auto" or "cpu"."""
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto",
        help="cpu: do not use a GPU (default: %(default)s)",
    )  # fmt: skip
