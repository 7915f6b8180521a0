"""Drives ComfyUI's editor in a browser with Playwright, for tests and screenshots."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

PACK = "ComfyUI-Likeness"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the template browser opens on first start
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.ColorPalette": "dark",
    "Comfy.VueNodes.Enabled": False,
}
EMPTY: dict[str, Any] = {
    "nodes": [],
    "links": [],
    "groups": [],
    "last_node_id": 0,
    "last_link_id": 0,
    "config": {},
    "extra": {},
    "version": 0.4,
}

LOAD_TIMEOUT_MS = 120_000  # generous, for busy machines

READY = """
window.app?.vueAppReady && !app.configuringGraph
    && app.extensionManager.workflow.activeWorkflow !== null
"""
LOAD = "async (graph) => { await app.loadGraphData(graph); return app.graph.serialize() }"
UNKNOWN = """
() => app.graph.nodes.map((node) => node.type)
    .filter((type) => !(type in LiteGraph.registered_node_types))
"""
BOX = """
(number) => {
    const { pos: [x, y], size: [width, height] } = app.graph.getNodeById(number)
    return [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height]
}
"""
ADD = """
([type, size]) => {
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    if (size) node.setSize(size)
    return node.id
}
"""
SCREEN_BOX = """
(number) => {
    const element = document.querySelector(`[data-node-id="${number}"]`)  // Vue renderer
    if (element) {
        const { left, top, right, bottom } = element.getBoundingClientRect()
        return [left, top, right, bottom]
    }
    const { pos: [x, y], size: [width, height] } = app.graph.getNodeById(number)
    const { scale, offset } = app.canvas.ds
    const at = (place, shift) => scale * (place + shift)
    return [
        at(x, offset[0]),
        at(y - LiteGraph.NODE_TITLE_HEIGHT, offset[1]),
        at(x + width, offset[0]),
        at(y + height, offset[1]),
    ]
}
"""
# Hidden and off-screen images load lazily: the editor hides the panels of nodes out of view, and a
# hidden image has an empty box at 0, 0.
PENDING_IMAGES = """
() => [...document.images].filter((image) => {
    const { left, top, right, bottom } = image.getBoundingClientRect()
    const away = right < 0 || bottom < 0 || left > innerWidth || top > innerHeight
    return !image.complete && !away && image.checkVisibility()
}).map((image) => image.src)
"""
LOADED = f"""
() => [...document.querySelectorAll('.lk-photos')]
        .every((photos) => photos.childElementCount || !photos.checkVisibility())
    && !({PENDING_IMAGES})().length
"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
NUMBER = "(type) => app.graph.nodes.find((node) => node.type === type)?.id"
ZOOM_TO = """
([[left, top, right, bottom], inset, most]) => {
    const { ds, canvas } = app.canvas
    const [width, height] = [canvas.clientWidth, canvas.clientHeight]
    const across = (width - 2 * inset) / (right - left)
    const down = (height - 2 * inset) / (bottom - top)
    ds.scale = Math.min(across, down, most)
    ds.offset[0] = (width / ds.scale - left - right) / 2
    ds.offset[1] = (height / ds.scale - top - bottom) / 2
    app.canvas.deselectAll()
    app.canvas.setDirty(true, true)
}
"""
SET_WIDGETS = """
([type, values]) => {
    for (const node of app.graph.nodes.filter((one) => one.type === type))
        for (const [name, value] of Object.entries(values)) {
            const widget = node.widgets.find((one) => one.name === name)
            if (!widget) throw new Error(`${type} has no widget ${name}`)
            widget.value = value
            widget.callback?.(value)
        }
}
"""
DISPATCH_EVENT = """
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


class NotLoaded(RuntimeError):
    """An image in view did not load in time."""


class BrowserNotFound(RuntimeError):
    """Playwright or Chromium is not installed."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium: the one in CHROMIUM, else on the PATH, else Playwright's.

    Raises BrowserNotFound.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise BrowserNotFound("Playwright is not installed: pip install playwright") from None
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            reason = str(error).strip().splitlines()[0]
            raise BrowserNotFound(f"no Chromium, set CHROMIUM to one: {reason}") from None
        yield browser
        browser.close()


class Editor:
    """A browser tab with ComfyUI's editor.

    `errors` are the browser's console errors about this pack's files; `messages` holds (seconds,
    kind) of each message from the server.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        self.messages: list[tuple[float, str]] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        page.on("websocket", lambda socket: socket.on("framereceived", self._on_frame))

    def open(self, **settings: Any) -> None:
        """Opens the page with these ComfyUI settings; `__` in a name stands for a dot."""
        named = {name.replace("__", "."): value for name, value in settings.items()}
        self.page.request.post(f"{self.address}/api/settings", data={**SETTINGS, **named})
        self.page.goto(self.address)
        self.wait_until_ready()

    def reload(self) -> None:
        """Reloads the page, as F5 does."""
        self.page.reload()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Waits until the editor has loaded its graph."""
        self.page.wait_for_function(READY, timeout=300_000)

    def load(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Loads a workflow; returns it as the editor would save it."""
        return self.page.evaluate(LOAD, graph)

    def saved(self) -> dict[str, Any]:
        """The workflow as the editor would save it."""
        return self.page.evaluate("() => app.graph.serialize()")

    def unknown(self) -> list[str]:
        """Node types in the graph that the editor does not know."""
        return self.page.evaluate(UNKNOWN)

    def add(self, kind: str, size: tuple[int, int] | None = None) -> int:
        """Adds a node of a type; returns its id."""
        return self.page.evaluate(ADD, [kind, size])

    def find_node_id(self, kind: str) -> int:
        """The id of the first node of a type; waits until there is one."""
        return self.page.wait_for_function(NUMBER, arg=kind).json_value()

    def set_widgets(self, kind: str, **values: Any) -> None:
        """Sets widgets of all nodes of a type, as a user would."""
        self.page.evaluate(SET_WIDGETS, [kind, values])

    def box(self, number: int) -> Box:
        """A node's box on the canvas, including its title."""
        return tuple(self.page.evaluate(BOX, number))

    def screen_box(self, number: int) -> Box:
        """A node's box in window pixels, including its title."""
        return tuple(self.page.evaluate(SCREEN_BOX, number))

    def wait_until_loaded(self) -> None:
        """Waits until all images in view are loaded and drawn. Raises NotLoaded."""
        from playwright.sync_api import TimeoutError

        try:
            self.page.wait_for_function(LOADED, timeout=LOAD_TIMEOUT_MS)
        except TimeoutError:
            missing = self.page.evaluate(PENDING_IMAGES)
            raise NotLoaded(f"still not loaded: {', '.join(missing) or 'photographs'}") from None
        self.page.evaluate(TWO_FRAMES)

    def zoom_to(self, box: Box, inset: float = 0, max_scale: float = 10) -> None:
        """Fits a part of the graph into the view, at most `max_scale` times its size.

        `inset` pixels are kept free on each side for the editor's bars.
        """
        self.page.evaluate(ZOOM_TO, [list(box), inset, max_scale])

    def queue(self) -> None:
        """Queues the graph."""
        self.page.evaluate("() => app.queuePrompt(0, 1)")

    def left(self) -> int:
        """The number of unfinished prompts in the queue."""
        answer = self.page.request.get(f"{self.address}/prompt").json()
        return answer["exec_info"]["queue_remaining"]

    def tell(self, kind: str, detail: dict[str, Any]) -> None:
        """Dispatches a message in the page as if the server had sent it."""
        self.page.evaluate(DISPATCH_EVENT, [kind, detail])

    def pin(self, number: int, kind: str, value: Any) -> None:
        """Sends the page a node's state, as `nodes.node_state` does."""
        board = {"workflow": "", "node": str(number), "kind": kind, "value": value}
        self.tell("likeness.board", board)

    def drop(self, query: str, name: str) -> None:
        """Drops the file that the server returns for `query` on the canvas."""
        self.page.evaluate(DROP, [self.address + query, name])

    def _on_console(self, message: ConsoleMessage) -> None:
        place = message.location.get("url", "")
        about = "ikeness" in place or "ikeness" in message.text
        if message.type == "error" and about:
            self.errors.append(f"{message.text} ({place})")

    def _on_frame(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self.messages.append((time.monotonic(), json.loads(frame).get("type", "")))


def bounding_box(boxes: Sequence[Box], margin: float = 0) -> Box:
    """The bounding box of all boxes, enlarged by a margin."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts) - margin, min(tops) - margin, max(rights) + margin, max(bottoms) + margin
