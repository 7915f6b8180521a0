"""What images of the editor wait for."""

from __future__ import annotations

import pytest
from likeness.tools import editor as tools

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ADDRESS = "http://127.0.0.1:9"  # nothing is asked: the test answers
IMAGE = f'<img loading="lazy" width="64" height="64" src="{ADDRESS}/image.png">'


@pytest.fixture
def opened(browser):
    """An editor's tab with a page of ours, whose image never comes: `opened(markup)`."""
    page = browser.new_page()

    def show(markup):
        page.route("**/*", lambda route: route.fulfill(body=markup, content_type="text/html"))
        page.route("**/*.png", lambda route: None)
        page.goto(ADDRESS, wait_until="domcontentloaded")
        return tools.Editor(page, ADDRESS)

    yield show
    page.close()


@pytest.mark.parametrize("style", ["display: none", "position: absolute; left: -500px"])
def test_images_that_nobody_sees_are_not_waited_for(opened, style):
    """The editor hides the panels of nodes that are out of view."""
    opened(f'<div style="{style}">{IMAGE}</div>').wait_until_loaded()


def test_an_image_in_view_that_does_not_come_is_named(opened, monkeypatch):
    monkeypatch.setattr(tools, "LOAD_TIMEOUT_MS", 1000)
    with pytest.raises(tools.NotLoaded, match=r"image\.png"):
        opened(IMAGE).wait_until_loaded()
