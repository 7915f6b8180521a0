"""Draws the pictures of README, docs and help pages, from a ComfyUI at work.

    python -m tools.pictures

Starts a ComfyUI with the pack as it is now; needs Playwright and Chromium. Trains and draws on the
miniature: some minutes on a CPU. Without trained weights in `demo/weights` the pictures that show
drawn people are left out, and named.
"""

from __future__ import annotations

import io
import runpy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .comfyui import ROOT, Server, miniature_pack
from .editor import EMPTY, PACK, Editor, open_browser
from .reduced import load_reduced

if TYPE_CHECKING:
    from playwright.sync_api import Locator

runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

DOCS = ROOT / "docs" / "images"
HELP = ROOT / "js" / "docs" / "images"
SIZE = {"width": 1500, "height": 1250}
INSET = 110  # pixels that ComfyUI's bars need on each side
MARGIN = 10
MOST_BYTES, MOST_FILM_BYTES = 200_000, 1_000_000
FRAMES, FRAME_WIDTH, FRAME_MS = 40, 460, 160
WAIT = 600_000  # ms, for a training and for a comparison

TRAINED = ("Train lora-r1", "Train lora-r8")
ROWS = "base\nlora-r1 = adapter_3\nlora-r8 = adapter_5"
NODES = ("Subject", "ClassImages", "TrainOptions", "TrainLoRA", "TrainDreamBooth", "LoadAdapter")
NODES += ("PromptSet", "PoseSet", "DetectPose", "Matrix", "ContactSheet", "Score")


def save(picture: Image.Image, path: Path) -> None:
    """Writes a JPEG of at most 200 kB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(90, 40, -5):
        picture.convert("RGB").save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(f"{path} is larger than {MOST_BYTES} bytes")


def picture_of(shot: bytes) -> Image.Image:
    """A screenshot as a picture."""
    return Image.open(io.BytesIO(shot)).convert("RGB")


def shoot_node(editor: Editor, number: int, *, moving: bool = False) -> Image.Image:
    """A node as large as the window allows, at most in its own size; `moving` never settles."""
    editor.look_at(editor.box(number), INSET, 1)
    if not moving:
        editor.settle()
    left, top, right, bottom = editor.on_screen(number)
    place = {"x": left - MARGIN, "y": top - MARGIN}
    size = {"width": right - left + 2 * MARGIN, "height": bottom - top + 2 * MARGIN}
    return picture_of(editor.page.screenshot(clip={**place, **size}))


def draw_templates(editor: Editor) -> None:
    """The template browser with this pack's workflows."""
    editor.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = editor.page.get_by_role("dialog")
    dialog.get_by_text(PACK).first.click()
    dialog.get_by_text("miniature", exact=True).first.wait_for()
    dialog.locator("img").first.wait_for()
    editor.page.wait_for_load_state("networkidle")
    editor.settle()
    save(picture_of(dialog.screenshot()), DOCS / "templates.jpg")
    editor.page.keyboard.press("Escape")


def start(editor: Editor) -> None:
    """Queues two trainings and a comparison of what they learned."""
    few = {"count": 20, "steps": 10}
    train = {"preview_every": 25, "steps": 250}
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
    """The training panel in the middle of its work, and as a film."""
    number = editor.number_of("Likeness_TrainLoRA")
    editor.look_at(editor.box(number), INSET, 1)
    panel = editor.page.locator(".lk-training:visible").first
    panel.locator(".lk-film img").first.wait_for(timeout=WAIT)
    frames, middle = [], None
    while panel.get_attribute("data-status") == "running":
        frames.append(picture_of(panel.screenshot()))
        if middle is None and panel.locator(".lk-film img").count() >= 6:
            middle = shoot_node(editor, number, moving=True)
        editor.page.wait_for_timeout(300)
    frames.append(picture_of(panel.screenshot()))
    save(middle or shoot_node(editor, number), DOCS / "training.jpg")
    save_film(frames, DOCS / "training.webp")


def save_film(frames: Sequence[Image.Image], path: Path) -> None:
    """Writes some of the frames as an animated WebP of at most 1 MB; the last one stays longer."""
    chosen = [frames[number] for number in spread(len(frames), FRAMES)]
    size = max(frame.width for frame in chosen), max(frame.height for frame in chosen)
    height = round(size[1] * FRAME_WIDTH / size[0])
    pictures = []
    for frame in chosen:  # the panel grows when previews come
        whole = Image.new("RGB", size, frame.getpixel((0, 0)))
        whole.paste(frame)
        pictures.append(whole.resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS))
    durations = [FRAME_MS] * (len(pictures) - 1) + [2000]
    first, *others = pictures
    for quality in range(80, 20, -10):
        first.save(
            path, save_all=True, append_images=others, duration=durations, loop=0, quality=quality
        )
        if path.stat().st_size <= MOST_FILM_BYTES:
            return
    raise ValueError(f"{path} is larger than {MOST_FILM_BYTES} bytes")


def spread(count: int, wanted: int) -> list[int]:
    """At most so many numbers below `count`, evenly spread, the first and the last among them."""
    wanted = min(count, wanted)
    return [round(number * (count - 1) / max(1, wanted - 1)) for number in range(wanted)]


def finish(editor: Editor) -> Locator:
    """Waits for the comparison; returns its panel."""
    editor.look_at(editor.box(editor.number_of("Likeness_ContactSheet")), INSET, 1)
    panel = editor.page.locator(".lk-comparison:visible").first
    panel.locator(".lk-count", has_text="24 ").wait_for(timeout=WAIT)
    idle = "async () => (await (await fetch('/prompt')).json()).exec_info.queue_remaining === 0"
    editor.page.wait_for_function(idle, timeout=WAIT, polling=1000)
    return panel


def draw_comparison(editor: Editor, panel: Locator) -> None:
    """The viewer: its grid with a score, and two pictures with the divider."""
    editor.page.set_viewport_size({"width": 1280, "height": 760})
    panel.get_by_role("button", name="Open").click()
    viewer = editor.page.locator("dialog.lk-viewer")
    scores = viewer.get_by_label("Score shown in the cells")
    if scores.is_visible():
        scores.select_option(index=1)
    editor.settle()
    save(picture_of(viewer.screenshot()), DOCS / "comparison.jpg")
    viewer.locator("[data-index='0']").click(modifiers=["Shift"])
    viewer.locator("[data-index='12']").click()
    editor.settle()
    save(picture_of(viewer.screenshot()), DOCS / "slider.jpg")
    editor.page.keyboard.press("Escape")
    editor.page.keyboard.press("Escape")
    editor.page.keyboard.press("Escape")
    editor.page.set_viewport_size(SIZE)


def draw_panels(editor: Editor) -> None:
    """The photographs with their crops, and the poses with the prompts that got them."""
    number = editor.number_of("Likeness_PoseSet")
    save(shoot_node(editor, number), DOCS / "poses.jpg")
    number = editor.number_of("Likeness_Subject")
    editor.look_at(editor.box(number), INSET, 1)
    editor.page.locator(".lk-subject:visible").first.get_by_text("Show crops").click()
    save(shoot_node(editor, number), DOCS / "subject.jpg")


def draw_nodes(editor: Editor) -> None:
    """Each node alone, for its help page."""
    for name in NODES:
        editor.load(EMPTY)
        number = editor.add(f"Likeness_{name}")
        editor.page.wait_for_timeout(800)  # the subject panel reads its folder
        save(shoot_node(editor, number), HELP / f"{name}.jpg")


def draw_all(editor: Editor, trained: bool) -> None:
    """All pictures; those of drawn people only where the miniature is trained."""
    draw_templates(editor)
    start(editor)
    draw_training(editor)
    panel = finish(editor)
    if trained:
        draw_comparison(editor, panel)
    else:
        print("The miniature is not trained: comparison.jpg and slider.jpg are left out.")
    draw_panels(editor)
    draw_nodes(editor)


def main() -> None:
    """Draws them from a ComfyUI of its own."""
    from likeness.demo import weights

    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        home = Path(folder, "home")
        server = Server(home, miniature_pack(home, Path(folder, "pack", PACK)))
        try:
            editor = Editor(browser.new_page(viewport=SIZE), server.address)
            editor.open()
            draw_all(editor, weights.available())
        finally:
            server.stop()


if __name__ == "__main__":
    main()
