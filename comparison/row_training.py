"""Trains the rows of a comparison from the terminal, one by one or several in parallel."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Generator, Mapping

from tqdm import tqdm

from ..trainers.cli import InterruptHandler, format_result, train_with_progress
from ..trainers.events import Event
from ..trainers.job import train
from ..trainers.places import Places
from ..trainers.recipe import Recipe
from ..trainers.run_folder import Result
from .compare import TrainRows
from .parallel import run_in_threads

Results = Generator[tuple[str, Result], None, None]


def train_sequentially(args: argparse.Namespace) -> TrainRows:
    """Trains one row after another, each with its own progress bars."""

    def train_rows(recipes: Mapping[str, Recipe], places: Places) -> Results:
        for name, recipe in recipes.items():
            tqdm.write(f"row      {name}")
            yield (
                name,
                train_with_progress(recipe, places, processes=args.processes, device=args.device),
            )

    return train_rows


def train_in_parallel(args: argparse.Namespace) -> TrainRows:
    """Trains `args.at_once` rows in parallel on the CPU, with one progress bar for all steps."""

    def train_rows(recipes: Mapping[str, Recipe], places: Places) -> Results:
        interrupts, screen = InterruptHandler(), RowsProgressBar(recipes)

        def train_row(name: str, recipe: Recipe, cancelled: Callable[[], bool]) -> Result:
            interrupts.check(name)  # before its folder is created

            def ended() -> bool:
                """Whether to cancel the row; after one Ctrl-C it ends by itself once saved."""
                return cancelled() and (interrupts.cancelled or not interrupts.asked)

            result = train(
                recipe, places, on_event=lambda event: screen.show(name, event),
                interrupted=ended, before_start=interrupts.watch, device="cpu",
            )  # fmt: skip
            screen.end(name, result)
            return result

        interrupts.begin()
        rows: dict[str, list[str]] = {}  # rows with equivalent recipes share one run
        for name, recipe in recipes.items():
            rows.setdefault(recipe.canonical().digest(), []).append(name)
        first = {names[0]: recipes[names[0]] for names in rows.values()}
        try:
            for name, result in run_in_threads(train_row, first, args.at_once):
                yield from ((row, result) for row in rows[recipes[name].canonical().digest()])
        finally:
            interrupts.close()
            screen.close()

    return train_rows


def reuse_finished_runs(recipes: Mapping[str, Recipe], places: Places) -> Results:
    """Returns finished runs without any output; trains what is missing."""
    for name, recipe in recipes.items():
        yield name, train(recipe, places, on_event=lambda event: None, device="cpu")


class RowsProgressBar:
    """One progress bar over the steps of all rows, followed by the status of each started row."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._steps = dict.fromkeys(recipes, 0)
        self._doing: dict[str, str] = {}
        self._lock = threading.Lock()
        total = sum(recipe.schedule.steps for recipe in recipes.values())
        self._bar = tqdm(total=total, desc="train", unit="step", disable=not recipes)

    def show(self, name: str, event: Event) -> None:
        """Updates the bar with an event of a row."""
        data = event.data
        if event.kind == "stage" and data["total"]:
            self._advance(name, f"{data['name']} {data['done']}/{data['total']}")
        elif event.kind == "step":
            self._advance(name, f"{data['step']}/{data['total']}", data["step"])
        elif event.kind == "notice":
            tqdm.write(f"{name}: {data['text']}")

    def end(self, name: str, result: Result) -> None:
        """Prints the result of a row."""
        self._advance(name, "", result.steps)
        tqdm.write(f"row      {name}\n{format_result(result)}")

    def _advance(self, name: str, doing: str, steps: int | None = None) -> None:
        with self._lock:
            self._doing[name] = doing
            if steps is not None:
                self._steps[name] = steps
            shown = [f"{row} {what}" for row, what in self._doing.items() if what]
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
            self._bar.update(sum(self._steps.values()) - self._bar.n)

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()
