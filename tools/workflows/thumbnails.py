"""Draws the thumbnails of the bundled workflows from the images of `make demo`.

    python -m tools.workflows.thumbnails [OUTPUT]

OUTPUT is the folder that the demo wrote to. Each card shows images by the miniature of what the
workflow draws, with a title and a short description.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .graph import ROOT

SIDE, STRIP = 640, 96  # pixels: a card, and the strip of text at its bottom
GAP = 4
PAPER, INK, PALE = "#1c2128", "#ffffff", "#9fb0c3"
TITLE, LINE = 38, 23
NOTE = "shown: the bundled miniature"
SIX = ("sunglasses", "girlfriend", "umbrella", "kitchen", "forest", "street")
ROWS = ("base", "tiny", "lora-r1", "lora-r4", "lora-r8", "standard")
POSED = ("standard_cnet", "lora-r1_cnet")
PHOTOS = ROOT / "demo" / "subject"
DEMO = Path("likeness", "comparisons", "miniature")

# Workflow -> title, description, and the rows whose images it shows.
CARDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "train_lora": ("Train a LoRA", "from your photographs to an image", ("lora-r8",)),
    "train_dreambooth": ("DreamBooth", "the whole model learns the subject", ("standard",)),
    "use_adapter": ("Use an adapter", "before and after, any kind of file", ("base", "lora-r8")),
    "study_1_knowledge_check": ("1 · Base", "does it know the subject already?", ("base",)),
    "study_2_base": ("2 · Base", "the six prompts, nothing trained", ("base",)),
    "study_3_tiny": ("3 · DreamBooth 256", "tiny: frozen text encoder", ("tiny",)),
    "study_4_standard": ("4 · DreamBooth 512", "standard, with class images", ("standard",)),
    "study_5_lora_r1": ("5 · LoRA, rank 1", "the smallest adapter", ("lora-r1",)),
    "study_6_lora_r4": ("6 · LoRA, rank 4", "the usual adapter", ("lora-r4",)),
    "study_7_lora_r8": ("7 · LoRA, rank 8", "the largest adapter of the study", ("lora-r8",)),
    "study_8_standard_controlnet": ("8 · DreamBooth", "with OpenPose ControlNet",
                                    ("standard_cnet",)),
    "study_9_lora_r1_controlnet": ("9 · LoRA, rank 1", "with OpenPose ControlNet",
                                   ("lora-r1_cnet",)),
    "study_everything": ("The whole study", "trains and compares them all", (*ROWS, *POSED)),
    "miniature": ("The study, on a CPU", "nothing to download, some minutes", (*ROWS, *POSED)),
}  # fmt: skip


def card(name: str, output: Path) -> Image.Image:
    """The thumbnail of a workflow, SIDE x SIDE pixels. Raises OSError if images are missing."""
    title, line, rows = CARDS[name]
    place = output / DEMO
    found = [[_one(place / row, key) for key in SIX] for row in rows]
    if name.startswith("train_"):
        photos = [Image.open(path) for path in sorted(PHOTOS.glob("*.png"))[:6]]
        image = _train_card(photos, found[0][0])
    elif name == "use_adapter":
        image = _grid([images[:2] for images in found])
    elif len(rows) == 1:
        image = _grid([found[0][:3], found[0][3:]])
    else:
        image = _grid(found)
    return _labelled(image, title, line)


def _one(row: Path, key: str) -> Image.Image:
    """A row's image of a prompt, of any size. Raises FileNotFoundError."""
    for path in sorted(row.glob(f"*/{key}.png")):
        return Image.open(path).convert("RGB")
    raise FileNotFoundError(f"There is no {row}/…/{key}.png: run make demo first")


def _grid(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """A grid of images, cropped to fill the card above its text."""
    page = Image.new("RGB", (SIDE, SIDE - STRIP), PAPER)
    tops = _edges(page.height, len(rows))
    for (top, bottom), images in zip(tops, rows, strict=True):
        for (left, right), image in zip(_edges(SIDE, len(images)), images, strict=True):
            page.paste(_filled(image, right - left, bottom - top), (left, top))
    return page


def _train_card(photos: Sequence[Image.Image], result: Image.Image) -> Image.Image:
    """Photographs on the left, the resulting image on the right."""
    height = SIDE - STRIP
    across = height // 3 * 2 + GAP
    page = Image.new("RGB", (SIDE, height), PAPER)
    for n, photo in enumerate(photos):
        (left, right), (top, bottom) = _edges(across, 2)[n % 2], _edges(height, 3)[n // 2]
        page.paste(_filled(photo.convert("RGB"), right - left, bottom - top), (left, top))
    left = across + 4 * GAP
    page.paste(_filled(result, SIDE - left, height), (left, 0))
    tip, middle = left + GAP, height // 2
    arrow = [(tip - 34, middle - 34), (tip + 26, middle), (tip - 34, middle + 34)]
    ImageDraw.Draw(page).polygon(arrow, fill=INK, outline=PAPER, width=5)
    return page


def _edges(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of `count` equal parts with gaps between them."""
    each = (length - GAP * (count - 1)) / count
    return [(round(n * (each + GAP)), round(n * (each + GAP) + each)) for n in range(count)]


def _filled(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image cropped to a shape, mostly from the bottom, because faces are at the top."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS, centering=(0.5, 0.25))


def _labelled(image: Image.Image, title: str, line: str) -> Image.Image:
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    page.paste(image, (0, 0))
    brush, top = ImageDraw.Draw(page), SIDE - STRIP
    brush.text((16, top + 8), title, INK, ImageFont.load_default(TITLE))
    brush.text((16, top + 56), line, PALE, ImageFont.load_default(LINE))
    small = ImageFont.load_default(15)
    brush.text((SIDE - 12, top + 20), NOTE, PALE, small, anchor="ra")
    return page


def main() -> None:
    """Draws all thumbnails."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "output")
    for name in CARDS:
        path = ROOT / "workflows" / f"{name}.jpg"
        card(name, output).save(path, quality=85, optimize=True)


if __name__ == "__main__":
    main()
