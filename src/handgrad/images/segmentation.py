"""Segmentation of photographs: local thresholding, removal of ruled lines, connected components.

The light on a sheet of paper changes slowly or along the straight edge of a shadow, whereas a pen stroke is narrow. The
background is therefore a morphological closing (of dark strokes) or opening (of bright strokes): it keeps every region
that is wider than a window, with the exact position of its edges, and replaces every narrower region.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .decoding import LUMA, block_mean
from .shadows import remove_shadow_edges

Ink = NDArray[np.float32]  # (height, width), 0 for background, up to 1 for strokes
Mask = NDArray[np.bool_]  # (height, width)

COARSE_PIXELS = 200_000  # size of the image in which digits are searched
SMALL = 0.4  # digits below this fraction of the shorter side are read at a higher resolution
WINDOW = 0.45  # side of the window of the background, relative to the shorter side of the image
MIN_CONTRAST = 24 / 255  # contrast between strokes and background; a region with less contrast is background
NOISE = 6  # standard deviations of the noise that a stroke must exceed
LEVEL = 0.45  # a pixel belongs to a stroke above this fraction of the contrast of its region
COLOUR = 2.0  # colours are used if they differ this many times more than the grey levels
MAX_LINE = 0.04  # thickness of a ruled line, relative to the side of the image
MAX_SLOPE = 0.12  # of ruled lines: 7 degrees
SAME_SLOPE = 0.02  # difference of the slopes of parallel lines, with the perspective of a photograph
COVERAGE = 0.85  # a line covers this fraction of the image
PARALLEL_COVERAGE = 0.5  # if there are at least three parallel lines
CLEAR = 0.3  # contrast above which the less likely polarity is not tried
CONTACT = 0.2  # of the size of a component at the border: above, it is a shadow or an edge if a digit is larger
OUTER = 0.15  # width of the margin, relative to the side, in which thin lines are edges
SMALLEST = 0.08  # size of a digit relative to the shorter side of the image, if there is anything else
FAINT, FAINT_BORDER = 0.35, 0.6  # contrast of a digit, relative to the strongest one; and if it touches the border
SAME_LINE = 0.25  # vertical overlap of neighbours in a line of digits, relative to the smaller height
# A digit that fills the image, in even light.
DEEP = 0.55  # contrast between ink and paper, relative to white paper; shadows are weaker
EVEN = 0.15  # largest difference of the paper between quarters of the image, relative to the contrast
BORDER_INK = 0.42  # largest fraction of the pixels at the border that are ink
WHOLE_SIDE = 0.9  # fraction of a side of the image that is ink: above, it is the edge of a table
NEAR_BORDER = 0.15  # distance of the digit from the border, relative to the shorter side of the image
ALONE = 0.9  # fraction of the ink that belongs to the digit
SPECK = 0.3  # components below this fraction of the size of the largest one are dust, or belong to a digit nearby


class Component(NamedTuple):
    """A connected region of strokes, or several that belong to one digit.

    Attributes
    ----------
    top, bottom, left, right : int
        The bounding box in pixels; bottom and right are exclusive.
    labels : tuple of int
        The labels of the regions.
    area : int
        Number of pixels.
    contrast : float
        The highest contrast.
    contact : int
        Number of pixels at the border of the image.
    """

    top: int
    bottom: int
    left: int
    right: int
    labels: tuple[int, ...]
    area: int
    contrast: float
    contact: int

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def size(self) -> int:
        """The longer side in pixels."""
        return max(self.height, self.width)


class Region(NamedTuple):
    """A digit, or what may be one.

    Attributes
    ----------
    box : (left, top, right, bottom)
        In pixels of the levels that were searched.
    strokes : ndarray of float32, shape (height, width)
        0 for background, 1 for strokes, with a margin.
    parts : int
        Number of connected components.
    """

    box: tuple[float, float, float, float]
    strokes: Ink
    parts: int


# ---- Search ----------------------------------------------------------------------------------------------------------


def find_regions(levels: NDArray[np.float32]) -> list[Region]:
    """Find the digits in an image (height, width, channels) with levels 0 to 255, line by line.

    The search has a bounded resolution. Small digits are cropped from the image and segmented again.
    """
    factor = max(1, math.ceil(math.sqrt(levels.shape[0] * levels.shape[1] / COARSE_PIXELS)))
    page = _segment(to_grey(block_mean(levels, factor)))
    if page is None:
        return []
    regions = []
    for part in page.parts:
        region = None
        if factor > 1 and part.size < SMALL * min(page.labels.shape):
            region = _refine(levels, page, part, factor)
        if region is None:
            box = tuple(factor * float(n) for n in (part.left, part.top, part.right, part.bottom))
            region = Region(box, page.crop(part), len(part.labels))  # type: ignore[arg-type]
        regions.append(region)
    return regions


def find_filling_digit(levels: NDArray[np.float32]) -> Region | None:
    """Find the digit of an image that it fills: it is at the border, and there is nothing else in the image.

    The background of `find_regions` is wrong where the strokes are as wide as its window, for example in a narrow image
    that was cropped to a 1. In even light, one threshold separates ink from paper: Otsu's. Returns None if the light is
    not even, the contrast is not clear, or the image has anything else.
    """
    factor = max(1, math.ceil(math.sqrt(levels.shape[0] * levels.shape[1] / COARSE_PIXELS)))
    grey = to_grey(block_mean(levels, factor))
    dark = grey < otsu_threshold(grey)
    ring = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    ink_is_dark = ring.mean() < 0.5
    mask = dark if ink_is_dark else ~dark
    if not mask.any() or mask.all() or min(ring.mean(), 1 - ring.mean()) > BORDER_INK:
        return None
    if max(side.mean() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])) > WHOLE_SIDE:
        return None
    smooth = _smooth(grey)  # as in `contrasts`, so that a digit has the same strokes wherever it is in the image
    signed = -smooth if ink_is_dark else smooth
    paper = float(np.percentile(signed[~mask], 20))  # beyond the soft edges of the strokes
    contrast = float(np.percentile(signed[mask], 75)) - paper
    if contrast < DEEP * (abs(paper) if ink_is_dark else 255):
        return None
    axis = int(grey.shape[1] > grey.shape[0])  # along the longer side: across a narrow image there may be no paper
    quarters = [np.percentile(part, 5) for part in np.array_split(signed, 4, axis=axis)]
    noise = 1.48 / math.sqrt(2) * min(float(np.median(np.abs(np.diff(grey, axis=k)))) for k in (0, 1))
    if max(quarters) - min(quarters) > EVEN * contrast or NOISE * noise > LEVEL * contrast:
        return None
    margin = 2 + round(0.1 * max(grey.shape))
    ink = np.pad(np.clip((signed - paper) / contrast, 0, None).astype(np.float32), margin)
    ink[ink < max(MIN_CONTRAST, NOISE * noise / contrast)] = 0
    labels, count = label(local_threshold(ink))
    parts = select(components(labels, count, ink), labels.shape)
    if len(parts) != 1 or len(parts[0].labels) > 1 or parts[0].area < ALONE * np.count_nonzero(labels):
        return None
    (part,) = parts
    top, left = part.top - margin, part.left - margin
    bottom, right = part.bottom - margin, part.right - margin
    free = min(top, left, grey.shape[0] - bottom, grey.shape[1] - right)
    if free > max(1, NEAR_BORDER * min(grey.shape)):
        return None
    box = (factor * float(left), factor * float(top), factor * float(right), factor * float(bottom))
    return Region(box, _Page(ink, labels, parts).crop(part), len(part.labels))


def otsu_threshold(grey: Ink) -> float:
    """The threshold with the largest variance between the two classes of levels.

    References
    ----------
    Otsu (1979), A threshold selection method from gray-level histograms.
    """
    counts, edges = np.histogram(grey, bins=128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    between = below.astype(float) * above * gap**2
    return float(edges[1:][between.argmax()])


class _Page(NamedTuple):
    """The strokes of an image and the chosen components."""

    ink: Ink
    labels: NDArray[np.int32]
    parts: list[Component]

    def crop(self, part: Component) -> Ink:
        """The strokes of a component with their soft edges, without other components nearby."""
        margin = max(1, round(0.03 * part.size))
        rows = slice(max(part.top - margin, 0), part.bottom + margin)
        columns = slice(max(part.left - margin, 0), part.right + margin)
        labels, ink = self.labels[rows, columns], self.ink[rows, columns]
        own = np.isin(labels, part.labels)
        near = maximum_filter(own.astype(np.float32), 2 * margin + 1) > 0
        soft = np.where(near & (own | (labels == 0)), ink, 0)
        full = np.percentile(ink[own], 90)
        cleared = np.clip((soft / full - np.float32(0.1)) / np.float32(0.9), 0, 1)
        padded: Ink = np.pad(cleared.astype(np.float32), 2)  # so that strokes at the border have an edge, too
        return padded


def _segment(grey: Ink) -> _Page | None:
    """Separate strokes from background, without lines if that leaves a digit.

    The more likely polarity is accepted if its contrast is clear. Otherwise both are compared, and must differ from the
    paper around them.
    """
    grey = remove_shadow_edges(grey)
    pages: list[tuple[float, _Page]] = []
    for contrast in contrasts(grey):
        without = remove_lines(contrast.ink)
        for ink in (without, contrast.ink):
            labels, count = label(local_threshold(ink))
            parts = select(components(labels, count, ink), labels.shape)
            if not pages and max((part.contrast for part in parts), default=0) > CLEAR:
                return _Page(ink, labels, parts)
            parts = [part for part in parts if _is_ink(grey, contrast, labels, part)]
            if parts:
                score = max(part.contrast * math.sqrt(part.area) for part in parts)
                pages.append((score, _Page(ink, labels, parts)))
                break
            if not (without < contrast.ink).any():
                break
    return max(pages, key=lambda scored: scored[0])[1] if pages else None


def _is_ink(grey: Ink, contrast: Contrast, labels: NDArray[np.int32], part: Component) -> bool:
    """Whether a component differs from most pixels around it. The paper between the strokes of a digit does not."""
    margin = part.size // 2 + 1
    around = (
        slice(max(part.top - margin, 0), part.bottom + margin),
        slice(max(part.left - margin, 0), part.right + margin),
    )
    levels, own = grey[around], np.isin(labels[around], part.labels)
    if own.all():
        return True
    stroke, paper = float(np.median(levels[own])), float(np.median(levels))
    background = float(np.median(contrast.background[around][own]))
    return contrast.sign * (stroke - paper) > 0.5 * abs(stroke - background)


def _refine(levels: NDArray[np.float32], page: _Page, part: Component, factor: int) -> Region | None:
    """Segment the surroundings of a component at a higher resolution."""
    margin = max(3, round(0.4 * part.size))
    top, left = max(part.top - margin, 0), max(part.left - margin, 0)
    rows = slice(top * factor, (part.bottom + margin) * factor)
    columns = slice(left * factor, (part.right + margin) * factor)
    crop = levels[rows, columns]
    reduction = max(1, math.ceil(math.sqrt(crop.shape[0] * crop.shape[1] / COARSE_PIXELS)))
    if reduction >= factor:
        return None
    fine = _segment(to_grey(block_mean(crop, reduction)))
    if fine is None:
        return None
    # The fine components that overlap with the coarse one.
    height, width = fine.labels.shape
    coarse = np.isin(page.labels, part.labels)
    at_rows = np.minimum((np.arange(height) * reduction) // factor + top, len(coarse) - 1)
    at_columns = np.minimum((np.arange(width) * reduction) // factor + left, coarse.shape[1] - 1)
    overlap = coarse[np.ix_(at_rows, at_columns)]
    chosen = [p for p in fine.parts if (overlap & np.isin(fine.labels, p.labels)).sum() > 0.3 * p.area]
    if not chosen:
        return None
    whole = chosen[0]
    for other in chosen[1:]:
        whole = _join(whole, other)
    if whole.size * reduction > 1.3 * part.size * factor:
        return None
    box = (
        left * factor + whole.left * reduction,
        top * factor + whole.top * reduction,
        left * factor + whole.right * reduction,
        top * factor + whole.bottom * reduction,
    )
    return Region(box, fine.crop(whole), len(whole.labels))


# ---- Background and contrast -----------------------------------------------------------------------------------------


def to_grey(levels: NDArray[np.float32]) -> Ink:
    """Project (height, width, channels) on the grey levels, or on the colour axis with the largest local contrast.

    Ink and paper of the same luminance but different colour are only separated by the colour axis.
    """
    if levels.shape[2] == 1:
        return levels[..., 0]
    grey: Ink = levels @ LUMA
    radius = max(1, round(WINDOW * min(grey.shape) / 2))
    local = np.stack([c - box_mean(c, radius) for c in np.moveaxis(levels, 2, 0)], axis=-1).reshape(-1, 3)
    values, axes = np.linalg.eigh(local.T @ local / len(local))
    axis = axes[:, -1].astype(np.float32)
    direction = np.full(3, 1 / math.sqrt(3), np.float32)
    along_grey = float(np.mean((local @ direction) ** 2))
    if values[-1] < COLOUR * along_grey:
        return grey
    projected: Ink = levels @ (axis * np.sign(axis[np.abs(axis).argmax()]))
    return projected


def _smooth(grey: Ink) -> Ink:
    """Reduce the noise of an image whose strokes are wide enough."""
    return box_mean(grey, 1) if min(grey.shape) >= 100 else grey


class Contrast(NamedTuple):
    """The strokes of one polarity, the estimated background, and the sign: -1 for dark strokes, 1 for bright ones."""

    ink: Ink
    background: Ink
    sign: int


def contrasts(grey: Ink) -> Iterator[Contrast]:
    """Yield the contrast of dark and of bright strokes, the more likely first: 0 background, 1 black on white."""
    side = min(grey.shape)
    smooth = _smooth(grey)
    window = max(3, round(WINDOW * side)) | 1
    # Noise per pixel, from the differences of neighbours, of which strokes and shadows change few.
    noise = np.float32(1.48 / math.sqrt(2) * float(np.median(np.abs(np.diff(grey, axis=1)))))
    noise /= np.float32(3 if side >= 100 else 1)
    relative = smooth - box_mean(smooth, window // 2)
    bright = float((relative**3).sum()) > 0  # strokes are the minority of the pixels, far from the mean
    for is_bright in (bright, not bright):
        if is_bright:
            opened = maximum_filter(minimum_filter(smooth, window), window)
            ink = _strokes(
                np.asarray((smooth - opened) / 255, np.float32), np.full(grey.shape, noise / 255, np.float32), window
            )
            yield Contrast(ink, opened, 1)
        else:
            closed = minimum_filter(maximum_filter(smooth, window), window)
            # The light multiplies the levels. The ratio to the background does not depend on it.
            reference = np.maximum(closed, np.float32(0.25 * max(float(closed.max()), 1e-3)))
            ratio = np.asarray(smooth / reference, np.float32)
            ink = _strokes(1 - ratio, np.asarray(noise / reference, np.float32), window)
            yield Contrast(ink, closed, -1)


def _strokes(contrast: Ink, noise: Ink, window: int) -> Ink:
    """Set the background to 0, which is the local mean of the contrast without the strokes."""
    threshold = np.maximum(np.float32(MIN_CONTRAST), NOISE * noise)
    level: Ink = np.full_like(contrast, np.median(contrast))
    radius = max(1, window // 3)
    for _ in range(2):
        paper = (contrast - level < threshold).astype(np.float32)
        share = box_mean(paper, radius)
        level = np.asarray(box_mean(contrast * paper, radius) / np.maximum(share, 1e-3), np.float32)
    cleared = contrast - level
    return np.where(cleared > threshold, cleared, np.float32(0))


def box_mean(x: Ink, radius: int) -> Ink:
    """Mean over windows of 2 radius + 1 pixels, by cumulative sums; the windows are cut off at the border."""
    for axis in (0, 1):
        sums = np.cumsum(x, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        positions = np.arange(x.shape[axis])
        first, last = np.maximum(positions - radius, 0), np.minimum(positions + radius + 1, x.shape[axis])
        count = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
        x = ((sums.take(last, axis) - sums.take(first, axis)) / count).astype(np.float32)
    return x


def maximum_filter(x: Ink, window: int) -> Ink:
    """Maximum over square windows with an odd side; the windows are cut off at the border."""
    for _ in range(2):
        x = _running_maximum(x, window).T
    return x


def minimum_filter(x: Ink, window: int) -> Ink:
    """Minimum over square windows with an odd side."""
    return -maximum_filter(-x, window)


def _running_maximum(x: Ink, window: int) -> Ink:
    """Maximum over windows of rows: the length doubles with every step."""
    half, rows = window // 2, len(x)
    padded = np.pad(x, ((half, half), (0, 0)), constant_values=-np.inf)
    length = 1
    while length < window:
        step = min(length, window - length)
        padded = np.maximum(padded[:-step], padded[step:])
        length += step
    return np.ascontiguousarray(padded[:rows])


# ---- Ruled lines -----------------------------------------------------------------------------------------------------


def remove_lines(ink: Ink) -> Ink:
    """Remove ruled lines, squared paper and frames: long, thin, straight lines, almost parallel to a side.

    A pixel of a line keeps the ink that is both above and below the line, so that a stroke which crosses it stays.
    """
    for _ in range(2):
        ink = _remove_horizontal(ink).T
    return ink


def _remove_horizontal(ink: Ink) -> Ink:
    height, width = ink.shape
    if min(height, width) < 20:
        return ink
    mask = ink > 0
    thickest = max(1, round(MAX_LINE * height))
    # Columns are counted in blocks, because the rows of a block are the same for slopes this small.
    block = max(1, width // 64)
    blocks = width // block
    counts = mask[:, : blocks * block].reshape(height, blocks, block).mean(axis=2)
    middles = (np.arange(blocks) + 0.5) * block - width / 2
    slopes = np.linspace(-MAX_SLOPE, MAX_SLOPE, 2 * math.ceil(MAX_SLOPE * width / 2) + 1)
    found: list[tuple[float, float, int, int]] = []
    rows = np.arange(height)[:, None]
    for slope in slopes:
        at = rows + np.rint(slope * middles).astype(int)
        inside = (at >= 0) & (at < height)
        values = np.where(inside, counts[np.clip(at, 0, height - 1), np.arange(blocks)], 0)
        share = values.sum(axis=1) / np.maximum(inside.sum(axis=1), blocks / 2)
        for first, last in _runs(share >= PARALLEL_COVERAGE):
            if last - first <= thickest:
                found.append((float(share[first:last].max()), float(slope), first, last))
    if min(height, width) < 60:  # strokes are as thin as lines: only frames
        found = [line for line in found if line[0] >= COVERAGE]
    lines = _distinct(found, height)
    result = ink.copy()
    for share, slope, first, last in lines:
        parallel = (
            sum(abs(slope - other[1]) <= SAME_SLOPE for other in lines) >= 3 and abs(slope - lines[0][1]) <= SAME_SLOPE
        )
        if share >= COVERAGE or parallel:
            _erase(result, ink, slope, first, last)
    return result


def _runs(flags: Mask) -> list[tuple[int, int]]:
    """First and last (exclusive) index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _distinct(found: list[tuple[float, float, int, int]], height: int) -> list[tuple[float, float, int, int]]:
    """The strongest of the lines that overlap in the middle of the image."""
    kept: list[tuple[float, float, int, int]] = []
    taken = np.zeros(height, bool)
    for line in sorted(found, key=lambda line: (-round(line[0], 2), abs(line[1]))):
        first, last = max(line[2] - 2, 0), line[3] + 2
        if not taken[first:last].any():
            kept.append(line)
            taken[first:last] = True
    return kept


def _erase(result: Ink, ink: Ink, slope: float, first: int, last: int) -> None:
    """Replace the pixels of a line by the smaller of the ink above and below, straight or slanted."""
    height, width = ink.shape
    columns = np.arange(width)
    shift = np.rint(slope * (columns + 0.5 - width / 2)).astype(int)
    top, bottom = first - 1, last  # with the soft edge of the line
    above, below = (np.clip(row + shift, 0, height - 1) for row in (top - 1, bottom + 1))
    upper, lower = ink[above, columns], ink[below, columns]
    upper[top - 1 + shift < 0] = lower[bottom + 1 + shift >= height] = 0
    reach = bottom - top + 1
    upper, lower = np.pad(upper, reach), np.pad(lower, reach)
    kept = np.zeros(width, np.float32)
    for lean in range(-reach, reach + 1):  # of a stroke that crosses the line, in half pixels
        left, right = reach + lean // 2, reach - (lean + 1) // 2
        kept = np.maximum(kept, np.minimum(upper[left : left + width], lower[right : right + width]))
    for row in range(top, bottom + 1):
        at = row + shift
        ok = (at >= 0) & (at < height)
        result[at[ok], columns[ok]] = np.minimum(result[at[ok], columns[ok]], kept[ok])


# ---- Connected components --------------------------------------------------------------------------------------------


def label(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Label the connected components, diagonal neighbours included.

    Union-find on the runs of each row: runs of neighbouring rows that touch are joined to the smaller root until every
    run has the root of its neighbours.

    Returns
    -------
    labels : ndarray of int32, shape (height, width)
        0 for background, 1 to count for the components.
    count : int
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    first, last = edges[::2], edges[1::2]  # flat positions; last is exclusive
    count = len(first)
    roots = np.arange(count)
    row = width + 2
    low = np.searchsorted(last, first + row, "left")
    high = np.searchsorted(first, last + row, "right")
    touching = np.maximum(high - low, 0)
    a = np.repeat(np.arange(count), touching)
    b = np.arange(len(a)) - np.repeat(np.cumsum(touching) - touching, touching) + np.repeat(low, touching)
    while True:
        root_a, root_b = roots[a], roots[b]
        different = root_a != root_b
        if not different.any():
            break
        a, b = a[different], b[different]
        smaller, larger = np.minimum(root_a, root_b)[different], np.maximum(root_a, root_b)[different]
        np.minimum.at(roots, larger, smaller)
        while True:
            parents = roots[roots]
            if np.array_equal(parents, roots):
                break
            roots = parents
    unique, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros((height, width + 2), np.int32)
    labels.reshape(-1)[flat > 0] = np.repeat(numbers.astype(np.int32) + 1, last - first)
    return labels[:, 1:-1], len(unique)


def local_threshold(ink: Ink) -> Mask:
    """Pixels above LEVEL times the contrast of their region: faint and dark regions each get their own level."""
    labels, count = label(ink > 0)
    highest = np.zeros(count + 1, np.float32)
    np.maximum.at(highest, labels.ravel(), ink.ravel())
    mask: Mask = (ink > 0) & (ink > LEVEL * highest[labels])
    return mask


def components(labels: NDArray[np.int32], count: int, ink: Ink) -> list[Component]:
    """Describe each component."""
    if not count:
        return []
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    areas = np.bincount(numbers, minlength=count + 1)
    contrast = np.zeros(count + 1, np.float32)
    np.maximum.at(contrast, numbers, ink[rows, columns])
    contact = np.zeros(count + 1, np.int64)
    depth = 1 + min(labels.shape) // 100  # a soft edge
    for side in (labels[:depth], labels[-depth:], labels[:, :depth].T, labels[:, -depth:].T):
        touching = np.sort(side, axis=0)
        touching[1:][touching[1:] == touching[:-1]] = 0  # each component once in each row or column
        contact += np.bincount(touching.ravel(), minlength=count + 1)
    boxes = []
    for positions in (rows, columns):
        low, high = np.full(count + 1, np.iinfo(np.int64).max), np.full(count + 1, -1)
        np.minimum.at(low, numbers, positions)
        np.maximum.at(high, numbers, positions)
        boxes += [low, high + 1]
    return [
        Component(top, bottom, left, right, (k,), int(areas[k]), float(contrast[k]), int(contact[k]))
        for k, (top, bottom, left, right) in enumerate(np.stack(boxes, axis=1).tolist())
        if k > 0
    ]


def select(parts: list[Component], shape: tuple[int, int]) -> list[Component]:
    """Choose the components that may be digits, line by line: not dust, not the edge of a table or a frame.

    Small components are joined to the digit that they touch or almost touch.
    """
    inner = [part for part in parts if not _is_border(part, shape)]
    if not any(part.size >= max(SMALLEST * min(shape), 3) for part in inner):
        inner = parts  # the digit fills the image
    if not inner:
        return []
    inner = [part for part in inner if not _is_edge(part, inner, shape)]
    largest = max((part.size for part in inner if not part.contact), default=0)
    inner = [part for part in inner if part.contact < CONTACT * part.size or part.size > largest]
    strongest = max(inner, key=lambda part: part.contrast * math.sqrt(part.area)).contrast
    inner = [part for part in inner if part.contrast >= (FAINT_BORDER if part.contact else FAINT) * strongest]
    largest = max(part.size for part in inner)
    digits = [part for part in inner if part.size >= SPECK * largest]
    digits.sort(key=lambda part: part.size, reverse=True)
    joined: list[Component] = []
    for part in digits:
        for i, other in enumerate(joined):
            if _belongs(part, other):
                joined[i] = _join(other, part)
                break
        else:
            joined.append(part)
    joined = [part for part in joined if part.height >= 0.45 * largest or part.size >= 0.6 * largest]
    for part in inner:
        if part.size < SPECK * largest and part.size > 0.08 * largest:
            for i, other in enumerate(joined):
                if _belongs(part, other):
                    joined[i] = _join(other, part)
                    break
    return reading_order(joined)


def reading_order(parts: list[Component]) -> list[Component]:
    """Sort by lines from top to bottom, and within a line from left to right.

    A digit belongs to the line whose last digit is at the same height. Therefore a slanted line stays one line.
    """
    lines: list[list[Component]] = []
    for part in sorted(parts, key=lambda part: part.left):
        line = max(lines, key=lambda line: _same_height(line[-1], part), default=[])
        if line and _same_height(line[-1], part) >= SAME_LINE:
            line.append(part)
        else:
            lines.append([part])
    lines.sort(key=lambda line: sum(part.top + part.bottom for part in line) / len(line))
    return [part for line in lines for part in line]


def _same_height(a: Component, b: Component) -> float:
    """The vertical overlap of two components, relative to the smaller height; negative if there is a gap."""
    return (min(a.bottom, b.bottom) - max(a.top, b.top)) / min(a.height, b.height)


def _is_border(part: Component, shape: tuple[int, int]) -> bool:
    """Whether a component is along the border: the edge of the sheet, a table, a frame, a dark corner."""
    height, width = shape
    touches = (part.top == 0) + (part.bottom == height) + (part.left == 0) + (part.right == width)
    long = part.height >= 0.6 * height or part.width >= 0.6 * width
    frame = part.height > 0.9 * height and part.width > 0.9 * width
    return touches >= 3 or (touches > 0 and long) or frame or part.contact >= 0.5 * part.size


def _is_edge(part: Component, parts: list[Component], shape: tuple[int, int]) -> bool:
    """Whether a component is what is left of a frame or an edge: around another one, or a thin line near the border."""
    height, width = shape
    others = [other for other in parts if other is not part and other.size > SMALLEST * min(shape)]
    if not others:
        return False
    largest = max(others, key=lambda other: other.size)
    if any(
        part.top < other.top and part.bottom > other.bottom and part.left < other.left and part.right > other.right
        for other in others
        if other.size > SPECK * part.size and part.size > 0.5 * min(shape)
    ):
        return True
    thin = min(part.height, part.width) < 0.15 * part.size
    outer = (
        part.bottom < OUTER * height
        or part.top > (1 - OUTER) * height
        or part.right < OUTER * width
        or part.left > (1 - OUTER) * width
    )
    fine = part.area / part.size < 0.45 * max(other.area / other.size for other in others)
    return thin and outer and (fine or part.size > 1.3 * largest.size)


def _belongs(part: Component, digit: Component) -> bool:
    """Whether a component is a separate stroke of a digit, such as the bar of a 5."""
    gap_v = max(part.top - digit.bottom, digit.top - part.bottom, 0)
    gap_h = max(part.left - digit.right, digit.left - part.right, 0)
    overlap = min(part.right, digit.right) - max(part.left, digit.left)
    if gap_v > 0.15 * digit.size or gap_h > 0.08 * digit.size:
        return False
    if part.size < 0.5 * digit.size and (overlap > 0 or (gap_h <= 0.08 * digit.size and gap_v == 0)):
        return True
    height = max(part.bottom, digit.bottom) - min(part.top, digit.top)
    return overlap >= 0.35 * min(part.width, digit.width) and height <= 1.6 * max(part.height, digit.height)


def _join(a: Component, b: Component) -> Component:
    return Component(
        min(a.top, b.top),
        max(a.bottom, b.bottom),
        min(a.left, b.left),
        max(a.right, b.right),
        a.labels + b.labels,
        a.area + b.area,
        max(a.contrast, b.contrast),
        a.contact + b.contact,
    )
