"""How the rows of a comparison are trained from the terminal: one by one, or several at once."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Generator, Mapping

from tqdm import tqdm

from ..trainers.events import Event
from ..trainers.job import train
from ..trainers.places import Places
from ..trainers.recipe import Recipe
from ..trainers.runs import Result
from ..trainers.terminal import Interrupts, result_text, train_shown
from .compare import TrainRows
from .together import in_threads

Results = Generator[tuple[str, Result], None, None]


def one_by_one(given: argparse.Namespace) -> TrainRows:
    """Trains one row after another, each under its own bars."""

    def train_rows(recipes: Mapping[str, Recipe], places: Places) -> Results:
        for name, recipe in recipes.items():
            tqdm.write(f"row      {name}")
            yield name, train_shown(recipe, places, processes=given.processes, device=given.device)

    return train_rows


def several_at_once(given: argparse.Namespace) -> TrainRows:
    """Trains `given.at_once` rows at a time on the CPU, under one bar of all their steps."""

    def train_rows(recipes: Mapping[str, Recipe], places: Places) -> Results:
        interrupts, screen = Interrupts(), RowsScreen(recipes)

        def train_row(name: str, recipe: Recipe, cancelled: Callable[[], bool]) -> Result:
            interrupts.check(name)  # before its folder is made

            def ended() -> bool:
                """After one Ctrl-C a row ends by itself, when it is saved."""
                return cancelled() and (interrupts.cancelled or not interrupts.asked)

            result = train(
                recipe, places, on_event=lambda event: screen.show(name, event),
                interrupted=ended, before_start=interrupts.watch, device="cpu",
            )  # fmt: skip
            screen.end(name, result)
            return result

        interrupts.begin()
        rows: dict[str, list[str]] = {}  # those with equal lessons are one run
        for name, recipe in recipes.items():
            rows.setdefault(recipe.lesson().digest(), []).append(name)
        first = {names[0]: recipes[names[0]] for names in rows.values()}
        try:
            for name, result in in_threads(train_row, first, given.at_once):
                yield from ((row, result) for row in rows[recipes[name].lesson().digest()])
        finally:
            interrupts.close()
            screen.close()

    return train_rows


def finished_rows(recipes: Mapping[str, Recipe], places: Places) -> Results:
    """Trains nothing that is trained; says nothing."""
    for name, recipe in recipes.items():
        yield name, train(recipe, places, on_event=lambda event: None, device="cpu")


class RowsScreen:
    """One bar over the steps of all rows, and behind it what each row does that has begun."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._steps = dict.fromkeys(recipes, 0)
        self._doing: dict[str, str] = {}
        self._lock = threading.Lock()
        total = sum(recipe.schedule.steps for recipe in recipes.values())
        self._bar = tqdm(total=total, desc="train", unit="step", disable=not recipes)

    def show(self, name: str, event: Event) -> None:
        """Shows an event of a row."""
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
        tqdm.write(f"row      {name}\n{result_text(result)}")

    def _advance(self, name: str, doing: str, steps: int | None = None) -> None:
        with self._lock:
            self._doing[name] = doing
            if steps is not None:
                self._steps[name] = steps
            shown = [f"{row} {what}" for row, what in self._doing.items() if what]
            self._bar.set_postfix_str(", ".join(shown), refresh=False)
            self._bar.update(sum(self._steps.values()) - self._bar.n)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
