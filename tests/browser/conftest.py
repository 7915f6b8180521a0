"""ComfyUI's editor in Chromium for the tests marked `browser`: one server for all."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from likeness.tools.comfyui import Server, miniature_pack
from likeness.tools.editor import EMPTY, PACK, BrowserNotFound, Editor, open_browser

SIZE = {"width": 1280, "height": 800}
CLOSE = "() => document.querySelectorAll('dialog[open]').forEach((dialog) => dialog.close())"
INSET = 110  # pixels that ComfyUI's bars take on each side


@pytest.fixture(scope="session")
def installed(comfyui):
    """Skips the tests if Chromium, Playwright or ComfyUI is not installed."""
    try:
        with open_browser():
            pass
    except BrowserNotFound as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def browser(installed):
    """Chromium, one per module: Playwright's event loop must not outlive these tests."""
    with open_browser() as running:
        yield running


@pytest.fixture(scope="session")
def server(installed, tmp_path_factory):
    """A ComfyUI with the miniature; its weights are random if the repository has none."""
    home = tmp_path_factory.mktemp("home")
    running = Server(home, miniature_pack(home, tmp_path_factory.mktemp("pack") / PACK))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def tab(browser, server):
    """Opens the editor in its own window: `with tab(**settings) as editor`."""

    @contextmanager
    def start(**settings):
        page = browser.new_context(viewport=SIZE).new_page()
        page.set_default_timeout(30_000)
        editor = Editor(page, server.address)
        editor.open(**settings)
        yield editor
        page.context.close()

    return start


@pytest.fixture(scope="module")
def module_tab(tab):
    """One tab for the tests of a module."""
    with tab() as editor:
        yield editor


@pytest.fixture
def no_errors():
    """Closes open dialogs after a test, and fails it if one of our files logged an error."""

    @contextmanager
    def guard(editor):
        editor.errors.clear()
        yield editor
        editor.page.evaluate(CLOSE)
        assert not editor.errors

    return guard


@pytest.fixture
def editor(module_tab, no_errors):
    """The editor with an empty canvas."""
    module_tab.load(EMPTY)
    with no_errors(module_tab) as editor:
        yield editor


@pytest.fixture(scope="session")
def expect(installed):
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    return expect


@pytest.fixture
def show():
    """Zooms to a node in the visible part of the window: `show(editor, number)`."""
    return lambda editor, number: editor.zoom_to(editor.box(number), INSET, 1)


@pytest.fixture
def wait_for():
    """Waits until `wanted()` is true: `wait_for(editor, wanted, seconds)`."""

    def wait(editor, wanted, seconds=60):
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline, f"not after {seconds} s"
            editor.page.wait_for_timeout(100)

    return wait
