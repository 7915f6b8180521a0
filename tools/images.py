"""Takes the screenshots for README, docs and help pages from a running ComfyUI.

    python -m tools.images

Starts a ComfyUI with the current checkout; needs Playwright and Chromium. Trains and draws with the
miniature, which takes some minutes on a CPU. Without trained weights in `demo/weights`, skips the
screenshots that show drawn people, and lists them.
"""

from __future__ import annotations

import io
import re
import runpy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .comfyui import ROOT, Server, miniature_pack
from .editor import EMPTY, PACK, Editor, open_browser
from .reduced_workflow import load_reduced

if TYPE_CHECKING:
    from playwright.sync_api import ElementHandle, Locator

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

DOCS = ROOT / "docs" / "images"
HELP = ROOT / "js" / "docs" / "images"
SIZE = {"width": 1500, "height": 1250}
GRID_SIZE = {"width": 1180, "height": 1020}  # four rows of six images
PAIR_SIZE = {"width": 1000, "height": 600}
INSET = 110  # pixels covered by ComfyUI's bars on each side
MARGIN, BADGE = 10, 18  # pixels around a node, and above it for the pack's badge
MAX_BYTES, MAX_ANIMATION_BYTES = 200_000, 1_000_000
FRAMES, FRAME_WIDTH, FRAME_MS = 40, 460, 160
STEPS = 250  # per training
WAIT = 3_600_000  # ms, per training or comparison; generous, for busy machines

PHOTOS, SUBJECT_SIZE = "my_photos", (380, 640)
RUNNING = """
() => app.graph.nodes.find((node) => node.widgets?.some((widget) => widget.element
    ?.querySelector('.lk-training[data-status=running] .lk-chart:not([hidden])')))?.id
"""
TRAINED = ("Train lora-r1", "Train lora-r8")
ROWS = "base\nlora-r1 = adapter_3\nlora-r8 = adapter_5"
NODES = ("SavePhotographs", "Subject", "ClassImages", "TrainOptions", "TrainLoRA")
NODES += ("TrainDreamBooth", "LoadAdapter")
NODES += ("PromptSet", "PoseSet", "DetectPose", "Matrix", "ContactSheet", "Score")


def save(image: Image.Image, path: Path) -> None:
    """Writes a JPEG of at most 200 kB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(90, 40, -5):
        image.convert("RGB").save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            return
    raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")


def decode_screenshot(shot: bytes) -> Image.Image:
    """Decodes a screenshot to RGB."""
    return Image.open(io.BytesIO(shot)).convert("RGB")


def screenshot_node(editor: Editor, number: int, *, moving: bool = False) -> Image.Image:
    """A screenshot of a node, at most at its own size; `moving` does not wait for images."""
    editor.zoom_to(editor.box(number), INSET, 1)
    if not moving:
        editor.wait_until_loaded()
    left, top, right, bottom = editor.screen_box(number)
    place = {"x": left - MARGIN, "y": top - BADGE}
    size = {"width": right - left + 2 * MARGIN, "height": bottom - top + BADGE + MARGIN}
    return decode_screenshot(editor.page.screenshot(clip={**place, **size}))


def draw_templates(editor: Editor) -> None:
    """Takes a screenshot of the template browser with this pack's workflows."""
    editor.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = editor.page.get_by_role("dialog")
    dialog.get_by_text(PACK).first.click()
    dialog.get_by_text("miniature", exact=True).first.wait_for()
    dialog.locator("img").first.wait_for()
    editor.wait_until_loaded()
    save(decode_screenshot(dialog.screenshot()), DOCS / "templates.jpg")
    editor.page.keyboard.press("Escape")


def start(editor: Editor) -> None:
    """Queues two trainings and a comparison of their adapters."""
    few = {"count": 20, "steps": 10}
    train = {"preview_every": 25, "steps": STEPS}
    load_reduced(
        editor,
        TRAINED,
        Likeness_Subject={"resolution": 128},
        Likeness_ClassImages=few,
        Likeness_TrainLoRA=train,
        Likeness_Matrix={"adapters": ROWS, "with_pose": "both", "pose_rows": "lora-r8"},
        Likeness_ContactSheet={"name": "people"},
        KSampler={"steps": 25},
    )
    editor.queue()


def draw_training(editor: Editor) -> None:
    """Captures the training panel halfway through a training, and as an animation."""
    found = editor.page.wait_for_function(RUNNING, timeout=WAIT, polling=500)
    number = found.json_value()  # either training: ComfyUI decides which runs first
    editor.zoom_to(editor.box(number), INSET, 1)
    panel = editor.page.locator(".lk-training[data-status=running]").element_handle()
    frames, middle, last = [], None, -1
    while panel.get_attribute("data-status") == "running":
        if (step := step_of(panel)) >= last + STEPS // FRAMES:
            frames.append(decode_screenshot(panel.screenshot()))
            last = step
        if middle is None and len(panel.query_selector_all("[aria-label=Previews] img")) >= 6:
            middle = screenshot_node(editor, number, moving=True)
        editor.page.wait_for_timeout(300)
    frames.append(decode_screenshot(panel.screenshot()))
    save(middle or screenshot_node(editor, number), DOCS / "training.jpg")
    save_animation(frames, DOCS / "training.webp")


def step_of(panel: ElementHandle) -> int:
    """The step that a training panel shows."""
    count = panel.query_selector(".lk-count").inner_text()
    return int(count.split()[0].replace(",", ""))


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """Writes some of the frames as an animated WebP of at most 1 MB; the last one lasts longer."""
    chosen = [frames[number] for number in spread(len(frames), FRAMES)]
    size = max(frame.width for frame in chosen), max(frame.height for frame in chosen)
    height = round(size[1] * FRAME_WIDTH / size[0])
    images = []
    for frame in chosen:  # the panel grows when previews appear
        whole = Image.new("RGB", size, frame.getpixel((0, 0)))
        whole.paste(frame)
        images.append(whole.resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS))
    durations = [FRAME_MS] * (len(images) - 1) + [2000]
    first, *others = images
    for quality in range(80, 20, -10):
        first.save(
            path, save_all=True, append_images=others, duration=durations, loop=0, quality=quality
        )
        if path.stat().st_size <= MAX_ANIMATION_BYTES:
            return
    raise ValueError(f"{path} is larger than {MAX_ANIMATION_BYTES} bytes")


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` evenly spaced numbers below `count`, including the first and the last."""
    wanted = min(count, wanted)
    return [round(number * (count - 1) / max(1, wanted - 1)) for number in range(wanted)]


def finish(editor: Editor) -> Locator:
    """Waits for the comparison; returns its panel."""
    editor.zoom_to(editor.box(editor.find_node_id("Likeness_ContactSheet")), INSET, 1)
    panel = editor.page.locator(".lk-comparison:visible").first
    panel.locator(".lk-count", has_text=re.compile("^24 images")).wait_for(timeout=WAIT)
    while editor.left():  # the scores come last
        editor.page.wait_for_timeout(1000)
    return panel


def draw_comparison(editor: Editor, panel: Locator) -> None:
    """Captures the viewer: its grid with a score, and two images with the slider."""
    editor.page.set_viewport_size(GRID_SIZE)
    panel.get_by_role("button", name="Open").click()
    viewer = editor.page.locator("dialog.lk-viewer")
    scores = viewer.get_by_label("Score shown in the cells")
    scores.select_option(index=1)  # waits until they are read
    editor.wait_until_loaded()
    save(decode_screenshot(viewer.screenshot()), DOCS / "comparison.jpg")
    editor.page.set_viewport_size(PAIR_SIZE)
    viewer.locator("[data-index='0']").click(modifiers=["Shift"])
    viewer.locator("[data-index='12']").click()
    editor.wait_until_loaded()
    save(decode_screenshot(viewer.screenshot()), DOCS / "slider.jpg")
    editor.page.keyboard.press("Escape")
    editor.page.keyboard.press("Escape")
    editor.page.keyboard.press("Escape")
    editor.page.set_viewport_size(SIZE)


def write_photographs(folder: Path) -> None:
    """Writes enlarged drawings of `demo/subject`, alternately tall and wide so that they crop."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((ROOT / "demo" / "subject").glob("*.png"))):
        with Image.open(path) as drawing:
            side, less = drawing.width, drawing.width // 8
            box = (0, less, side, side - less) if number % 2 else (less, 0, side - less, side)
            part = drawing.crop(box)
        part.resize((3 * part.width, 3 * part.height)).save(folder / path.name)


def draw_panels(editor: Editor) -> None:
    """Captures the pose panel, and the subject panel with its crops."""
    number = editor.find_node_id("Likeness_PoseSet")
    save(screenshot_node(editor, number), DOCS / "poses.jpg")
    editor.load(EMPTY)
    number = editor.add("Likeness_Subject", SUBJECT_SIZE)
    editor.set_widgets("Likeness_Subject", folder=PHOTOS)
    editor.zoom_to(editor.box(number), INSET, 1)
    panel = editor.page.locator(".lk-subject:visible").first
    panel.get_by_title(re.compile(r"\b768\b")).first.wait_for()  # the folder was read
    panel.get_by_text("Uncropped").click()
    save(screenshot_node(editor, number), DOCS / "subject.jpg")


def draw_nodes(editor: Editor) -> None:
    """Captures each node for its help page."""
    for name in NODES:
        editor.load(EMPTY)
        number = editor.add(f"Likeness_{name}")
        if name == "Subject":
            editor.set_widgets("Likeness_Subject", folder=PHOTOS)
            editor.page.locator(".lk-photo img").first.wait_for()  # the folder was read
        editor.page.wait_for_timeout(800)
        save(screenshot_node(editor, number), HELP / f"{name}.jpg")


def draw_all(editor: Editor, trained: bool) -> None:
    """Takes all screenshots; those of drawn people only if the miniature is trained."""
    draw_templates(editor)
    start(editor)
    draw_training(editor)
    panel = finish(editor)
    if trained:
        draw_comparison(editor, panel)
    else:
        print("The miniature is not trained: skipping comparison.jpg and slider.jpg.")
    draw_panels(editor)
    draw_nodes(editor)


def main() -> None:
    """Starts a ComfyUI and takes all screenshots."""
    from likeness.demo import weights

    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        home = Path(folder, "home")
        write_photographs(home / "input" / PHOTOS)
        server = Server(home, miniature_pack(home, Path(folder, "pack", PACK)))
        try:
            editor = Editor(browser.new_page(viewport=SIZE), server.address)
            editor.open()
            draw_all(editor, weights.available())
        finally:
            server.stop()


if __name__ == "__main__":
    main()
