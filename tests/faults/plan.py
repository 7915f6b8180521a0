"""Which faults are tried, how often, in the long and in the short form."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import fuzz, kills, others
from .table import Row
from .trials import KINDS, Bench, Lost, Unbroken

# Rounds of each fault: (long, short). The first two kill once or more a round.
KILLS = {
    "kill -9 at a random moment": (kills.killed_by_the_clock, 20, 1),
    "kill -9 ahead of a change of a file": (kills.killed_at_an_operation, 40, 1),
    "kill -9, then a power cut": (kills.power_cut, 30, 1),
}
WRONG = ("NaN loss", "exploding loss", "NaN weights")


class Session:
    """One run of the plan: its bench, what unbroken runs give, and the rows so far."""

    def __init__(self, root: Path, seed: int, *, short: bool) -> None:
        self.bench = Bench(root, seed)
        self.short = short
        self.rows: list[Row] = []
        self.expected: dict[str, Unbroken] = {
            kind: kills.reference(self.bench, kind) for kind in KINDS
        }

    def all(self) -> None:
        """Tries everything."""
        self.killed()
        self.ended()
        self.disks_and_numbers()
        self.together()
        self.inputs()

    def killed(self) -> None:
        """Kills and power cuts, half of them in each kind of training."""
        for name, (act, long, short) in KILLS.items():
            row = self._row(name)
            for kind in KINDS:
                self._repeat(row, long, short, act, self.bench, kind, self.expected[kind])
            row.rounds = sum(n for stage, n in row.found.items() if stage != kills.HARMED)

    def ended(self) -> None:
        """Stops and cancels."""
        expected = self.expected["lora"]
        self._cancelled("started and cancelled, as ComfyUI does", 50, processes=1)
        row = self._row("stopped within a random step, then started again")
        self._repeat(row, 20, 1, others.stopped, self.bench, expected)
        row.note = "ended after that step"
        if self.short:
            return  # tests/e2e/test_train.py kills a parent
        self._cancelled("a run of two processes cancelled", 10, processes=2)
        for both, name in ((False, "ComfyUI's process killed"), (True, "it and the run killed")):
            row = self._row(name)
            self._repeat(row, 5, 5, others.parent_killed, self.bench, expected, both)

    def _cancelled(self, name: str, rounds: int, processes: int) -> None:
        row = self._row(name)
        seconds = self._repeat(row, rounds, 1, others.cancelled, self.bench, processes)
        row.note = f"0 processes left; the slowest took {max(seconds, default=0):.1f} s"

    def disks_and_numbers(self) -> None:
        """Full disks and wrong numbers."""
        row = self._row("a disk of a few free kilobytes")
        if others.can_mount():
            self._repeat(row, 20, 1, others.full_disk, self.bench, self.expected["lora"])
        else:
            row.note = "not tried: it takes the right to mount a file system"
        for kind in WRONG:
            row = self._row(f"{kind} from a random step on")
            late = self._repeat(row, 10, 1, others.wrong_numbers, self.bench, kind)
            row.note = f"told {max(late, default=0)} steps later at most"

    def together(self) -> None:
        """Two processes on the same folders."""
        expected = self.expected["lora"]
        row = self._row("the same run started twice at once")
        self._repeat(row, 20, 1, others.two_at_once, self.bench, expected)
        row.note = "one trains, the other is told so"
        row = self._row("two runs with shared caches at once, one killed")
        self._repeat(row, 10, 1, others.shared_caches, self.bench, expected)

    def inputs(self) -> None:
        """Bad inputs, see fuzz.py."""
        folder = self.bench.root / "fuzz"
        folder.mkdir()
        for name, target in fuzz.TARGETS.items():
            row = self._row(f"bad input: {name}")
            try:
                row.found.update(fuzz.run(target, folder, 30 if self.short else target.examples))
            except AssertionError as error:
                self._lose(row, error)
            row.rounds = sum(row.found.values())

    def _row(self, name: str) -> Row:
        self.rows.append(Row(name))
        return self.rows[-1]

    def _repeat(
        self, row: Row, long: int, short: int, act: Callable[..., Any], *arguments: Any
    ) -> list[float]:
        """Acts so many times; counts what it returns, or gives the numbers back."""
        numbers, start = [], time.monotonic()
        for _ in range(short if self.short else long):
            row.rounds += 1
            try:
                found = act(*arguments)
            except Lost as error:
                self._lose(row, error)
                continue
            if isinstance(found, Counter):
                row.found.update(found)
            elif isinstance(found, str):
                row.found[found] += 1
            elif found is not None:
                numbers.append(found)
        print(f"{row.line()} {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        return numbers

    def _lose(self, row: Row, error: AssertionError) -> None:
        row.lost.append(str(error))
        print(f"{row.fault}: {error}", file=sys.stderr, flush=True)
