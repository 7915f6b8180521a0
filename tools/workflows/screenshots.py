"""Checks the bundled workflows in ComfyUI's editor, and takes screenshots of them.

    python -m tools.workflows.screenshots [NAME …]

Starts a ComfyUI with the current checkout; needs Playwright and Chromium. Reports nodes that
overlap, on the canvas or with Vue nodes, nodes that are larger than in the file, and values that
the editor would save differently; writes `docs/images/graphs/<name>.jpg`. Fails if the editor does
not know a node or does not draw it.
"""

from __future__ import annotations

import io
import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from ..comfyui import Server, miniature_pack
from ..editor import Box, Editor, bounding_box, open_browser
from .graph import ROOT
from .layout import TITLE
from .settings import OPENPOSE, SD15

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

IMAGES = ROOT / "docs" / "images" / "graphs"
WIDTH = 1200  # of a screenshot
SCALE = 0.75  # of the canvas for screenshots; text is still drawn
MARGIN = 40
ERROR_BAR = 30  # height below each Vue node that lacks a model
PHOTOS = "my_photos"  # the folder used in the workflows

HIDE = """
    #graph-canvas-container > *:not(canvas):not(.isolate), .no-drag, .p-toast
    { opacity: 0 !important }
"""
COLOURS = """
() => {
    const brush = document.createElement('canvas').getContext('2d')
    const hex = (colour) => { brush.fillStyle = colour; return brush.fillStyle }
    return Object.fromEntries(app.graph.nodes.map((node) => [node.id, hex(node.renderingColor)]))
}
"""


class NotDrawn(RuntimeError):
    """A node of a workflow is unknown to the editor, or not visible in the screenshot."""


def box_of(node: dict[str, Any]) -> Box:
    """A node's box, including its title."""
    x, y = node["pos"]
    width, height = node["size"]
    return x, y - TITLE, x + width, y + height


def bounds(graph: dict[str, Any]) -> Box:
    """The bounding box of all nodes and groups, with a margin."""
    groups = [group["bounding"] for group in graph["groups"]]
    boxes = [(x, y, x + width, y + height) for x, y, width, height in groups]
    return bounding_box([*map(box_of, graph["nodes"]), *boxes], MARGIN)


def find_differences(stored: dict[str, Any], shown: dict[str, Any]) -> list[str]:
    """Differences between the stored graph and the editor's, and overlapping nodes in it."""
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
    return [*said, *find_overlaps(shown)]


def find_overlaps(graph: dict[str, Any], below: int = 0) -> list[str]:
    """Nodes that overlap or extend beyond their group, with `below` added to their height."""
    boxes = [(f"{n['type']} {n['id']}", grown(box_of(n), below)) for n in graph["nodes"]]
    groups = []
    for group in graph["groups"]:
        x, y, width, height = group["bounding"]
        groups.append((f"the edge of {group['title']!r}", (x, y, x + width, y + height)))
    said = []
    for number, (name, box) in enumerate(boxes):
        said += [f"{name} lies on {other}" for other, at in boxes[number + 1 :] if overlap(box, at)]
        out = [edge for edge, at in groups if overlap(box, at) and bounding_box([box, at]) != at]
        said += [f"{name} lies on {edge}" for edge in out]
    return said


def grown(box: Box, below: int) -> Box:
    """A box extended downwards by `below`."""
    return *box[:3], box[3] + below


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def capture_graph(editor: Editor, graph: dict[str, Any]) -> Image.Image:
    """A screenshot of the whole graph in the editor. Raises NotDrawn."""
    left, top, right, bottom = box = bounds(graph)
    width, height = round(SCALE * (right - left)), round(SCALE * (bottom - top))
    editor.page.set_viewport_size({"width": width, "height": height})
    editor.page.wait_for_timeout(500)  # for the canvas to be resized
    editor.zoom_to(box)
    editor.wait_until_loaded()
    image = Image.open(io.BytesIO(editor.page.screenshot())).convert("RGB")
    check_drawn(image, box, graph, editor.page.evaluate(COLOURS))
    return image


def check_drawn(
    image: Image.Image, box: Box, graph: dict[str, Any], colours: dict[str, str]
) -> None:
    """Raises NotDrawn unless most of each node's title bar has the node's colour."""
    pixels = np.asarray(image).astype(int)
    scale = pixels.shape[1] / (box[2] - box[0])
    for node in graph["nodes"]:
        left, top, right, _ = box_of(node)
        place = np.array([left - box[0], top - box[1], right - box[0], top + TITLE - box[1]])
        x0, y0, x1, y1 = (place * scale + [4, 4, -4, -4]).astype(int)
        wanted = ImageColor.getrgb(colours[str(node["id"])])
        near = np.abs(pixels[y0:y1, x0:x1] - wanted).max(axis=2) < 12
        if not near.size or near.mean() < 0.5:
            name = node.get("title") or node["type"]
            raise NotDrawn(f"{name} ({node['id']}) is not visible in the screenshot")


def capture_workflow(editor: Editor, path: Path) -> None:
    """Writes the screenshot of a workflow's graph; prints its problems."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    editor.load(stored)
    if unknown := editor.unknown():
        raise NotDrawn(f"{path.stem}: the editor does not know {', '.join(unknown)}")
    editor.page.wait_for_timeout(500)  # for panels to set their height
    shown = editor.saved()
    for complaint in find_differences(stored, shown):
        print(f"{path.stem}: {complaint}")
    image = capture_graph(editor, shown)
    height = round(image.height * WIDTH / image.width)
    small = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.save(IMAGES / f"{path.stem}.jpg", quality=82, optimize=True)


def check_vue_nodes(editor: Editor, path: Path) -> None:
    """Prints overlaps with Vue nodes when every node has an error bar."""
    editor.load(json.loads(path.read_text(encoding="utf-8")))
    editor.zoom_to(bounds(editor.saved()))  # nodes out of view are not measured
    editor.page.wait_for_timeout(1500)
    for complaint in find_overlaps(editor.saved(), ERROR_BAR):
        print(f"{path.stem}, Vue nodes: {complaint}")


def write_placeholders(home: Path) -> None:
    """Writes empty files for the workflows' models, and enlarged drawings as photographs."""
    for model in (SD15, OPENPOSE):
        path = home / "models" / model.folder / model.name
        path.parent.mkdir(parents=True)
        path.touch()
    (home / "input" / PHOTOS).mkdir(parents=True)
    for path in (ROOT / "demo" / "subject").glob("*.png"):
        with Image.open(path) as drawing:
            drawing.resize((512, 512), Image.Resampling.LANCZOS).save(
                home / "input" / PHOTOS / path.name
            )


def main() -> None:
    """Checks all workflows, or the named ones."""
    names = sys.argv[1:] or ["*"]
    paths = sorted(p for name in names for p in (ROOT / "workflows").glob(f"{name}.json"))
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        home = Path(folder, "home")
        write_placeholders(home)
        server = Server(home, miniature_pack(home, Path(folder, "pack", "ComfyUI-Likeness")))
        try:
            for vue, look in ((False, capture_workflow), (True, check_vue_nodes)):
                editor = Editor(browser.new_page(), server.address)
                editor.open(Comfy__VueNodes__Enabled=vue)
                editor.page.add_style_tag(content=HIDE)
                for path in paths:
                    look(editor, path)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
