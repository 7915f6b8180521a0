"""kill -9 and power cuts at random moments: the run goes on, and nothing is lost or different."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from likeness.trainers.crash_report import log_tail
from likeness.trainers.run_folder import RunFolder

from .operations import Journal, KillAt, cut_power, watched
from .trials import (
    Bench,
    Lost,
    Unbroken,
    check_same,
    finish,
    fork,
    kill,
    saved_step,
    small_recipe,
    stage_of,
    unbroken,
    wait,
    went_on_from,
    write_json,
)

MOST_KILLS = 200  # of one run by the clock; it took up to some ten
HARMED = "files and names harmed"


def reference(bench: Bench, kind: str) -> Unbroken:
    """What the recipe of a kind gives when nothing disturbs it."""

    def counted(folder: RunFolder) -> int:
        told = bench.root / "operations.json"

        @contextmanager
        def counting():
            count = KillAt()
            with watched(tree_of(folder), count):
                yield
            write_json(told, count.count)

        code = wait(fork(folder, counting))
        if code != 0:
            raise Lost(f"the unbroken run failed: {log_tail(folder.log, 20)}")
        return int(told.read_text())

    return unbroken(bench, small_recipe(kind), counted)


def tree_of(folder: RunFolder) -> Path:
    """All that a run writes to."""
    return folder.path.parents[1]


def killed_by_the_clock(bench: Bench, kind: str, expected: Unbroken) -> Counter[str]:
    """Kills a run at a random moment, and again, until it ends by itself; counts by stage."""
    folder, stages = bench.prepared(small_recipe(kind)), Counter[str]()
    moments = random.Random(bench.random.getrandbits(64))  # how many are drawn depends on the clock
    for _ in range(MOST_KILLS):
        pid = fork(folder)
        deadline = time.monotonic() + moments.uniform(0.02, 1.1 * expected.seconds)
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.002)
        else:
            kill(pid)
            _note(folder, stages)
            continue
        _check(folder, wait(pid), expected, stages)
        return stages
    finish(folder)  # the machine has become too slow for these moments
    _check(folder, 0, expected, stages)
    return stages


def killed_at_an_operation(bench: Bench, kind: str, expected: Unbroken) -> Counter[str]:
    """Kills a run ahead of a random change of a file, once, and lets it go on."""
    folder, stages = bench.prepared(small_recipe(kind)), Counter[str]()
    number = bench.random.randrange(expected.operations)
    pid = fork(folder, lambda: watched(tree_of(folder), KillAt(number)))
    if wait(pid) != -9:
        raise Lost(f"the run did not come to operation {number}")
    _note(folder, stages)
    finish(folder)
    _check(folder, 0, expected, stages)
    return stages


def power_cut(bench: Bench, kind: str, expected: Unbroken) -> Counter[str]:
    """As above; then all that was not synced is lost or spoilt before it goes on."""
    folder, stages = bench.prepared(small_recipe(kind)), Counter[str]()
    tree, journal = tree_of(folder), bench.root / f"journal-{bench.random.getrandbits(64):x}"
    killer, notes = KillAt(bench.random.randrange(expected.operations)), Journal(journal)

    def both(operation, arguments):
        killer(operation, arguments)
        notes(operation, arguments)

    _note_inputs(notes, folder)
    if wait(fork(folder, lambda: watched(tree, both))) != -9:
        raise Lost("the run did not come to the operation")
    safe = saved_step(folder)
    _note(folder, stages)
    stages[HARMED] += cut_power(tree, journal, bench.random)
    finish(folder)
    if went_on_from(folder) < safe:
        raise Lost(f"step {safe} was saved, and the run went on from {went_on_from(folder)}")
    _check(folder, 0, expected, stages)
    journal.unlink()
    shutil.rmtree(journal.with_name(f"{journal.name}.kept"))
    return stages


def _note_inputs(notes: Journal, folder: RunFolder) -> None:
    """What `prepare` wrote and synced in this process is safe."""
    for path in folder.path.iterdir():
        if path.suffix == ".json":
            with open(path, "rb") as file:
                notes("sync", (file.fileno(),))
    for path in (tree_of(folder) / "cache").rglob("*.json"):
        with open(path, "rb") as file:
            notes("sync", (file.fileno(),))


def _note(folder: RunFolder, stages: Counter[str]) -> None:
    stages[stage_of(folder)] += 1


def _check(folder: RunFolder, code: int, expected: Unbroken, stages: Counter[str]) -> None:
    if code != 0:
        raise Lost(f"exit code {code} after {dict(stages)}:\n{log_tail(folder.log, 20)}")
    check_same(folder, expected)
    shutil.rmtree(tree_of(folder))
