"""The results as a Markdown table."""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Row:
    """One kind of fault: what was done how often, what was found, and what failed."""

    fault: str
    rounds: int = 0
    found: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def line(self) -> str:
        """A line of the table."""
        found = ", ".join(f"{count} {name}" for name, count in sorted(self.found.items()))
        what = "; ".join(part for part in (found, self.note) if part)
        return f"| {self.fault} | {self.rounds} | {what} | {len(self.lost)} |"


def markdown(rows: list[Row], seed: int, seconds: float) -> str:
    """The table, and what it was made on."""
    lines = ["| what was done | rounds | where, and what was found | lost or different |"]
    lines += ["|---|---|---|---|", *(row.line() for row in rows)]
    made = (
        f"Seed {seed}, {seconds / 60:.0f} minutes on {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}."
    )
    return "\n".join([*lines, "", made])
