"""What README, docs and help pages link to is there, and pictures are small enough to be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("js/docs/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
MOST_BYTES = {".webp": 1_000_000}  # animated; other pictures have at most
MOST_PICTURE_BYTES = 200_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_pictures_are_small():
    folders = (ROOT / "docs" / "images", ROOT / "js" / "docs", ROOT / "workflows")
    kinds = (".jpg", ".png", ".svg", ".webp", ".gif")
    pictures = [p for folder in folders for p in folder.rglob("*") if p.suffix in kinds]
    assert pictures
    for path in pictures:
        assert path.stat().st_size <= MOST_BYTES.get(path.suffix, MOST_PICTURE_BYTES), path.name
