"""ComfyUI's editor in a browser, driven by Playwright: for tests, thumbnails and screenshots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

PACK = "ComfyUI-Likeness"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # or the template browser opens at the first start
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}

READY = """
window.app?.vueAppReady && !app.configuringGraph
    && app.extensionManager.workflow.activeWorkflow !== null
"""
LOAD = "async (graph) => { await app.loadGraphData(graph); return app.graph.serialize() }"
UNKNOWN = """
() => app.graph.nodes.map((node) => node.type)
    .filter((type) => !(type in LiteGraph.registered_node_types))
"""
LOOK_AT = """
([left, top, right, bottom]) => {
    const { ds, canvas } = app.canvas
    const space = [canvas.clientWidth, canvas.clientHeight]
    ds.scale = Math.min(space[0] / (right - left), space[1] / (bottom - top))
    ds.offset[0] = (space[0] / ds.scale - left - right) / 2
    ds.offset[1] = (space[1] / ds.scale - top - bottom) / 2
    app.canvas.deselectAll()
    app.canvas.setDirty(true, true)
}
"""
SET_WIDGETS = """
([number, values]) => {
    const node = app.graph.getNodeById(number)
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find((one) => one.name === name)
        if (!widget) throw new Error(`${node.type} has no widget ${name}`)
        widget.value = value
        widget.callback?.(value)
    }
}
"""
TELL = """
([kind, detail]) => app.api.dispatchEvent(new CustomEvent(kind, { detail }))
"""
DROP = """
async ([address, name]) => {
    const blob = await (await fetch(address)).blob()
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([blob], name, { type: blob.type }))
    const canvas = document.querySelector('#graph-canvas')
    const place = { clientX: 400, clientY: 300, bubbles: true, cancelable: true }
    for (const kind of ['dragover', 'drop'])
        canvas.dispatchEvent(new DragEvent(kind, { ...place, dataTransfer }))
}
"""

Box = tuple[float, float, float, float]  # left, top, right, bottom


class NoBrowser(RuntimeError):
    """Playwright or Chromium is not installed."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium: of CHROMIUM, else one on the PATH, else Playwright's own.

    Raises NoBrowser.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise NoBrowser("Playwright is not installed: pip install playwright") from None
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            reason = str(error).strip().splitlines()[0]
            raise NoBrowser(f"no Chromium, name one in CHROMIUM: {reason}") from None
        yield browser
        browser.close()


class Editor:
    """One tab with ComfyUI's editor.

    `errors` are the lines of the browser's console that are about files of this pack.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))

    def open(self, **settings: Any) -> None:
        """Opens the page with these settings of ComfyUI, dots written as `__`."""
        named = {name.replace("__", "."): value for name, value in settings.items()}
        self.page.request.post(f"{self.address}/api/settings", data={**SETTINGS, **named})
        self.page.goto(self.address)
        self.ready()

    def reload(self) -> None:
        """Reloads the page, as F5 does."""
        self.page.reload()
        self.ready()

    def ready(self) -> None:
        """Waits until the editor has its graph."""
        self.page.wait_for_function(READY, timeout=90_000)

    def load(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Loads a workflow; returns it as the editor would save it."""
        return self.page.evaluate(LOAD, graph)

    def saved(self) -> dict[str, Any]:
        """The workflow as the editor would save it."""
        return self.page.evaluate("() => app.graph.serialize()")

    def unknown(self) -> list[str]:
        """Types of the graph's nodes that the editor does not know."""
        return self.page.evaluate(UNKNOWN)

    def set_widgets(self, number: int, **values: Any) -> None:
        """Sets widgets of a node as a user does."""
        self.page.evaluate(SET_WIDGETS, [number, values])

    def look_at(self, box: Box) -> None:
        """Shows a part of the graph as large as it fits."""
        self.page.evaluate(LOOK_AT, list(box))

    def queue(self) -> None:
        """Queues the graph."""
        self.page.evaluate("() => app.queuePrompt(0, 1)")

    def tell(self, kind: str, detail: dict[str, Any]) -> None:
        """Gives the page a message as if the server had sent it."""
        self.page.evaluate(TELL, [kind, detail])

    def drop(self, query: str, name: str) -> None:
        """Drops a file that the server has at `query` on the canvas."""
        self.page.evaluate(DROP, [self.address + query, name])

    def _hear(self, message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        about = "ikeness" in place or "ikeness" in message.text
        if message.type == "error" and about:
            self.errors.append(f"{message.text} ({place})")


def around(boxes: Sequence[Box], margin: float = 0) -> Box:
    """The box around all boxes, larger by a margin."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts) - margin, min(tops) - margin, max(rights) + margin, max(bottoms) + margin
