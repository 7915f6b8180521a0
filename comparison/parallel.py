"""Trains rows and draws cells in parallel on a CPU.

A small model, such as the miniature, keeps only one core busy. Each training already has its own
process; for drawing, the same command is started several times, each for a share of the cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..trainers.crash_report import log_tail
from ..trainers.job import PACKAGE, POLL_SECONDS, python_command, with_passive_openmp
from .errors import ComparisonError
from .plan_file import PlanFile

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def run_in_threads(
    work: Callable[[str, _Given, Callable[[], bool]], _Made],
    given: Mapping[str, _Given],
    at_once: int,
) -> Iterator[tuple[str, _Made]]:
    """Calls ``work(name, given, cancelled)``, `at_once` at a time; yields names and results.

    Results are yielded as they finish. If a call fails or the generator is closed, `cancelled()`
    turns true and pending calls are dropped; the error is raised once all running calls have ended.
    """
    end = threading.Event()
    pool = ThreadPoolExecutor(at_once)
    try:
        names = {pool.submit(work, name, one, end.is_set): name for name, one in given.items()}
        for future in as_completed(names):
            yield names[future], future.result()
    finally:
        end.set()
        pool.shutdown(cancel_futures=True)


def draw_in_processes(
    plan: PlanFile,
    options: Sequence[str],
    missing: Sequence[int],
    processes: int,
    images: Sequence[Path],
    bar: tqdm[Any],
) -> None:
    """Distributes the `missing` cells over processes that run ``likeness compare``.

    They read the plan as it is here, with the files that its patterns matched at the start.
    `bar` counts the `images` that exist. The processes end when this one does. Raises
    ComparisonError with the tail of the log if one fails.
    """
    parts = [part for first in range(processes) if (part := missing[first::processes])]
    environment = {**with_passive_openmp(os.environ), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log.txt"), "wb") as log:
        command = ["compare", str(Path(folder, "plan.json")), *options]
        Path(command[1]).write_text(plan.to_json(), encoding="utf-8")
        files = [Path(folder, f"{number}.json") for number in range(len(parts))]
        for file, part in zip(files, parts, strict=True):
            file.write_text(json.dumps(list(part)))
        started = [
            subprocess.Popen(
                [*python_command(), str(PACKAGE), *command, "--cells", str(file)],
                stdin=subprocess.PIPE,  # closes when this process ends
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            for file in files
        ]
        try:
            _wait(started, images, bar)
        finally:
            for process in started:
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
        if any(process.returncode for process in started):
            raise ComparisonError(f"Generating images failed.\n{log_tail(Path(log.name))}")


def _wait(
    started: Sequence[subprocess.Popen[bytes]], images: Sequence[Path], bar: tqdm[Any]
) -> None:
    running = True
    while running:
        codes = [process.poll() for process in started]
        running = None in codes and not any(codes)
        bar.update(sum(path.is_file() for path in images) - bar.n)
        if running:
            time.sleep(POLL_SECONDS)
