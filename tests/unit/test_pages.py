"""What README, docs and help pages link to is there, and images are small enough to be loaded."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("js/docs/*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#{1,6} +(.+?)#* *$", re.MULTILINE)
MOST_BYTES = {".webp": 1_000_000}  # animated; other images have at most
MOST_IMAGE_BYTES = 200_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for link, anchor in links_of(page):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), f"{link}#{anchor}"


def links_of(page):
    """(path, anchor) of each link that stays here; either may be ""."""
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [(link, anchor) for link, anchor in found if "://" not in link and (link or anchor)]


def anchors_of(page):
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found, seen = [], Counter[str]()
    for heading in HEADING.findall(text):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        found.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def test_some_links_have_anchors_and_a_wrong_one_is_found(tmp_path):
    assert any(anchor for page in PAGES for _, anchor in links_of(page))
    page = tmp_path / "page.md"
    headings = "# A `run`, step by step\n## A [link](x.md)!\n## A link\n"
    page.write_text(headings + "```\n# no heading\n```\n## A link\n")
    assert anchors_of(page) == ["a-run-step-by-step", "a-link", "a-link-1", "a-link-2"]


def test_images_are_small():
    folders = (ROOT / "docs" / "images", ROOT / "js" / "docs", ROOT / "workflows")
    kinds = (".jpg", ".png", ".svg", ".webp", ".gif")
    images = [p for folder in folders for p in folder.rglob("*") if p.suffix in kinds]
    assert images
    for path in images:
        assert path.stat().st_size <= MOST_BYTES.get(path.suffix, MOST_IMAGE_BYTES), path.name
