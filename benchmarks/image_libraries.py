"""Reading photographs of digits: handgrad's NumPy compared with OpenCV and scikit-image.

    pip install opencv-python-headless scikit-image
    OPENBLAS_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 python -m benchmarks.image_libraries [--digits 30]
    python -m benchmarks.image_libraries --quick     3 images of each kind, without writing anything

The photographs, the model and everything after the segmentation are the same as in `benchmarks.photos`: decoding of the
file, scaling and centring of each digit, mean over five rotations, check of the shape and detector. Only the
segmentation differs. It finds the strokes of each digit in the pixels of a photograph:

- handgrad: `handgrad.images.segmentation`, with NumPy.
- OpenCV: background by a morphological closing, Otsu's threshold, lines by morphology, connected components.
- scikit-image: Sauvola's local threshold, lines by morphology, connected components.

The parameters of the last two were chosen on photographs of the first range and on images without a digit, in half an
hour. The window of OpenCV's closing was also compared on the other photographs, in favour of OpenCV. Those of handgrad
were chosen on the first range, and checked on a few photographs of the second range.
Writes image_libraries.md and image_libraries.json to benchmarks/results, and the table of docs/howto/photos.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import re
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from handgrad import Model
from handgrad.images import reading
from handgrad.images.segmentation import Region

from .photos import NOT_DIGITS, SCENES, measure, pair, photograph, trained, two_kinds
from .tables import RESULTS, about, between, machine, save, save_json, table

Levels = NDArray[np.float32]
Segmentation = Callable[[Levels], list[Region]]
Box = tuple[int, int, int, int]  # left, top, width, height

OWN = {"numpy", "pillow"}  # packages that handgrad needs for images in any case
LONGER_SIDE = (300, 1000)  # pixels; smaller images are enlarged, larger ones are reduced
MIN_CONTRAST = 24 / 255  # as in handgrad


# ---- Segmentation with a library -------------------------------------------------------------------------------------


def opencv(levels: Levels) -> list[Region]:
    """Find digits with OpenCV: background by a morphological closing, Otsu's threshold, connected components."""
    import cv2

    image = np.uint8(np.clip(levels, 0, 255))
    longer = max(image.shape[:2])
    factor = np.clip(longer, *LONGER_SIDE) / longer
    filtering = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=filtering)
    if image.ndim == 3:  # the lightness, or a colour if ink and paper have the same lightness
        channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        image = channels[int(np.argmax([1, 2, 2] * np.array([np.std(c) for c in channels])))]
    height, width = image.shape
    short = min(height, width)
    image = cv2.GaussianBlur(image, (0, 0), np.clip(0.004 * short, 0.8, 1.5))
    difference = cv2.subtract(cv2.medianBlur(image, round(0.4 * short) | 1), image, dtype=cv2.CV_32F)
    dark = float((difference**3).sum()) > 0  # dark ink on bright paper
    window = np.ones((round(0.35 * short) | 1,) * 2, np.uint8)
    background = cv2.morphologyEx(image, cv2.MORPH_CLOSE if dark else cv2.MORPH_OPEN, window)
    background = background.astype(np.float32)
    ink = (background - image) / np.maximum(background, 64) if dark else (image - background) / 255
    ink = np.clip(ink, 0, 1)
    level, _ = cv2.threshold(np.uint8(255 * ink), 0, 255, cv2.THRESH_OTSU)
    mask = np.uint8(ink > max(level / 255, MIN_CONTRAST))
    cleared = _opencv_lines(_opencv_lines(mask).T).T
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(cleared), connectivity=8)
    groups = choose([tuple(int(n) for n in box[:4]) for box in boxes[1:count]], (height, width))  # type: ignore[misc]
    reach = np.ones((3, 3), np.uint8)
    return [_region(ink, labels, group, factor, lambda own: cv2.dilate(np.uint8(own), reach) > 0) for group in groups]


def _opencv_lines(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove thin lines that are longer than 0.7 of the width, except where a stroke crosses them."""
    import cv2

    mask = np.ascontiguousarray(mask)
    height, width = mask.shape
    thin = mask - cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((max(3, round(0.025 * height)), 1), np.uint8))
    joined = cv2.morphologyEx(thin, cv2.MORPH_CLOSE, np.ones((1, max(3, width // 3)), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    lines = np.flatnonzero((boxes[:, 2] > 0.7 * width) & (boxes[:, 3] < 0.2 * height))
    return np.where(np.isin(labels, lines[lines > 0]) & (thin > 0), 0, mask).astype(np.uint8)


def scikit_image(levels: Levels) -> list[Region]:
    """Find digits with scikit-image: Sauvola's local threshold, connected components."""
    from skimage import color, filters, measure, morphology, transform

    image = np.clip(levels, 0, 255) / 255
    longer = max(image.shape[:2])
    factor = float(np.clip(longer, *LONGER_SIDE)) / longer
    size = (max(3, round(image.shape[0] * factor)), max(3, round(image.shape[1] * factor)))
    image = transform.resize(image, size, order=3, anti_aliasing=factor < 1)
    if image.shape[2] == 1:
        image = image[..., 0]
    else:  # the lightness, or a colour if ink and paper have the same lightness
        lab = color.rgb2lab(np.clip(image, 0, 1)) / 100
        image = lab[..., int(np.argmax([1, 2, 2] * lab.std(axis=(0, 1))))]
        image = image - min(float(image.min()), 0)
    height, width = image.shape
    short = min(height, width)
    image = filters.gaussian(np.clip(image, 0, 1), np.clip(0.004 * short, 0.8, 1.5))
    difference = filters.gaussian(image, 0.1 * short) - image
    if float((difference**3).sum()) < 0:  # bright ink
        image = 1 - image
    paper = image > filters.threshold_sauvola(image, round(0.4 * short) | 1, k=0.2)
    share = filters.gaussian(paper.astype(float), 0.1 * short)
    background = filters.gaussian(image * paper, 0.1 * short) / np.maximum(share, 1e-3)
    ink = np.clip(1 - image / np.maximum(background, 0.25), 0, 1)
    mask = ~paper & (ink > MIN_CONTRAST)
    mask = _scikit_image_lines(_scikit_image_lines(mask).T).T
    labels = measure.label(mask, connectivity=2)
    boxes = []
    for part in measure.regionprops(labels):
        top, left, bottom, right = part.bbox
        boxes.append((left, top, right - left, bottom - top))
    reach = morphology.footprint_rectangle((3, 3))
    groups = choose(boxes, (height, width))
    return [_region(ink, labels, group, factor, lambda own: morphology.dilation(own, reach)) for group in groups]


def _scikit_image_lines(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove thin lines that are longer than 0.7 of the width, except where a stroke crosses them."""
    from scipy import ndimage
    from skimage import measure, morphology

    height, width = mask.shape
    thin = mask & ~morphology.opening(mask, morphology.footprint_rectangle((max(3, round(0.025 * height)), 1)))
    window = max(3, width // 3)  # a closing with scikit-image's footprints takes a second for large images
    joined = ndimage.minimum_filter1d(ndimage.maximum_filter1d(np.uint8(thin), window), window) > 0
    labels = measure.label(joined, connectivity=2)
    result = mask.copy()
    for part in measure.regionprops(labels):
        top, left, bottom, right = part.bbox
        if right - left > 0.7 * width and bottom - top < 0.2 * height:
            result[(labels == part.label) & thin] = False
    return result


# ---- What both have in common ----------------------------------------------------------------------------------------


def choose(boxes: list[Box], shape: tuple[int, int]) -> list[list[int]]:
    """Group the components that belong to one digit, without dust, frames and edges, from left to right.

    Parameters
    ----------
    boxes : list of (left, top, width, height)
        The components, with the labels 1, 2, ...
    shape : (height, width)
        Size of the image in pixels.

    Returns
    -------
    list of list of int
        The labels of each digit.
    """
    height, width = shape
    inner = {}
    for label, (left, top, w, h) in enumerate(boxes, 1):
        touches = (left <= 1) + (top <= 1) + (left + w >= width - 1) + (top + h >= height - 1)
        long = w > 0.6 * width or h > 0.6 * height or min(w, h) < 0.15 * max(w, h)
        edge = (touches and long) or (w > 0.9 * width and h > 0.9 * height)
        if not edge and max(w, h) >= 0.08 * min(shape):
            inner[label] = (left, top, w, h)
    largest = max((max(box[2:]) for box in inner.values()), default=0)
    if not any(box[3] >= 0.45 * largest for box in inner.values()):  # the digit fills the image
        inner = dict(enumerate(boxes, 1))
        largest = max((max(box[2:]) for box in boxes), default=0)
    groups: list[tuple[list[int], Box]] = []
    for label, box in sorted(inner.items(), key=lambda item: -max(item[1][2:])):
        size = max(box[2:])
        for i, (labels, (left, top, w, h)) in enumerate(groups):
            overlap = min(left + w, box[0] + box[2]) - max(left, box[0])
            gap = max(top - box[1] - box[3], box[1] - top - h)
            if size >= 0.12 * largest and overlap > -0.03 * largest and gap < 0.12 * largest:
                x, y = min(left, box[0]), min(top, box[1])
                right, bottom = max(left + w, box[0] + box[2]), max(top + h, box[1] + box[3])
                groups[i] = ([*labels, label], (x, y, right - x, bottom - y))
                break
        else:
            if box[3] >= 0.45 * largest:
                groups.append(([label], box))
    return [labels for labels, _ in sorted(groups, key=lambda group: group[1][0])][: reading.MAX_DIGITS]


def _region(
    ink: NDArray[Any], labels: NDArray[Any], group: Collection[int], factor: float, dilate: Callable[[Any], Any]
) -> Region:
    """Cut out the strokes of one digit with their soft edges."""
    own = np.isin(labels, list(group))
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    around = np.s_[max(rows[0] - 2, 0) : rows[-1] + 3, max(columns[0] - 2, 0) : columns[-1] + 3]
    own, ink = own[around], ink[around]
    strokes = np.where(dilate(own), np.clip(ink / np.percentile(ink[own], 90), 0, 1), 0)
    box = (columns[0] / factor, rows[0] / factor, (columns[-1] + 1) / factor, (rows[-1] + 1) / factor)
    return Region(box, np.pad(strokes.astype(np.float32), 2), len(group))


# ---- Measurement -----------------------------------------------------------------------------------------------------


SEGMENTATIONS: dict[str, tuple[Segmentation, str, tuple[str, ...]]] = {  # function, module, packages
    "handgrad (NumPy)": (reading._regions, "numpy", ()),
    "OpenCV": (opencv, "cv2", ("opencv-python-headless",)),
    "scikit-image": (scikit_image, "skimage", ("scikit-image",)),
}


class Timed:
    """A segmentation that adds up its time: seconds of the processor, of all threads."""

    def __init__(self, segmentation: Segmentation) -> None:
        self.segmentation, self.seconds = segmentation, 0.0

    def __call__(self, levels: Levels) -> list[Region]:
        """Find the digits of one image."""
        start = time.process_time()
        regions = self.segmentation(levels)
        self.seconds += time.process_time() - start
        return regions


def compare(model: Model, photographs: list[Any], labels: list[str]) -> dict[str, dict[str, float]]:
    """Read the same photographs with each segmentation. Return the fractions of `measure`, and seconds per image."""
    found = {}
    for name, (segmentation, _, _) in SEGMENTATIONS.items():
        timed = Timed(segmentation)
        start = time.process_time()
        with mock.patch.object(reading, "_regions", timed):
            found[name] = measure(model, photographs, labels)
        found[name]["seconds"] = timed.seconds / len(labels)
        found[name]["seconds in all"] = (time.process_time() - start) / len(labels)
    return found


def requirements(name: str) -> set[str]:
    """Return the names of a package and of the installed packages it requires, without extras, NumPy and Pillow."""
    found, queue = set[str](), [name]
    while queue:
        package = re.sub("[-_.]+", "-", queue.pop()).lower()
        if package in OWN | found:
            continue
        with suppress(importlib.metadata.PackageNotFoundError):  # required on other systems
            lines = importlib.metadata.requires(package) or []
            found.add(package)
            queue += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return found


def installed_bytes(name: str) -> int:
    """Return the size of the files of a package, without compiled Python files."""
    files = importlib.metadata.files(name) or []
    paths = [file.locate() for file in files if not str(file).endswith(".pyc")]
    return sum(path.stat().st_size for path in paths if path.is_file())  # type: ignore[attr-defined]


GROUPS = ("first range", "second range", "held back", "no digit")


def report(segmentations: dict[str, Any]) -> str:
    """Return the table in Markdown: one column for each segmentation."""
    columns = []
    for found in segmentations.values():
        groups = {group: list(found["kinds"][group].values()) for group in GROUPS}
        kinds = {
            f"{kind}, {group}": found["kinds"][group][kind] for group in GROUPS[:3] for kind in found["kinds"][group]
        }
        worst = min(kinds, key=lambda kind: kinds[kind]["correct"])
        most_wrong = max(kinds, key=lambda kind: kinds[kind]["confidently wrong"])
        wrong = f"{kinds[most_wrong]['confidently wrong']:.0%}"
        seconds = [kind["seconds"] for kind in kinds.values()]
        columns.append(
            [
                *(f"{np.mean([kind['correct'] for kind in groups[group]]):.1%}" for group in GROUPS[:3]),
                f"{kinds[worst]['correct']:.0%} ({worst})",
                f"{sum(kind['correct'] < 0.9 for kind in kinds.values())} of {len(kinds)}",
                f"{np.mean([kind['confidently wrong'] for kind in kinds.values()]):.1%}",
                f"{wrong} ({most_wrong})" if kinds[most_wrong]["confidently wrong"] else wrong,
                f"{np.mean([kind['not sure'] for kind in groups['no digit']]):.1%}",
                f"{1e3 * np.median(seconds):.0f} ms",
                f"{1e3 * max(seconds):.0f} ms",
                f"{found['megabytes']:.0f} MB",
            ]
        )
    labels = [
        "correct, first range",
        "correct, second range",
        "correct, held back: two kinds at once, two digits",
        "correct, worst kind",
        "kinds with less than 90 % correct",
        "wrong with a confidence above 90 %",
        "the same, worst kind",
        "no digit: answer not sure",
        "time of the segmentation, median kind",
        "time of the segmentation, slowest kind",
        "installed size, beyond NumPy and Pillow",
    ]
    return table(["", *segmentations], [list(row) for row in zip(labels, *columns, strict=True)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=30, help="number of digits for each kind of photographs")
    parser.add_argument("--quick", action="store_true", help="3 digits for each kind, write nothing")
    options = parser.parse_args()
    count = 3 if options.quick else options.digits
    packages = {name: packages for name, (_, _, packages) in SEGMENTATIONS.items()}
    missing = [p for _, module, ps in SEGMENTATIONS.values() if importlib.util.find_spec(module) is None for p in ps]
    if missing:
        parser.exit(2, f"missing packages: run `pip install {' '.join(missing)}`\n")
    model, x, y = trained(False)
    x, names = x[:count], [str(k) for k in y[:count]]
    about_machine = machine()
    about_machine["versions"] |= {p: importlib.metadata.version(p) for ps in packages.values() for p in ps}
    results: dict[str, Any] = {"machine": about_machine, "digits": count, "segmentations": {}}
    for name in SEGMENTATIONS:
        needed = sorted(set[str]().union(*map(requirements, packages[name])))
        results["segmentations"][name] = {
            "packages": needed,
            "megabytes": sum(map(installed_bytes, needed)) / 1e6,
            "kinds": {group: {} for group in GROUPS},
        }

    def add(group: str, kind: str, photographs: list[Any], labels: list[str]) -> None:
        found = compare(model, photographs, labels)
        for name, values in found.items():
            results["segmentations"][name]["kinds"][group][kind] = values
        print(group, kind, *(f"{values['correct']:.0%}" for values in found.values()), sep="  ", flush=True)

    for other, group in ((False, GROUPS[0]), (True, GROUPS[1])):
        for scene in SCENES:
            rng = np.random.default_rng(2 if other else 1)
            add(group, scene, [photograph(scene, digit, rng, other) for digit in x], names)
    rng = np.random.default_rng(4)
    add(GROUPS[2], "two kinds at once", [two_kinds(digit, rng, True) for digit in x], names)
    pairs = [a + b for a, b in zip(names, names[::-1], strict=True)]
    add(GROUPS[2], "two digits", [pair(*two) for two in zip(x, x[::-1], strict=True)], pairs)
    for kind, draw in list(NOT_DIGITS.items())[:-1]:  # without the letters that look like digits
        rng = np.random.default_rng(3)
        add(GROUPS[3], kind, [draw(rng) for _ in range(count)], [""] * count)
    text = f"{count} images of each kind.\n\n{report(results['segmentations'])}"
    print(text)
    if not options.quick:
        save_json(RESULTS / "image_libraries.json", results)
        save(RESULTS / "image_libraries.md", f"{about(about_machine)}\n\n{text}\n")
        page = RESULTS.parents[1] / "docs" / "howto" / "photos.md"
        save(page, between(page.read_text(), {"image libraries": text}))


if __name__ == "__main__":
    main()
