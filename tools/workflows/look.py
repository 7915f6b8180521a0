"""Shows the bundled workflows in ComfyUI's own editor, and draws their thumbnails.

    python -m tools.workflows.look http://127.0.0.1:8188 [NAME …]

Needs a running ComfyUI with this pack, and Playwright with Chromium (`CHROMIUM` names another
one). Says which nodes overlap or are larger than the file says, and whether the editor would save
other values; then writes `workflows/<name>.jpg`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from PIL import Image
from playwright.sync_api import Page as Browser
from playwright.sync_api import sync_playwright

from .graph import ROOT
from .layout import TITLE

WIDTH = 1200  # of a thumbnail
SCALE = 0.75  # of the canvas while it is photographed: letters are still drawn
MARGIN = 40

READY = "window.app && window.app.graph && window.app.canvas && window.app.extensionManager"
HIDE = """
    #graph-canvas-container > *:not(canvas):not(.isolate), .no-drag, .p-toast
    { opacity: 0 !important }
"""
LOAD = """
async (graph) => {
    await window.app.loadGraphData(graph)
    await new Promise(done => setTimeout(done, 1500))
    return window.app.graph.serialize()
}
"""
VIEW = """
([x, y, scale]) => {
    const canvas = window.app.canvas
    canvas.show_info = false
    canvas.ds.scale = scale
    canvas.ds.offset = [-x, -y]
    canvas.deselectAll?.()
    canvas.setDirty(true, true)
}
"""


def bounds(graph: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of all nodes and groups, titles included."""
    boxes = [box_of(node) for node in graph["nodes"]]
    for group in graph["groups"]:
        x, y, width, height = group["bounding"]
        boxes.append((x, y, x + width, y + height))
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def box_of(node: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a node, its title included."""
    x, y = node["pos"]
    width, height = node["size"]
    return x, y - TITLE, x + width, y + height


def complaints(stored: dict[str, Any], shown: dict[str, Any]) -> list[str]:
    """What the editor makes otherwise than it is stored, and which nodes overlap in it."""
    nodes = {node["id"]: node for node in shown["nodes"]}
    said = []
    for node in stored["nodes"]:
        seen = nodes[node["id"]]
        if node["widgets_values"] != (seen.get("widgets_values") or []):
            said.append(f"{node['type']}: {node['widgets_values']} {seen.get('widgets_values')}")
        if any(b > a + 1 for a, b in zip(node["size"], seen["size"], strict=True)):
            said.append(f"{node['type']} grows from {node['size']} to {seen['size']}")
    if len(stored["links"]) != len(shown["links"]):
        said.append(f"{len(stored['links'])} links become {len(shown['links'])}")
    boxes = [(node, box_of(node)) for node in shown["nodes"]]
    for number, (node, (left, top, right, bottom)) in enumerate(boxes):
        for other, box in boxes[number + 1 :]:
            if left < box[2] and box[0] < right and top < box[3] and box[1] < bottom:
                said.append(f"{node['type']} {node['id']} lies on {other['type']} {other['id']}")
    return said


def photograph(browser: Browser, graph: dict[str, Any]) -> Image.Image:
    """The whole graph as the editor shows it."""
    left, top, right, bottom = bounds(graph)
    size = [round(SCALE * (2 * MARGIN + side)) for side in (right - left, bottom - top)]
    browser.set_viewport_size({"width": size[0], "height": size[1]})
    browser.wait_for_timeout(500)
    browser.evaluate(VIEW, [left - MARGIN, top - MARGIN, SCALE])
    browser.wait_for_timeout(1500)
    return Image.open(io.BytesIO(browser.screenshot())).convert("RGB")


def main() -> None:
    """Looks at all workflows, or at those named."""
    address, *names = sys.argv[1:]
    paths = sorted((ROOT / "workflows").glob("*.json"))
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(address)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(3000)
        page.keyboard.press("Escape")
        page.add_style_tag(content=HIDE)
        for path in paths:
            if names and path.stem not in names:
                continue
            stored = json.loads(path.read_text(encoding="utf-8"))
            shown = page.evaluate(LOAD, stored)
            for complaint in complaints(stored, shown):
                print(f"{path.stem}: {complaint}")
            picture = photograph(page, shown)
            height = round(picture.height * WIDTH / picture.width)
            small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
            small.save(path.with_suffix(".jpg"), quality=82, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
