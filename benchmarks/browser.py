"""Opens ComfyUI's editor in Chromium and measures the tab's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from likeness.tools.editor import Editor, open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = {"width": 1280, "height": 800}
INSET = 110  # pixels covered by ComfyUI's bars on each side
WAIT = 90_000  # ms
DECODED = "cc/image_memory"  # Chromium's allocator for decoded images

Dump = Sequence[dict[str, Any]]  # Chromium's trace events


@contextmanager
def open_tab(address: str) -> Iterator[Editor]:
    """The editor of the server at `address` in a new Chromium; its page is still blank."""
    with open_browser() as browser:
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(WAIT)
        yield Editor(page, address)


def version(page: Page) -> str:
    """Description of the browser for the report."""
    browser = page.context.browser
    return f"Chromium {browser.version}, headless, {SIZE['width']} x {SIZE['height']}"


def heap(page: Page) -> float:
    """Size of the page's JavaScript heap after garbage collection, in bytes."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize")


def decoded(page: Page) -> int:
    """Size of decoded images in all of Chromium's processes, in bytes."""
    session, dump, ended = page.context.browser.new_browser_cdp_session(), [], []
    session.on("Tracing.dataCollected", lambda part: dump.extend(part["value"]))
    session.on("Tracing.tracingComplete", lambda told: ended.append(told))
    categories = ["disabled-by-default-memory-infra"]
    asked = {"includedCategories": categories, "memoryDumpConfig": {"triggers": []}}
    session.send("Tracing.start", {"traceConfig": asked, "transferMode": "ReportEvents"})
    session.send("Tracing.requestMemoryDump", {"levelOfDetail": "detailed"})
    session.send("Tracing.end")
    while not ended:
        page.wait_for_timeout(100)
    session.detach()
    return allocated(dump, DECODED)


def allocated(dump: Dump, name: str) -> int:
    """Total size of one allocator over all processes of a memory dump, in bytes."""
    parts = [event.get("args", {}).get("dumps", {}).get("allocators", {}) for event in dump]
    sizes = [part[name].get("attrs", {}).get("size") for part in parts if name in part]
    return sum(int(size["value"], 16) for size in sizes if size)
