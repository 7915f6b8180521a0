"""Shared by the commands of all tables: options, the working folder, and the page."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from likeness.trainers.files import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


def common_parser(table: str, about: str) -> argparse.ArgumentParser:
    """A parser with the options of every table."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {table}", description=about)
    parser.add_argument("--size", choices=("tiny", "full"), default="full", help="model size")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each side, alternating")
    parser.add_argument("--resolution", type=int, help="default: 128 on the CPU, else 512")
    parser.add_argument("--folder", type=Path, help="folder in which to keep model and images")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    return parser


def parse_options(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parses the options; resolution and optimizer default to the device's.

    Exits with a message if --write is given but the page has no section for the table: a benchmark
    takes too long to find out afterwards.
    """
    args = parser.parse_args(arguments)
    args.resolution = args.resolution or (128 if args.device == "cpu" else 512)
    args.optimizer = getattr(args, "optimizer", None) or default_optimizer(args.device)
    args.section = f"{parser.prog.split()[-1]} {args.device}"
    if args.write and f"<!-- {args.section}: begin -->" not in PAGE.read_text(encoding="utf-8"):
        parser.error(f"{PAGE} has no section {args.section!r}")
    return args


def default_optimizer(device: str) -> str:
    """The study's 8-bit Adam if installed; AdamW on a CPU, where 8-bit is far slower."""
    there = importlib.util.find_spec("bitsandbytes") is not None
    return "adamw8bit" if there and device != "cpu" else "adamw"


@contextmanager
def working_folder(args: argparse.Namespace) -> Iterator[Path]:
    """The folder given by `--folder`, or a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder for one run, deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as path:
        yield Path(path)


def publish(args: argparse.Namespace, text: str) -> None:
    """Prints a table, and writes it to the page with --write."""
    print(f"\n{text}")
    if args.write:
        replace_between_markers(PAGE, args.section, text)
        print(f"\nWritten to {PAGE}.")
