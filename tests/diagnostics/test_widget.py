"""The drawing pad: the answers of the Python side, and drawing with the mouse in a browser."""

from __future__ import annotations

import base64
import importlib
import math
import sys
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

import handgrad
from handgrad.data.synthetic import synthetic_digits
from handgrad.diagnostics import widget
from handgrad.recipes import RECIPES

pytest.importorskip("anywidget")

SEVEN = [(80, 60), (200, 60), (120, 230)]
SPIRAL = [(140 + round(r * math.cos(r / 4)), 140 + round(r * math.sin(r / 4))) for r in range(115)]


@pytest.fixture(scope="module")
def model() -> handgrad.Model:
    """A network in a Preprocessed, trained on 6,000 synthetic digits."""
    x, y, _, _ = synthetic_digits(6000, 10)
    return RECIPES["second"].replace(epochs=4, rotation=15.0).train(x, y, 10)


def drawing(*strokes: list[tuple[int, int]]) -> bytes:
    """Grey levels as the browser sends them."""
    image = Image.new("L", (widget.SIZE, widget.SIZE), 255)
    for points in strokes:
        ImageDraw.Draw(image).line(points, fill=0, width=20, joint="curve")
    return image.tobytes()


# ---- The Python side -------------------------------------------------------------------------------------------------


def test_pad_reads_a_drawing_as_predict_image_does(model: handgrad.Model) -> None:
    pad = model.draw()
    assert (pad.answer, pad.readings) == ({"message": widget.EMPTY, "readings": []}, [])
    pad.drawing = drawing(SEVEN)
    levels = np.frombuffer(pad.drawing, np.uint8).reshape(widget.SIZE, widget.SIZE)
    (expected,) = model.predict_image(np.pad(levels, 140, constant_values=255))
    (shown,) = pad.answer["readings"]
    assert (pad.answer["message"], shown["label"], shown["reason"]) == ("", "7", "")
    assert shown["bars"] == list(expected.probabilities.items())
    np.testing.assert_array_equal(255 - np.array(shown["digit"]), expected.digit)
    np.testing.assert_array_equal(pad.readings[0].digit, expected.digit)
    np.testing.assert_allclose(pad.readings[0].box, (80, 50, 210, 234), atol=4)
    pad.drawing = drawing()
    assert (pad.answer, pad.readings) == ({"message": widget.EMPTY, "readings": []}, [])


def test_pad_is_not_sure_of_a_scribble(model: handgrad.Model) -> None:
    answer, readings = widget.answer(model, drawing(SPIRAL))
    assert answer["readings"][0]["label"] is readings[0].label is None
    assert "scribble" in answer["readings"][0]["reason"]


def test_strokes_over_most_of_the_canvas_are_not_read_as_the_background(model: handgrad.Model) -> None:
    points = np.random.default_rng(4).integers(30, 250, (40, 2))
    levels = drawing([(int(x), int(y)) for x, y in points])
    assert len(model.predict_image(np.frombuffer(levels, np.uint8).reshape(280, 280))) > 1  # the gaps between them
    assert len(widget.answer(model, levels)[1]) == 1


def test_pad_shows_four_digits_and_counts_the_others(model: handgrad.Model) -> None:
    answer, readings = widget.answer(model, drawing(*([(x, 100), (x, 180)] for x in range(30, 280, 45))))
    assert (len(answer["readings"]), len(readings)) == (4, 6)
    assert answer["message"] == "2 more digits are not shown."


def test_pad_shows_the_ten_most_probable_of_many_classes() -> None:
    network = handgrad.Network([784, 26], loss="cross_entropy", rng=0)
    network.image_shape = (28, 28)
    answer, (reading,) = widget.answer(network, drawing(SEVEN))
    expected = sorted(reading.probabilities.items(), key=lambda item: -item[1])[:10]
    assert answer["readings"][0]["bars"] == expected


def test_pad_uses_the_current_weights() -> None:
    network = handgrad.Network([784, 10], loss="cross_entropy", rng=0)
    network.image_shape = (28, 28)
    pad = network.draw()
    network.parameters[...] = 0
    network.layers[0].b[3] = 9
    pad.drawing = drawing(SEVEN)
    assert pad.answer["readings"][0]["label"] == "3"


def test_drawing_of_another_size_is_an_error_that_the_pad_shows(model: handgrad.Model, rejects: Any) -> None:
    with rejects("the drawing has 3 bytes: expected 280 x 280 grey levels"):
        widget.answer(model, b"abc")
    pad = model.draw()
    pad.drawing = b"abc"
    assert "3 bytes" in pad.answer["message"]


def test_drawing_needs_a_classifier_of_images(rejects: Any) -> None:
    with rejects("the model has no image shape"):
        handgrad.Network([784, 10], rng=0).draw()


def test_missing_extra_is_one_line(model: handgrad.Model, rejects: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with rejects(r"'anywidget' is not installed: run pip install 'handgrad\[notebook\]'"):
        importlib.reload(widget).drawing_pad(model)


# ---- In a browser ----------------------------------------------------------------------------------------------------

# The widget with a stand-in for the model of a notebook, which has the same methods.
PAGE = """
<!DOCTYPE html><link rel="icon" href="data:,"><link rel="stylesheet" href="/widget.css"><div id="host"></div>
<script type="module">
import widget from "/widget.js";
const state = { drawing: null, answer: { message: "start", readings: [] } };
const listeners = [];
let changes = 0; // since the last answer
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; },
  on: (name, listener) => listeners.push(listener),
  off: (name, listener) => listeners.splice(listeners.indexOf(listener), 1),
  save_changes: async () => {
    changes += 1;
    if (changes > 1) return; // a notebook, too, sends the last change after the answer to the one before it
    const levels = new Uint8Array(state.drawing.buffer);
    let text = "";
    for (const level of levels) text += String.fromCharCode(level);
    state.answer = await python(btoa(text));
    for (const listener of listeners) listener();
    const missed = changes > 1;
    changes = 0;
    if (missed) model.save_changes();
  },
};
const host = document.getElementById("host");
let end = widget.render({ model, el: host });
window.show_again = () => { end(); host.replaceChildren(); end = widget.render({ model, el: host }); };
window.n_listeners = () => listeners.length;
</script>
"""


@pytest.fixture
def show(page: Any) -> Any:
    """Show the pad of a model in the browser, connected to its widget in this process."""

    def show(model: handgrad.Model) -> Any:
        pad = model.draw()

        def python(text: str) -> Any:
            pad.drawing = base64.b64decode(text)
            return pad.answer

        page.expose_function("python", python)
        files = {"/": ("text/html", PAGE), "/widget.css": ("text/css", pad._css)}
        files["/widget.js"] = ("text/javascript", pad._esm)

        def answer(route: Any) -> None:
            kind, body = files[urlsplit(route.request.url).path]
            route.fulfill(body=body, content_type=kind)

        page.route("http://localhost/**", answer)
        page.goto("http://localhost/")
        return pad

    return show


@pytest.mark.browser
def test_drawing_with_the_mouse_changes_the_bars(model: handgrad.Model, page: Any, stroke: Any, show: Any) -> None:
    from playwright.sync_api import expect

    pad = show(model)
    expect(page.locator(".handgrad-message")).to_have_text("start")
    stroke(".handgrad-canvas", *SEVEN)
    expect(page.locator(".handgrad-label")).to_have_text("7")
    expect(page.locator(".handgrad-bar")).to_have_count(10)
    best = page.locator(".handgrad-best")
    assert best.locator(".handgrad-name").inner_text() == "7"
    assert best.locator(".handgrad-bar").bounding_box()["width"] > 60
    widths = [bar.bounding_box()["width"] for bar in page.locator(".handgrad-bar").all()]
    assert sum(width > 60 for width in widths) == 1
    seen = page.evaluate(
        "() => { const c = document.querySelector('.handgrad-seen');"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0); }"
    )
    np.testing.assert_array_equal(255 - np.array(seen).reshape(28, 28), pad.readings[0].digit)
    ink = 255 - np.frombuffer(pad.drawing, np.uint8).reshape(widget.SIZE, widget.SIZE).astype(int)
    expected = 255 - np.frombuffer(drawing(SEVEN), np.uint8).reshape(ink.shape).astype(int)
    assert np.abs(ink - expected).sum() < 0.2 * expected.sum()  # the strokes are where the mouse was

    page.evaluate("show_again()")  # as a notebook does when a second cell displays the widget
    expect(page.locator(".handgrad-label")).to_have_text("7")
    assert page.evaluate("n_listeners()") == 1
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".handgrad-message")).to_have_text(widget.EMPTY)
    assert set(pad.drawing) == {255}


@pytest.mark.browser
def test_drawing_with_a_finger_does_not_scroll_the_page(model: handgrad.Model, page: Any, show: Any) -> None:
    from playwright.sync_api import expect

    show(model)
    page.evaluate("document.body.style.height = '3000px'")
    box = page.locator(".handgrad-canvas").bounding_box()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, points in (("touchStart", SEVEN[:1]), ("touchMove", SEVEN[1:]), ("touchEnd", [()])):
        for point in points:
            at = [{"x": box["x"] + point[0], "y": box["y"] + point[1]}] if point else []
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    expect(page.locator(".handgrad-label")).to_have_text("7")
    assert page.evaluate("scrollY") == 0


@pytest.mark.browser
def test_a_click_draws_a_dot_which_is_no_digit(model: handgrad.Model, page: Any, show: Any) -> None:
    from playwright.sync_api import expect

    pad = show(model)
    page.locator(".handgrad-canvas").click(position={"x": 100, "y": 100})
    expect(page.locator(".handgrad-label")).to_have_text("not sure")
    expect(page.locator(".handgrad-reason")).to_contain_text("filled area")
    assert np.frombuffer(pad.drawing, np.uint8).reshape(widget.SIZE, -1)[100, 100] == 0


@pytest.mark.browser
def test_class_names_are_shown_as_text(page: Any, stroke: Any, show: Any) -> None:
    from playwright.sync_api import expect

    network = handgrad.Network([784, 2], loss="cross_entropy", rng=0)
    network.image_shape = (28, 28)
    network.classes = ("<img src=x>", "b")
    network.parameters[...] = 0
    network.layers[0].b[0] = 9
    show(network)
    stroke(".handgrad-canvas", *SEVEN)
    expect(page.locator(".handgrad-label")).to_have_text("<img src=x>")
    expect(page.locator("#host img")).to_have_count(0)
