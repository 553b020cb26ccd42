"""Take screenshots of every page of the built documentation, and list what does not fit its box.

    make docs-screenshots                                  all pages: 1280 and 390 px, light and dark
    python docs/screenshots.py tutorials/losses --width 390
    python docs/screenshots.py --check                     no pictures, only the list of what is cut off

The pictures are written to docs/_build/screenshots/WIDTH-SCHEME/. At 1280 px every line of code and of output must fit
its box, and at every width the page must fit the window. The exit status is 1 if something does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parent / "_build"
CHROMIUM = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome-stable", "google-chrome")
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
SKIPPED = ("_modules/", "_static/", "genindex", "py-modindex", "search")
MAX_HEIGHT = 16_000  # pixels of a picture; Chromium cannot draw larger ones

# Lines of code and output, figures, and tables that are wider than their box, and the page itself.
CUT_OFF = """() => {
  const found = [];
  for (const box of document.querySelectorAll("article pre, article .math, article img, article table")) {
    if (!box.checkVisibility()) continue;
    let frame = box;
    while (frame !== document.body && getComputedStyle(frame).overflowX === "visible") frame = frame.parentElement;
    if (frame.scrollWidth > frame.clientWidth + 1 && frame.clientWidth > 0) {
      const text = box.tagName === "PRE" ? box.textContent : box.getAttribute("alt") ?? box.textContent;
      const longest = text.split("\\n").reduce((a, b) => (b.length > a.length ? b : a), "");
      const excess = `${box.tagName.toLowerCase()}, ${frame.scrollWidth - frame.clientWidth} px`;
      found.push(`${excess}: ${longest.trim().slice(0, 90)}`);
    }
  }
  const excess = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (excess > 0) found.push(`page, ${excess} px`);
  return found;
}"""


def pages(root: Path, wanted: list[str]) -> Iterator[tuple[str, Path]]:
    """The names of all pages, or of those whose names contain one of `wanted`."""
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root).with_suffix("").as_posix()
        if not name.startswith(SKIPPED) and (not wanted or any(part in name for part in wanted)):
            yield name, path


def is_serious(width: int, line: str) -> bool:
    """At 390 px, code and tables may scroll inside their box."""
    return line.startswith(("page", "pre")) if width >= 1280 else line.startswith("page")


def look(browser: Any, root: Path, options: argparse.Namespace) -> int:
    """Visit the pages, and return the number of things that do not fit."""
    problems = 0
    for width in options.width:
        for scheme in options.scheme:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            for name, path in pages(root, options.pages):
                page.goto(path.as_uri())
                page.evaluate("async () => { await document.fonts.ready; await window.MathJax?.startup?.promise; }")
                if scheme == options.scheme[0]:
                    lines = page.evaluate(CUT_OFF)
                    serious = [line for line in lines if is_serious(width, line)]
                    problems += len(serious)
                    for line in lines if options.verbose else serious:
                        print(f"{width} px, {name}: {line}")
                if not options.check:
                    target = BUILD / "screenshots" / f"{width}-{scheme}" / f"{name.replace('/', '-')}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    height = min(page.evaluate("document.documentElement.scrollHeight"), MAX_HEIGHT)
                    page.screenshot(
                        path=target, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}
                    )
            context.close()
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="parts of the names of pages; all pages if there is none")
    parser.add_argument("--width", type=int, action="append", help="width of the window in pixels")
    parser.add_argument("--scheme", choices=SCHEMES, action="append", help="colour scheme")
    parser.add_argument("--check", action="store_true", help="take no pictures")
    parser.add_argument("--verbose", action="store_true", help="also list what may scroll inside its box")
    parser.add_argument("--html", type=Path, default=BUILD / "html", help="directory of the built documentation")
    options = parser.parse_args()
    options.width, options.scheme = options.width or WIDTHS, options.scheme or SCHEMES
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        sys.exit(f"no browser was found: install one of {', '.join(CHROMIUM)}")
    if not (options.html / "index.html").exists():
        sys.exit(f"{options.html} has no documentation: run make docs")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        problems = look(browser, options.html, options)
        browser.close()
    print(f"{problems} things do not fit" if problems else "everything fits")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
