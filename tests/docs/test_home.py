"""The drawing on the home page: the exported model reads drawn digits, from a server and from a file."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = '<!doctype html><meta charset="utf-8"><title>Home</title>{}'

# Strokes as points in pixels of the pad. The 0 is not closed, and the digits are off the centre, of different sizes.
STROKES = {
    "0": [[(150, 40), (100, 60), (70, 120), (75, 190), (110, 235), (165, 225), (200, 170), (195, 100), (165, 50)]],
    "1": [[(60, 30), (62, 90), (60, 150)]],
    "2": [[(80, 80), (110, 50), (160, 55), (180, 95), (150, 150), (100, 200), (75, 225), (130, 222), (200, 225)]],
    "4": [[(120, 40), (90, 100), (70, 150), (130, 150), (200, 148)], [(165, 90), (160, 150), (155, 240)]],
    "7": [[(110, 100), (160, 98), (210, 100), (190, 140), (170, 190), (160, 230)]],
}


@pytest.fixture(scope="module")
def home(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with nothing but the drawing, with the model that the documentation trains."""
    spec = importlib.util.spec_from_file_location("home", DOCS / "_ext" / "home.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("home")
    shutil.copytree(DOCS / "_static" / "draw", directory / "_static" / "draw")
    model, accuracy = module.train()
    assert accuracy > 0.98
    (directory / "_static" / "draw" / "model.js").write_text(module.classic_script(model, accuracy))
    (directory / "index.html").write_text(PAGE.format((DOCS / "_ext" / "draw.html").read_text()))
    return directory / "index.html"


@pytest.mark.browser
def test_the_home_page_reads_drawn_digits_without_a_server(home: Path, browser: Any) -> None:
    page = browser.new_page()
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(home.as_uri())
    answer = page.locator(".draw-answer")
    assert answer.inner_text() == "The network reads 3."  # the example that is shown first
    pad = page.locator(".draw-pad").bounding_box()
    for digit, strokes in STROKES.items():
        page.click(".draw-clear")
        assert answer.inner_text() == "Draw a digit."
        for first, *others in strokes:
            page.mouse.move(pad["x"] + first[0], pad["y"] + first[1])
            page.mouse.down()
            for x, y in others:
                page.mouse.move(pad["x"] + x, pad["y"] + y, steps=5)
            page.mouse.up()
        assert answer.inner_text() == f"The network reads {digit}."
    assert problems == []
    assert all(url.startswith("file:") for url in requests), requests


@pytest.mark.browser
def test_the_network_of_the_home_page_sees_the_digit_centred_as_in_mnist(home: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(home.as_uri())
    page.click(".draw-clear")
    pad = page.locator(".draw-pad").bounding_box()
    page.mouse.move(pad["x"] + 30, pad["y"] + 30)
    page.mouse.down()
    page.mouse.move(pad["x"] + 30, pad["y"] + 130, steps=5)
    page.mouse.up()
    ink = page.evaluate("""() => {
      const { data } = document.querySelector(".draw-seen").getContext("2d").getImageData(0, 0, 28, 28);
      return Array.from({ length: 784 }, (_, i) => data[4 * i]);
    }""")
    rows = [i // 28 for i in range(784) if ink[i] > 20]
    columns = [i % 28 for i in range(784) if ink[i] > 20]
    assert (min(rows), max(rows)) == (4, 23)  # 20 of 28 pixels
    assert min(columns) + max(columns) == 27
