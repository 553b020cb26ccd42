"""Make the pictures of the lab for the documentation, and the animation for the README.

    make lab                  build the page first, then end it with Ctrl-C
    python web/pictures.py    needs Playwright, Chromium and Pillow; takes a minute

The pictures show the digits that this package draws, so that no images of MNIST are in the repository.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from handgrad.lab.server import Lab, make_app

OUT = Path(__file__).parents[1] / "docs/_static/lab"
CHROMIUM = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome-stable", "google-chrome")
RUN = "run=data:synthetic~n_train:20000~hidden:30~initializer:xavier_normal~lr:0.5~epochs:30"
THREE = ((0.3, 0.25), (0.55, 0.17), (0.68, 0.3), (0.5, 0.46), (0.7, 0.6), (0.6, 0.8), (0.3, 0.78))
WIDTH, COLORS, FRAME = 800, 64, 120  # of the animation: pixels, colours, milliseconds


@contextmanager
def served() -> Iterator[str]:
    """The address of a lab that runs in a thread."""
    lab = Lab()
    app = make_app(lab, lambda: server.should_exit)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        lab.close()


class Film:
    """Screenshots that become the frames of a GIF."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def take(self, milliseconds: int = FRAME) -> None:
        """Add a frame with the present page."""
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        height = round(image.height * WIDTH / image.width)
        self.frames.append(image.resize((WIDTH, height), Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write the frames with one palette, which makes the file small."""
        palette = self.frames[-1].quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        first.save(path, save_all=True, append_images=others, duration=self.durations, loop=0, optimize=True)


def open_page(page: Page, address: str, fragment: str) -> None:
    """Open a link and wait until the page is ready."""
    page.goto("about:blank")
    page.goto(f"{address}#{fragment}")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(400)


def draw(page: Page, points: tuple[tuple[float, float], ...], film: Film | None = None) -> None:
    """Draw a line on the pad."""
    box: Any = page.locator("#pad").bounding_box()
    first, *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=4)
        if film:
            page.wait_for_timeout(40)
            film.take()
    page.mouse.up()
    page.wait_for_timeout(200)


def make_film(page: Page, address: str) -> None:
    """Draw a digit, start the training, watch the bars move and the weights form."""
    open_page(page, address, RUN)
    film = Film(page)
    film.take(600)
    draw(page, THREE, film)
    film.take(900)
    page.select_option("#speed", "10")
    page.click("#start")
    for _ in range(8):
        page.wait_for_timeout(100)
        film.take()
    page.select_option("#speed", "")
    for _ in range(22):
        page.wait_for_timeout(60)
        film.take()
    if page.locator("#start").inner_text() == "Pause":  # and not "Start again", after the last epoch
        page.click("#start")
    page.wait_for_timeout(1000)  # the answer is that of the last weights
    film.take(2500)
    film.save(OUT / "lab.gif")


def make_pictures(page: Page, address: str) -> None:
    """A picture of each view."""

    def save(name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(600)
        page.screenshot(path=OUT / f"{name}.png")

    def train(seconds: float) -> None:
        page.click("#start")
        page.wait_for_timeout(1000 * seconds)
        if page.locator("#start").inner_text() == "Pause":
            page.click("#start")

    open_page(page, address, RUN)
    draw(page, THREE)
    train(5)
    save("train")
    page.click("#tab-mistakes")
    page.wait_for_timeout(800)
    cells = page.locator(".confusion td button")
    counts = [int(text or 0) * (i % 11 > 0) for i, text in enumerate(cells.all_inner_texts())]
    cells.nth(counts.index(max(counts))).click()
    page.wait_for_timeout(500)
    page.locator(".gallery .digit").first.click()
    save("mistakes")
    both = RUN.replace("30~init", "30~loss:squared_error~init") + "&" + RUN
    open_page(page, address, "view=compare&" + both.replace("xavier_normal", "normal"))
    train(6)
    page.evaluate("scrollTo(0, 150)")
    save("compare")
    open_page(page, address, "view=plane&preset=spirals")
    train(4)
    save("plane")
    open_page(page, address, "view=steps&" + RUN)
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    save("steps")


def main() -> None:
    """Write all pictures."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        sys.exit(f"no browser was found: install one of {', '.join(CHROMIUM)}")
    OUT.mkdir(parents=True, exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce")
        make_pictures(page, address)
        make_film(page, address)
        browser.close()
    for file in sorted(OUT.iterdir()):
        image = Image.open(file).convert("RGB")
        if file.suffix == ".png":  # 256 colours: a third of the size
            image.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"{file.name}: {image.width} x {image.height}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
