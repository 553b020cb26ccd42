"""The page of the lab in a browser: one test for each thing that a person does there."""

from __future__ import annotations

import base64
import io
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'handgrad[lab]'")

from handgrad.lab.experiments import MAX_EXPERIMENTS, Lab  # noqa: E402
from handgrad.lab.server import STATIC  # noqa: E402
from handgrad.recipes import RECIPES  # noqa: E402

expect = playwright.expect
expect.set_options(timeout=60_000)  # for machines with other work; a test takes a second or two
pytestmark = pytest.mark.browser

SMALL = "data:synthetic~n_train:1000~hidden:12~initializer:xavier_normal~epochs:400"
SHORT = "data:synthetic~n_train:300~hidden:12~initializer:xavier_normal~epochs:3"
VIEWS = ("train", "inside", "mistakes", "compare", "plane", "steps", "code")
SEVEN = ((0.28, 0.25), (0.72, 0.22), (0.6, 0.5), (0.45, 0.8))


@pytest.fixture(scope="module")
def built():
    """Skip the test if the page is not built, or fail it if HANDGRAD_REQUIRE_BROWSER is set."""
    if not (STATIC / "index.html").is_file():
        missing = pytest.fail if os.environ.get("HANDGRAD_REQUIRE_BROWSER") else pytest.skip
        missing("the page is not built: make lab")


@pytest.fixture(scope="module")
def server(built, running):
    with running(Lab()) as served:
        yield served


@pytest.fixture
def lab(page, server):
    """A function that opens the page with the settings of a link, and returns it when it is ready."""

    def open_page(fragment: str = f"run={SMALL}"):
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"{server.url}#{fragment}")
        expect(page.locator("html[data-ready]")).to_be_visible()
        return page

    yield open_page
    page.goto("about:blank")  # the page must not ask for experiments that are removed
    for name in list(server.lab._experiments):
        server.lab.remove(name)


@pytest.fixture
def draw(page, stroke):
    """A function that draws on the pad; points are relative to its size."""

    def on_pad(*points):
        side = page.locator("#pad").bounding_box()["width"]
        stroke("#pad", *[(x * side, y * side) for x, y in points])

    return on_pad


def fact(page, name: str):
    """The number with this name in the line of facts."""
    return page.locator(".facts div", has=page.locator("dt", has_text=name)).locator("dd")


def pixels(page, selector: str) -> np.ndarray:
    """The pixels (height, width, 4) of a canvas."""
    script = """canvas => {
        const {width, height} = canvas;
        const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        const {data} = copy.getImageData(0, 0, width, height);
        return [width, height, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""))];
    }"""
    width, height, text = page.locator(selector).first.evaluate(script)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def wait_until(page, condition) -> None:
    """Wait until a condition holds, or fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the condition does not become true"
        page.wait_for_timeout(20)


def train_a_little(page) -> None:
    page.click("#start")
    expect(fact(page, "Validation accuracy")).to_contain_text("%")
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Continue")


def experiment_of(page, server):
    """The experiment of the page in the server."""
    (found,) = server.lab._experiments.values()
    return found


# ---- Draw ------------------------------------------------------------------------------------------------------------


def test_a_drawing_is_read_while_it_is_drawn(lab, draw):
    page = lab()
    assert not pixels(page, ".seen")[..., :3].any()
    draw(*SEVEN)
    expect(page.locator(".answer strong")).to_have_text(re.compile(r"^[0-9?]$"))
    seen = pixels(page, ".seen")
    assert seen.shape == (28, 28, 4)
    assert seen[..., 0].max() > 200  # strokes are white
    assert not seen[0].any(axis=0)[:3].any()  # the border is black
    expect(page.locator(".reason")).to_contain_text("not trained")
    expect(page.locator(".bars .value").first).to_contain_text("%")
    page.click("#clear")
    expect(page.locator(".answer strong")).to_have_text("")
    expect(page.locator(".pad-hint")).to_be_visible()


def test_one_finger_draws_and_a_second_one_does_not(lab):
    page = lab()
    box = page.locator("#pad").bounding_box()
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points) -> None:
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        found = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(at)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})
        page.wait_for_timeout(50)  # moves are sent with the next frame

    touch("touchStart", (0.3, 0.2))
    touch("touchMove", (0.3, 0.5))
    touch("touchStart", (0.3, 0.5), (0.7, 0.5))
    touch("touchMove", (0.3, 0.8), (0.7, 0.8))
    touch("touchEnd")
    height, width, _ = pixels(page, "#pad").shape

    def drawn() -> bool:
        return bool(pixels(page, "#pad")[int(0.25 * height) : int(0.75 * height), int(0.3 * width), 3].all())

    wait_until(page, drawn)
    assert not pixels(page, "#pad")[:, int(0.5 * width) :, 3].any()


def test_undo_removes_the_last_stroke(lab, draw):
    page = lab()
    draw((0.5, 0.2), (0.5, 0.8))
    one = pixels(page, "#pad")
    draw((0.2, 0.5), (0.8, 0.5))
    assert (pixels(page, "#pad") != one).any()
    page.click("#undo")
    assert (pixels(page, "#pad") == one).all()


def test_two_digits_are_not_sure(lab, draw):
    page = lab()
    page.click("#step")
    draw((0.2, 0.3), (0.2, 0.7))
    draw((0.8, 0.3), (0.8, 0.7))
    expect(page.locator(".reason")).to_contain_text("2 digits")


def test_an_example_can_be_read_without_a_pointer(lab):
    page = lab()
    page.keyboard.press("x")
    expect(page.locator(".draw-card .note")).to_contain_text("Its label is")
    expect(page.locator(".answer strong")).not_to_have_text("")
    assert pixels(page, "#pad").any()


def png(shape=(80, 60)) -> bytes:
    image = pytest.importorskip("PIL.Image")
    paper = np.full(shape, 255, np.uint8)
    paper[10:70, 26:34] = 0
    stream = io.BytesIO()
    image.fromarray(paper).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_is_opened_dropped_and_pasted(lab):
    page = lab()
    content = png()
    page.locator("input[type=file]").set_input_files({"name": "one.png", "mimeType": "image/png", "buffer": content})
    expect(page.locator(".draw-card .note")).to_have_text("Your image.")
    expect(page.locator(".answer strong")).not_to_have_text("")
    seen = pixels(page, ".seen")
    script = """([text, kind]) => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
        data.items.add(new File([bytes], "one.png", {type: "image/png"}));
        const init = {bubbles: true, cancelable: true};
        document.body.dispatchEvent(kind === "drop"
            ? new DragEvent("drop", {...init, dataTransfer: data})
            : new ClipboardEvent("paste", {...init, clipboardData: data}));
    }"""
    for kind in ("drop", "paste"):
        page.click("#clear")
        page.evaluate(script, [base64.b64encode(content).decode(), kind])
        expect(page.locator(".draw-card .note")).to_have_text("Your image.")
        expect(page.locator(".answer strong")).not_to_have_text("")
        assert (pixels(page, ".seen") == seen).all()


def test_a_file_that_is_no_image_gives_one_line(lab):
    page = lab()
    page.locator("input[type=file]").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(page.locator("#toast")).to_have_text("a.txt is not an image that the browser can open.")


def test_the_smallest_change_flips_the_answer(lab, draw):
    page = lab()
    train_a_little(page)
    draw(*SEVEN)
    expect(page.locator("#flip")).to_be_enabled()
    answer = page.locator(".bar.best b").first.inner_text()
    page.keyboard.press("f")
    expect(page.locator(".flip figcaption b")).to_have_text(re.compile(rf"^{answer} → [0-9]$"))
    assert pixels(page, ".flip canvas").any()


def test_a_flip_of_an_older_drawing_is_not_shown(lab, draw):
    page = lab()
    draw(*SEVEN)
    page.route("**/flip?*", lambda route: (page.click("#clear"), route.continue_()))
    with page.expect_response("**/flip?*"):
        page.click("#flip")
    page.wait_for_timeout(100)
    expect(page.locator(".flip")).to_be_empty()
    expect(page.locator("#toast")).to_be_hidden()


# ---- Train -----------------------------------------------------------------------------------------------------------


def test_train_pause_step_epoch_and_reset(lab, server):
    page = lab()
    steps = fact(page, "Steps")
    page.click("#step")
    expect(steps).to_have_text("1")
    page.click("#epoch")
    expect(steps).to_have_text("100")
    expect(fact(page, "Validation accuracy")).to_contain_text("%")
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Pause")
    accuracy = page.locator("[aria-label^='Accuracy: validation']")
    expect(accuracy).to_have_attribute("aria-label", re.compile(r"[0-9]\s%"))
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Continue")
    page.click("#reset")
    expect(steps).to_have_text("0")
    expect(page.locator("#start")).to_have_text("Start training")
    assert experiment_of(page, server).runs[0].step == 0


def test_slow_motion_limits_the_steps_per_second(lab, server):
    page = lab()
    page.select_option("#speed", "10")
    page.click("#start")
    expect(fact(page, "Steps")).to_have_text(re.compile("^[1-9][0-9]*$"))
    (run,) = experiment_of(page, server).runs
    before = run.step
    page.wait_for_timeout(500)
    assert run.step - before < 100  # full speed: thousands
    page.reload()
    expect(page.locator("#speed")).to_have_value("10")
    page.select_option("#speed", "")
    expect(fact(page, "Steps")).to_have_text(re.compile("^[0-9],[0-9]{3}"))


def test_the_rate_changes_while_the_network_trains(lab, server):
    page = lab()
    page.click("#start")
    expect(fact(page, "Steps")).not_to_have_text("0")
    page.fill("#rate-0", "0.125")
    page.keyboard.press("Enter")
    wait_until(page, lambda: experiment_of(page, server).runs[0].lr == 0.125)
    expect(page.locator("#start")).to_have_text("Pause")
    assert experiment_of(page, server).runs[0].step > 0
    page.click("#tab-code")
    expect(page.locator("pre code")).to_contain_text("0.125")
    page.reload()
    expect(page.locator("#rate-0")).to_have_value("0.125")
    page.click("#reset")
    expect(page.locator("#rate-0")).to_have_value("0.5")


def test_a_rate_that_is_refused_is_not_shown(lab, server):
    page = lab()
    for steps in "12":  # before the training, and after a step
        page.fill("#rate-0", "5000")
        page.keyboard.press("Enter")
        expect(page.locator("#toast")).to_contain_text("lr must be")
        expect(page.locator("#rate-0")).to_have_value("0.5")
        page.click("#step")
        expect(fact(page, "Steps")).to_have_text(steps)
    assert experiment_of(page, server).runs[0].lr == 0.5
    page.problems[:] = [problem for problem in page.problems if "400" not in problem]


def test_weights_are_images_that_change(lab, draw):
    page = lab()
    tiles = page.locator(".tile:visible")
    expect(tiles).to_have_count(12)
    wait_until(page, lambda: pixels(page, ".tile canvas").any())
    before = pixels(page, ".tile canvas")
    draw(*SEVEN)
    expect(tiles.first).to_have_attribute("aria-label", re.compile(r"Hidden unit 0, activation [0-9.−e]+"))
    train_a_little(page)
    wait_until(page, lambda: (pixels(page, ".tile canvas") != before).mean() > 0.2)
    tiles.first.click()
    expect(page.locator(".unit-detail h3").first).to_have_text("Hidden unit 0")


def test_weights_and_activations_of_hog_are_images_of_8_directions(lab, monkeypatch):
    monkeypatch.setitem(RECIPES, "second", RECIPES["second"].replace(hog=4))
    page = lab("run=data:synthetic~recipe:second~n_train:300~hidden:12~batch_size:50~epochs:3")
    page.click("#example")
    wait_until(page, lambda: pixels(page, ".tile canvas").any())
    tile = pixels(page, ".tile canvas")
    opaque = tile[..., 3] > 0
    assert tile.shape[:2] == (14, 14)
    assert opaque.sum() == 8 * 4 * 4
    assert not opaque[5:9, 5:9].any()
    page.locator(".tile").first.click()
    expect(page.locator(".unit-detail").first).to_contain_text("edges in one direction")
    expect(page.locator(".settings-summary")).to_contain_text("196-HOG 128-12-10")
    page.click("#tab-inside")
    expect(page.locator(".layer-figure figcaption").first).to_contain_text("HOG 196-128")
    assert pixels(page, ".layer-figure canvas").shape[:2] == (14, 14)


def test_gradients_and_saturated_units_have_bars_and_numbers(lab, draw):
    page = lab("view=inside&run=" + SMALL)
    expect(page.locator(".inside-view .gradient-card .empty")).to_contain_text("Start the training")
    page.click("#step")
    values = page.locator(".inside-view .gradient-card .line .value")
    expect(values).to_have_count(2)
    expect(values.first).to_have_text(re.compile(r"^[0-9.e−]+$"))
    expect(page.locator(".inside-view .units-card .line .value").first).to_have_text(re.compile(r"%$"))
    page.locator(".inside-view .gradient-card summary").click()
    expect(page.locator(".inside-view .gradient-card table tbody tr")).to_have_count(2)
    page.keyboard.press("x")
    expect(page.locator(".hidden-card .layer-figure")).to_have_count(3)
    expect(page.locator(".matrix-card .matrix")).to_have_attribute("aria-label", re.compile("10 rows.*12 columns"))


def test_a_diverging_run_says_so_and_the_other_goes_on(lab):
    diverging = "hidden:50-50-50~activation:relu~loss:cross_entropy~lr:1000~optimizer:nesterov"
    page = lab(f"run={SHORT}~{diverging}&run={SHORT}")
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Start again")
    expect(page.locator(".message[data-kind=error]")).to_have_text(
        re.compile("(Run A: t|T)raining diverged at step .* try a learning rate")
    )
    expect(fact(page, "Validation accuracy").locator(".run-b")).to_contain_text("%")
    expect(fact(page, "Epoch")).to_have_text("3.00 of 3")
    page.click("#reset")
    expect(page.locator("#start")).to_have_text("Start training")
    expect(page.locator(".message[data-kind=error]")).to_be_hidden()


# ---- Compare ---------------------------------------------------------------------------------------------------------


def test_two_runs_are_overlaid(lab, draw):
    page = lab(f"view=compare&run={SMALL}~loss:squared_error&run={SMALL}~loss:binary_cross_entropy")
    expect(page.locator(".field.different label").first).to_have_text("Loss")
    expect(page.locator(".difference")).to_have_text("loss: A squared error, B binary cross-entropy")
    page.click("#epoch")
    expect(fact(page, "Validation accuracy").locator("span")).to_have_count(2)
    legend = page.locator(".compare-view .curve-card").first.locator(".legend > span")
    expect(legend).to_have_count(4)
    expect(legend.nth(2)).to_have_text(re.compile(r"^B validation [0-9.]+\s%$"))
    expect(page.locator(".compare-view .gradient-card .track i.run-b")).to_have_count(2)
    page.click("#tab-train")
    draw(*SEVEN)
    expect(page.locator(".answer strong")).to_have_count(2)
    expect(page.locator(".weights-card:visible")).to_have_count(2)


def test_a_preset_opens_by_a_click_and_by_a_link(lab, server):
    page = lab("preset=xor")
    expect(page.locator("#data-0")).to_have_value("xor")
    expect(page.locator("#tab-plane")).to_have_attribute("aria-selected", "true")  # one run: its decision boundary
    page.evaluate("location.hash = '#preset=initialization'")
    expect(page.locator(".settings-row")).to_have_count(2)
    expect(page.locator("#tab-compare")).to_have_attribute("aria-selected", "true")
    first = page.locator(".preset[data-preset]").first
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".settings-row")).to_have_count(2)
    assert page.url.endswith(f"preset={first.get_attribute('data-preset')}")
    expect(page.locator("#start")).to_have_text("Pause")


# ---- Mistakes --------------------------------------------------------------------------------------------------------


def test_from_the_curve_to_the_image(lab):
    page = lab("run=" + SHORT)
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Start again")
    plot = page.locator(".train-view .u-over").first
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] * 0.6, "y": box["height"] / 2})  # epoch 1.8 of 3
    expect(page.locator("output")).to_contain_text("after epoch")
    epoch = page.locator("output").inner_text().removeprefix("after epoch ")
    expect(page.locator(".confusion-box")).to_have_attribute("data-epoch", epoch)
    cells = page.locator(".confusion td button")
    expect(cells).to_have_count(100)
    matrix = [int(text or 0) for text in cells.all_inner_texts()]
    wrong = next(i for i, count in enumerate(matrix) if count and i % 11)
    cells.nth(wrong).click()
    gallery = page.locator(".gallery .digit")
    expect(gallery).to_have_count(min(60, matrix[wrong]))
    gallery.first.click()
    expect(page.locator(".inside-card .layer-figure")).to_have_count(3)
    expect(page.locator(".inside-card .help").first).to_contain_text(f"Label {wrong // 10}, answer {wrong % 10}")
    page.locator("#epoch-slider").press("Home")
    expect(page.locator("output")).to_have_text("after epoch 0")
    expect(page.locator("#past")).to_contain_text("after epoch 0")


def test_the_matrix_and_its_images_are_those_of_the_same_weights_while_the_network_trains(lab):
    page = lab("view=mistakes&run=" + SMALL)
    current = page.locator("output")
    expect(current).to_have_text("now (epoch 0.00)")
    matrix = [int(text or 0) for text in page.locator(".confusion td button").all_inner_texts()]
    largest = matrix.index(max(matrix))
    page.select_option("#speed", "100")  # it must not finish before
    page.click("#start")
    expect(current).to_have_text(re.compile("^epoch [0-9.]+$"))
    page.locator(".confusion td button").nth(largest).click()
    expect(page.locator(".gallery-card .help")).not_to_contain_text("Select")
    script = """() => {
        const cell = document.querySelector(".confusion [aria-pressed=true]").textContent || "0";
        const found = document.querySelector(".gallery-card .help").textContent.match(/^[0-9,]+(?= image)/);
        return [document.querySelector("output").textContent, cell, found?.[0] ?? "0"];
    }"""
    shown = set()

    def has_changed_twice() -> bool:
        text, count, images = page.evaluate(script)
        assert count == images
        shown.add(text)
        return len(shown) >= 3

    wait_until(page, has_changed_twice)
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Continue")
    epoch = float(fact(page, "Epoch").inner_text().split()[0])
    expect(current).to_have_text(f"now (epoch {epoch:.2f})")


def test_a_selected_epoch_shows_its_weights_until_the_current_ones_are_wanted(lab):
    page = lab("run=" + SHORT)
    page.click("#example")
    expect(page.locator(".answer strong")).to_have_text(re.compile(r"^[0-9?]$"))
    initial = pixels(page, ".tile-picture")
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Start again")
    page.locator(".train-view .u-over").first.click(position={"x": 4, "y": 20})
    expect(page.locator("output")).to_have_text("after epoch 0")
    page.click("#tab-train")
    expect(page.locator("#past")).to_be_visible()
    wait_until(page, lambda: np.array_equal(pixels(page, ".tile-picture"), initial))
    page.click("#now")
    expect(page.locator("#past")).to_be_hidden()
    wait_until(page, lambda: not np.array_equal(pixels(page, ".tile-picture"), initial))


def test_the_confusion_matrix_works_with_the_keyboard(lab):
    page = lab("view=mistakes&run=" + SHORT)
    page.locator(".confusion td button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("[data-cell='2,1']")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".gallery-card h2")).to_have_text("2, read as 1")


# ---- 2-D -------------------------------------------------------------------------------------------------------------


def test_the_boundary_in_the_plane_is_learned_live(lab):
    page = lab("view=plane&preset=moons")
    picture = ".plane-view .boundary"
    expect(page.locator(picture).first).to_have_attribute("aria-label", re.compile("boundary of [0-9]+ points"))
    before = pixels(page, picture)
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Start again")
    wait_until(page, lambda: (pixels(page, picture) != before).mean() > 0.1)
    page.wait_for_timeout(500)
    after = pixels(page, picture)
    page.locator(".plane-view .u-over").first.click(position={"x": 4, "y": 20})
    expect(page.locator("#past")).to_contain_text(re.compile("after epoch [01]"))
    wait_until(page, lambda: (pixels(page, picture) != after).mean() > 0.1)  # the boundary at the start
    page.click("[data-plane=circles]")
    expect(page.locator("#data-0")).to_have_value("circles")
    page.locator(".plane-view .boundary-card summary").first.click()
    expect(page.locator(".plane-view .boundary-card table tbody tr")).to_have_count(9)


def test_the_view_of_the_plane_does_not_replace_a_trained_network(lab, server):
    page = lab("run=" + SHORT)
    page.click("#step")
    expect(fact(page, "Steps")).to_have_text("1")
    before = experiment_of(page, server)
    page.click("#tab-plane")
    expect(page.locator(".plane-chooser .lead")).to_contain_text("learns images")
    assert experiment_of(page, server) is before
    page.click("[data-plane=xor]")
    expect(page.locator("#data-0")).to_have_value("xor")


# ---- Step through, code ----------------------------------------------------------------------------------------------


def test_step_through_a_forward_and_a_backward_pass(lab):
    page = lab("view=steps&run=" + SHORT)
    title = page.locator(".step-title")
    expect(title).to_have_text("Input")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Forward: Dense 2-2")
    expect(page.locator(".equation")).to_contain_text("W x + b")
    expect(page.locator(".diagram .node.active")).to_have_count(2)
    expect(page.locator(".array").first).to_contain_text("−1.0000")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("Input")
    page.get_by_role("button", name="Step: Dense 2-2").click()
    diagram = page.locator(".diagram text")
    expect(diagram.filter(has_text=re.compile("^→ 0.8794$"))).to_have_count(1)  # the weight after the step
    expect(diagram.filter(has_text=re.compile("^L 0.9507$"))).to_have_count(1)  # with the weights before it
    page.locator(".step-list button").last.click()
    expect(title).to_have_text("Forward again")
    for text in ("0.8794", "b −0.6135", "z −0.6094", "p 0.3522", "L 0.4341"):
        expect(diagram.filter(has_text=re.compile(f"^{text}$"))).to_have_count(1)
    expect(diagram.filter(has_text=re.compile("→|^d"))).to_have_count(0)
    expect(page.locator("#step-next")).to_be_disabled()
    page.get_by_role("button", name="This network").click()
    expect(title).to_have_text("Input")
    expect(page.locator(".step-list button").nth(1)).to_have_text("Forward: Dense 784-12")
    page.keyboard.press("ArrowRight")
    bias = page.locator(".step-values .array").first
    expect(bias).to_have_text(re.compile("^(0.0000)+$"))
    page.click("#step")
    expect(bias).not_to_have_text(re.compile("^(0.0000)+$"))  # of the new weights
    expect(title).to_have_text("Forward: Dense 784-12")


def test_code_model_and_gradient_check(lab, server):
    page = lab("view=code&run=" + SHORT)
    expect(page.locator("pre code")).to_contain_text("[784, 12, 10]")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-code")
    expect(page.locator("#toast")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("pre code").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the model").click()
    assert download.value.suggested_filename.endswith(".safetensors")
    page.click("#check")
    expect(page.locator(".check-result .ok")).to_contain_text("agrees")


# ---- Links and reloading ---------------------------------------------------------------------------------------------


def test_the_settings_are_in_the_address(lab, server):
    page = lab("run=" + SHORT)
    page.fill("#hidden-0", "8, 6")
    page.keyboard.press("Enter")
    page.focus("#activation-0")
    page.select_option("#activation-0", "tanh")
    expect(page.locator("#activation-0")).to_have_value("tanh")
    expect(page.locator("#activation-0")).to_be_focused()
    page.click("#tab-inside")
    expect(page).to_have_url(re.compile("view=inside&.*hidden:8-6~activation:tanh"))
    address = page.url
    page.goto("about:blank")
    page.evaluate("() => {}")
    page.goto(address)
    expect(page.locator("html[data-ready]")).to_be_visible()
    expect(page.locator("#tab-inside")).to_have_attribute("aria-selected", "true")
    page.click("#tab-train")
    expect(page.locator("#hidden-0")).to_have_value("8, 6")
    expect(page.locator("#activation-0")).to_have_value("tanh")


def test_a_link_in_the_open_page_changes_the_view_or_the_runs(lab, server):
    page = lab("run=" + SHORT)
    name = experiment_of(page, server).id
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the content
    expect(page.locator("#view-train")).to_be_focused()
    page.evaluate("location.hash = '#view=code&run=' + location.hash.split('run=')[1]")
    expect(page.locator("#tab-code")).to_have_attribute("aria-selected", "true")
    assert experiment_of(page, server).id == name
    page.evaluate("location.hash = '#preset=moons'")
    expect(page.locator("#data-0")).to_have_value("moons")
    assert experiment_of(page, server).id != name


def test_a_page_without_a_place_says_why(lab, server, page):
    from handgrad.lab.settings import Settings

    for _ in range(MAX_EXPERIMENTS):
        server.lab.create([Settings(data="moons", n_train=50)])
    page.goto(server.url)
    expect(page.locator("main [role=alert]")).to_contain_text("close one of them")
    for name in list(server.lab._experiments):
        server.lab.remove(name)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("html[data-ready]")).to_be_visible()
    page.problems[:] = [problem for problem in page.problems if "409" not in problem]


def test_a_reloaded_page_continues_its_run(lab, server):
    page = lab("run=" + SHORT)
    page.click("#epoch")
    expect(fact(page, "Steps")).to_have_text("30")
    name = experiment_of(page, server).id
    page.reload()
    expect(fact(page, "Steps")).to_have_text("30")
    assert experiment_of(page, server).id == name


def test_a_wrong_link_shows_a_sentence_and_the_default(lab):
    page = lab("run=data:synthetic~hidden:9999")
    expect(page.locator("#toast")).to_have_text(re.compile(r"^hidden must be .* units\. The page shows the default"))
    expect(page.locator("#hidden-0")).to_have_value("30")
    lab("preset=none")
    expect(page.locator("#toast")).to_contain_text('The link asks for "none", which does not exist.')
    page.problems[:] = [problem for problem in page.problems if "400" not in problem]


def test_a_wrong_setting_shows_a_sentence_and_keeps_the_run(lab, server):
    page = lab("run=" + SHORT)
    name = experiment_of(page, server).id
    for widths in ("0", "30, x", "-5", "30,,20"):
        page.fill("#hidden-0", widths)
        page.keyboard.press("Enter")
        expect(page.locator("#toast")).to_contain_text(f'"{widths}": expected')
        expect(page.locator("#hidden-0")).to_have_value("12")
    page.fill("#batch_size-0", "0")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("batch_size")
    expect(page.locator("#batch_size-0")).to_have_value("10")
    assert experiment_of(page, server).id == name
    page.click("#step")
    expect(fact(page, "Steps")).to_have_text("1")
    page.problems[:] = [problem for problem in page.problems if "400" not in problem]


def test_a_missing_data_set_is_in_the_list_with_the_reason(built, page, running, no_mnist):
    with running(Lab()) as server:
        page.goto(server.url)
        option = page.locator("#data-0 option[value=mnist]")
        expect(option).to_be_disabled()
        expect(option).to_contain_text("handgrad data fetch")
        expect(page.locator("#data-0")).to_have_value("synthetic")
        page.goto("about:blank")


def test_a_restarted_server_gets_the_run_again(built, page, running):
    with running(Lab()) as first:
        page.goto(f"{first.url}#run={SHORT}")
        page.click("#step")
        expect(fact(page, "Steps")).to_have_text("1")
    expect(page.locator("#offline")).to_be_visible()
    with running(Lab(), first.port):
        expect(page.locator("#offline")).to_be_hidden()
        expect(page.locator("#toast")).to_contain_text("set it up again")
        page.click("#step")
        expect(fact(page, "Steps")).to_have_text("1")
    page.problems.clear()  # the requests to the server that had ended


def test_a_hidden_page_closes_its_stream(lab, server):
    page = lab("run=" + SHORT)
    page.click("#step")
    expect(fact(page, "Steps")).to_have_text("1")
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    wait_until(page, lambda: server.lab.streams == 1)  # that of the page of an earlier test may still end
    page.evaluate(hide, True)
    wait_until(page, lambda: server.lab.streams == 0)
    experiment_of(page, server).command("step")
    page.evaluate(hide, False)
    expect(fact(page, "Steps")).to_have_text("2")


def test_a_closed_page_pauses_its_run(lab, server, monkeypatch):
    monkeypatch.setattr("handgrad.lab.experiments.LEFT", 0.2)
    page = lab("run=" + SMALL)
    page.select_option("#speed", "100")  # it must not finish before
    page.click("#start")
    expect(page.locator("#start")).to_have_text("Pause")
    experiment = experiment_of(page, server)
    page.context.unroute_all()  # on a busy machine, the last request would end while Playwright holds it
    page.goto("about:blank")
    wait_until(page, lambda: experiment.status == "paused")


# ---- Teaching, accessibility, security -------------------------------------------------------------------------------


def test_teaching_mode_keys_and_theme(lab):
    page = lab("run=" + SHORT)
    size = "parseFloat(getComputedStyle(document.documentElement).fontSize)"
    before = page.evaluate(size)
    page.keyboard.press("t")
    expect(page.locator("#teach")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(size) > 1.2 * before
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    expect(page.locator("#keys tbody tr")).to_have_count(14)
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("t")
    expect(page.locator("#teach")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("3")
    expect(page.locator("#tab-mistakes")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("e")
    expect(fact(page, "Steps")).to_have_text("30")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") != theme


def test_a_button_that_is_pressed_with_a_key_keeps_the_focus(lab):
    page = lab("run=" + SHORT)
    for selector, successor in (
        ("#step", "#step"),
        ("#epoch", "#epoch"),
        ("#more-settings", "#more-settings"),
        ("#add-run", "#hidden-1"),
        ("[aria-label='Remove run B']", "#add-run"),
    ):
        page.focus(selector)
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        expect(page.locator(successor)).to_be_focused()
    page.click("#tab-steps")
    expect(page.get_by_text("Step 1 of 12")).to_be_visible()
    page.focus("#step-next")
    for _ in range(11):
        page.keyboard.press("Enter")
    expect(page.locator("#step-next")).to_be_disabled()
    expect(page.locator("#step-back")).to_be_focused()


def test_everything_has_a_name(lab):
    page = lab("run=" + SHORT)
    page.keyboard.press("x")
    page.click("#epoch")
    nameless = """() => [...document.querySelectorAll("canvas, svg, .plot, button, input, select, [role=img]")]
        .filter((each) => each.checkVisibility() && !each.closest("[aria-hidden=true], .uplot"))
        .filter((each) => !(each.getAttribute("aria-label") || each.labels?.length || each.textContent.trim()))
        .map((each) => each.outerHTML.slice(0, 100))"""
    for view in VIEWS:
        page.click(f"#tab-{view}")
        page.wait_for_timeout(150)
        assert page.evaluate(nameless) == [], view


def test_texts_have_enough_contrast_in_light_and_dark(lab):
    page = lab("run=" + SHORT)
    script = """() => ["--ink", "--muted", "--run-a", "--run-b", "--accent", "--ok", "--bad"].flatMap((text) =>
        ["--bg", "--surface", "--sunken"].map((ground) => [text, ground, ...[text, ground].map((name) =>
            getComputedStyle(document.documentElement).getPropertyValue(name).trim())]))"""
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # the page follows the system
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        for text, ground, a, b in page.evaluate(script):
            light, dark = sorted((luminance(a), luminance(b)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, text, ground)


def luminance(color: str) -> float:
    levels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_no_view_is_wider_than_the_screen(lab):
    page = lab(f"run={SHORT}&run={SHORT}~activation:relu")
    page.keyboard.press("x")
    page.click("#epoch")
    for view in VIEWS:
        page.click(f"#tab-{view}")
        for width in (360, 768, 3840):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(60)
            page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


CUT = """selector => [...document.querySelectorAll(selector)]
    .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth).map((each) => each.textContent)"""


def test_counts_and_images_of_the_mistakes_have_space(lab):
    page = lab("view=mistakes&run=" + SHORT)
    page.evaluate("document.documentElement.requestFullscreen = undefined")  # the size of the window stays
    cells = page.locator(".confusion td button")
    expect(cells).to_have_count(100)
    for teaching, width in ((False, 390), (False, 800), (False, 1280), (True, 1280), (True, 1920)):
        page.set_viewport_size({"width": width, "height": 800})
        if teaching and not page.locator("html[data-teaching]").count():
            page.keyboard.press("t")
        cells.evaluate_all("cells => cells.forEach((cell) => { cell.textContent = '1045'; })")
        page.wait_for_timeout(60)
        assert page.evaluate(CUT, ".confusion td button, .choice, .tools") == [], (teaching, width)
        assert page.locator(".gallery-card").bounding_box()["width"] >= 250, (teaching, width)


def test_settings_with_help_stand_at_the_same_height(lab):
    page = lab(f"run={SHORT}&run={SHORT}~activation:relu")
    page.get_by_role("button", name="More…").click()
    for row in range(2):
        tops = {page.locator(f"#{name}-{row}").bounding_box()["y"] for name in ("data", "hidden", "activation", "loss")}
        letter = page.locator(".settings-row .letter").nth(row).bounding_box()["y"]
        assert max(tops) - min(tops) < 2
        assert abs(letter - min(tops)) < 2


def test_the_diagram_is_not_smaller_in_teaching_mode_and_scrolls_to_the_step_on_a_phone(lab):
    page = lab("view=steps&run=" + SHORT)
    page.evaluate("document.documentElement.requestFullscreen = undefined")
    picture, note = page.locator(".step-picture"), page.locator(".step-card .note", has_text="sideways")
    expect(page.locator(".diagram")).to_be_visible()
    expect(note).to_be_hidden()
    width = "() => document.querySelector('.diagram').getBoundingClientRect().width"  # it is drawn again at any time
    before = page.evaluate(width)
    page.keyboard.press("t")
    page.wait_for_timeout(60)
    assert page.evaluate(width) > 0.95 * before
    page.keyboard.press("t")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(note).to_be_visible()
    page.get_by_role("button", name="Output and loss").click()
    expect(page.locator(".node.active")).to_have_count(1)
    frame, circle = picture.bounding_box(), page.locator(".node.active").bounding_box()
    assert frame["x"] <= circle["x"]
    assert circle["x"] + circle["width"] <= frame["x"] + frame["width"]


def test_the_numbers_of_a_chart_grow_in_teaching_mode(lab, page):
    page.add_init_script("""{
        const draw = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (...values) {
            window.drawn = parseFloat(this.font);
            return draw.apply(this, values);
        };
    }""")
    lab("run=" + SHORT)
    page.evaluate("document.documentElement.requestFullscreen = undefined")
    script = "() => [window.drawn, 0.75 * parseFloat(getComputedStyle(document.documentElement).fontSize)]"
    wait_until(page, lambda: page.evaluate("() => window.drawn"))
    before, expected = page.evaluate(script)
    assert before == pytest.approx(expected, abs=1)
    page.keyboard.press("t")
    wait_until(page, lambda: page.evaluate("() => window.drawn") > 1.2 * before)
    now, expected = page.evaluate(script)
    assert now == pytest.approx(expected, abs=1)


def test_nothing_moves_if_motion_is_reduced(lab, page):
    page.emulate_media(reduced_motion="reduce")
    lab("run=" + SHORT)
    moving = """() => [...document.querySelectorAll("*")]
        .filter((each) => getComputedStyle(each).transitionDuration.split(", ").some((time) => parseFloat(time) > 0))
        .map((each) => each.className)"""
    assert page.evaluate(moving) == []


def test_every_request_goes_to_the_server_of_the_page(lab, server, page):
    addresses = []
    page.context.on("request", lambda request: addresses.append(request.url))
    lab()
    for view in VIEWS:
        page.click(f"#tab-{view}")
        page.click("#step")
        page.wait_for_timeout(100)
    assert [address for address in addresses if not address.startswith(("data:", server.url))] == []


def test_class_names_are_shown_as_text(built, page, tmp_path, running):
    image = pytest.importorskip("PIL.Image")
    names = ("<img src=x onerror=alert(1)>", "bird")
    for k, name in enumerate(names):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = np.zeros((20, 14), np.uint8)
            pixels[4 + 6 * k : 9 + 6 * k, 2 + i % 3 : 12] = 255
            image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    with running(Lab(str(tmp_path))) as server:
        page.goto(f"{server.url}#view=mistakes&run=data:own~n_train:16~batch_size:4~hidden:5~epochs:2")
        expect(page.locator(".confusion thead th").first).to_have_text(names[0])
        page.keyboard.press("1")
        page.keyboard.press("x")
        expect(page.locator(".bars .bar b").first).to_have_text(names[0])
        expect(page.locator(".sees figcaption")).to_have_text("14 × 20 pixels")
        page.goto("about:blank")


def test_the_sources_set_text_only_as_text():
    sources = Path(__file__).parents[2] / "web"
    if not sources.is_dir():
        pytest.skip("the sources of the page are not in an installed package")
    for path in [sources / "index.html", *sources.glob("src/*.js")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        assert not re.search(r"\sstyle=|setAttribute\(\"style\"|javascript:|<script>", text), path
