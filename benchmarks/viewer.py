"""Scrolling through 8 x 12 images of 768 x 1024 in the viewer, in ComfyUI's editor in Chromium.

Requires ComfyUI, Playwright and Chromium, like the tests marked `browser`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from likeness.tools.editor import EMPTY, Editor
from likeness.tools.fixtures import write_comparison
from PIL import Image

from .browser import INSET, decoded, heap, open_tab, version
from .matrix import running_server
from .options import PAGE, publish
from .table import machine, markdown

NAME = "large"
ROWS = [f"model-{number}" for number in range(8)]
COLUMNS = [f"prompt-{number}" for number in range(12)]
IMAGE = (768, 1024)
WIDTHS = (168, 384)  # of a cell, in pixels: the default and the largest
NOTCH, NOTCH_MS = 120, 100  # of the mouse wheel: pixels, and the time between notches
NODE = (420, 420)

GRID = "dialog .lk-grid"
# Records frame times and the images that enter the grid.
START = """
(grid) => {
    const [times, images] = [[], new Set()]
    const look = () => {
        for (const image of grid.querySelectorAll('img')) images.add(image.src)
    }
    const note = (time) => {
        times.push(time)
        if (window.likenessWatch) requestAnimationFrame(note)
    }
    const observer = new MutationObserver(look)
    observer.observe(grid, { childList: true, subtree: true })
    window.likenessWatch = { times, images, observer }
    look()
    requestAnimationFrame(note)
}
"""
STOP = """
() => {
    const { times, images, observer } = window.likenessWatch
    observer.disconnect()
    window.likenessWatch = null
    return [times, images.size]
}
"""
SCROLL_RANGE = "(grid) => grid.scrollHeight - grid.clientHeight"  # pixels
ENDED = """
(selector) => {
    const grid = document.querySelector(selector)
    return grid.scrollTop + grid.clientHeight >= grid.scrollHeight - 1
}
"""


@dataclass(frozen=True)
class ViewerState:
    """The idle viewer: number of images in the document, and memory in bytes."""

    shown: int
    heap: float
    decoded: int


@dataclass(frozen=True)
class Scroll:
    """One scroll from top to bottom: frame times in ms, and the viewer before and after.

    `loaded` is the number of images that were in the document at any time.
    """

    width: int
    frames: Sequence[float]
    loaded: int
    before: ViewerState
    after: ViewerState

    @property
    def intervals(self) -> list[float]:
        """Milliseconds between frames."""
        return [after - before for before, after in pairwise(self.frames)]


# In the browser.


def open_viewer(editor: Editor, width: int) -> None:
    """Opens the comparison in the full window, with cells of the given width."""
    editor.open()
    editor.load(EMPTY)
    number = editor.add("Likeness_ContactSheet", NODE)
    editor.zoom_to(editor.box(number), INSET, 1)
    editor.pin(number, "comparison", NAME)
    editor.page.locator(".lk-comparison:visible").get_by_role("button", name="Open").click()
    editor.page.get_by_label("Size of the images").fill(str(width))
    editor.page.locator("dialog .lk-cell img").first.wait_for()
    editor.wait_until_loaded()


def viewer_state(editor: Editor) -> ViewerState:
    """The viewer's current state."""
    shown = editor.page.locator(f"{GRID} img").count()
    return ViewerState(shown, heap(editor.page), decoded(editor.page))


def wheel_down(editor: Editor) -> tuple[list[float], int]:
    """Scrolls to the end of the grid; returns frame times and the number of images seen."""
    page, grid = editor.page, editor.page.locator(GRID)
    grid.hover()
    notches = math.ceil(grid.evaluate(SCROLL_RANGE) / NOTCH)
    grid.evaluate(START)
    for _ in range(notches):
        page.mouse.wheel(0, NOTCH)
        page.wait_for_timeout(NOTCH_MS)
    page.wait_for_function(ENDED, arg=GRID)
    times, images = page.evaluate(STOP)
    return times, images


def scroll(address: str, width: int) -> tuple[Scroll, str]:
    """One scroll in a new Chromium, and its version."""
    with open_tab(address) as editor:
        open_viewer(editor, width)
        before = viewer_state(editor)
        frames, loaded = wheel_down(editor)
        editor.wait_until_loaded()
        return Scroll(width, frames, loaded, before, viewer_state(editor)), version(editor.page)


# The table.


def table(scrolls: Sequence[Scroll]) -> str:
    """A row per cell width: frame times of all rounds, and medians of the rest."""
    head = ("width of a cell", "times", "frames", "frame, ms: median", "95th percentile", "worst")
    head += ("images loaded", "in the document", "JS heap, MB", "decoded images, MB")
    rows = []
    for width in dict.fromkeys(one.width for one in scrolls):
        same = [one for one in scrolls if one.width == width]
        times = [time for one in same for time in one.intervals]
        figures = [f"{value:.1f}" for value in (*median_and_p95(times), max(times))]
        first = statistics.median(one.before.shown for one in same)
        loaded = f"{first:.0f}, then {statistics.median(one.loaded for one in same):.0f}"
        sides = [change(same, "shown", 1, 0)]
        sides += [change(same, part, 1e6, 1) for part in ("heap", "decoded")]
        rows.append([str(width), str(len(same)), str(len(times)), *figures, loaded, *sides])
    return markdown(head, rows)


def median_and_p95(times: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]


def change(scrolls: Sequence[Scroll], part: str, unit: float, digits: int) -> str:
    """Medians before and after, as ``32, then 88``."""
    looks: list[Any] = [[one.before for one in scrolls], [one.after for one in scrolls]]
    values = [statistics.median(getattr(one, part) / unit for one in side) for side in looks]
    return ", then ".join(f"{value:.{digits}f}" for value in values)


def measure(args: argparse.Namespace, folder: Path) -> str:
    """The table, with a description of the images."""
    home = folder / "home"
    write_comparison(home / "output", NAME, ROWS, COLUMNS, draw)
    scrolls = []
    with running_server(home) as server:
        for _ in range(args.rounds):
            for width in WIDTHS:
                done, chromium = scroll(server.address, width)
                scrolls.append(done)
                print(f"{width}: {len(done.frames)} frames", flush=True)
    about = f"{len(ROWS)} x {len(COLUMNS)} images of {IMAGE[0]} x {IMAGE[1]} pixels; "
    return f"{about}{chromium}.\n\n{table(scrolls)}"


def draw(row: int, column: int) -> Image.Image:
    """A distinct image for each cell."""
    shade = Image.linear_gradient("L").resize(IMAGE)
    levels = [Image.new("L", IMAGE, value) for value in (30 * row, 20 * column)]
    return Image.merge("RGB", (shade, *levels))


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks viewer")
    parser.add_argument("--rounds", type=int, default=5, help="scrolls per width, alternating")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    args = parser.parse_args(arguments)
    args.section = "viewer"
    with tempfile.TemporaryDirectory() as folder:
        publish(args, f"{machine(cpu=True)}\n\n{measure(args, Path(folder))}")
