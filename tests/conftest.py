"""Shared fixtures: MNIST, a small data set of images, a check for one-line errors, and a browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from handgrad import HandgradError
from handgrad.data.mnist import find_mnist


@pytest.fixture(scope="session")
def mnist() -> Path:
    """A directory with the four files of MNIST, or Keras's mnist.npz, verified; skips the test if there is none."""
    path = find_mnist()
    if path is None:
        pytest.skip("MNIST was not found: run handgrad data fetch, or set HANDGRAD_DATA")
    return path


@pytest.fixture(scope="session")
def digits():
    """(x, y, x_test, y_test): noisy images of ten 8x8 patterns, uint8, 600 for training and 300 for testing."""
    rng = np.random.default_rng(10)
    patterns = rng.integers(0, 2, (10, 64)) * 160
    y = np.arange(900) % 10
    x = np.clip(patterns[y] + rng.normal(40, 60, (900, 64)), 0, 255).astype(np.uint8).reshape(-1, 8, 8)
    for part in (x, y):
        part.flags.writeable = False  # the library must not modify its inputs
    return x[:600], y[:600], x[600:], y[600:]


@contextlib.contextmanager
def _raises_one_line(match):
    with pytest.raises(HandgradError, match=match) as caught:
        yield caught
    assert str(caught.value).strip()
    assert "\n" not in str(caught.value)


@pytest.fixture
def rejects():
    """A replacement for pytest.raises: expects a HandgradError whose message matches and is a single line."""
    return _raises_one_line


# ---- Browser ---------------------------------------------------------------------------------------------------------

CHROMIUM = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome-stable", "google-chrome")
LOCAL = ("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def browser():
    """A Chromium, controlled by Playwright. Mark its tests with pytest.mark.browser.

    The tests are skipped if Playwright or Chromium is missing, and fail if HANDGRAD_REQUIRE_BROWSER is set. The scope
    is a module because an event loop runs in this thread for as long as Playwright does.
    """
    missing = pytest.fail if os.environ.get("HANDGRAD_REQUIRE_BROWSER") else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed: pip install playwright")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        missing(f"no browser was found: install one of {', '.join(CHROMIUM)}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page of a new browser window of 1,000 x 800 pixels.

    The test fails if the page requests anything that is not on this machine, raises an exception, or writes an error or
    a warning to the console. Remove expected messages from the list page.problems.
    """
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    problems = []

    def only_local(route):
        url = urlsplit(route.request.url)
        if url.scheme in ("data", "blob") or url.hostname in LOCAL:
            route.continue_()
        else:
            problems.append(f"request to {route.request.url}")
            route.abort()

    context.route("**/*", only_local)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.problems = problems
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning") and problems.append(f"console {message.type}: {message.text}")
        ),
    )
    yield page
    context.close()
    assert not problems, problems


@pytest.fixture
def stroke(page):
    """Draw a line with the mouse.

    Pass a selector or a locator, and points in pixels from the corner of the element: "#pad", (20, 20), (60, 80).
    """

    def draw(element, *points):
        box = (page.locator(element) if isinstance(element, str) else element).bounding_box()
        first, *others = [(box["x"] + x, box["y"] + y) for x, y in points]
        page.mouse.move(*first)
        page.mouse.down()
        for point in others:
            page.mouse.move(*point, steps=10)
        page.mouse.up()

    return draw
