"""Removal of hard, straight shadow edges before the segmentation.

A shadow multiplies the light on one side of its edge by a constant. In the logarithm of the levels the edge is a step:

    log level(r, c) = log reflectance(r, c) - J [n · (r, c) > t]

The normal n, the position t and the height J of the step are found with medians along parallel lines, which do not see
the strokes, and the dark side is multiplied by exp(J).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .decoding import block_mean

Grey = NDArray[np.float32]  # (height, width), levels 0 to 255
Edge = tuple[float, float, float, int]  # angle of the normal, position, height J, half width in pixels

SIDE = 48  # pixels of the shorter side of the image in which edges are searched
TILE = 6  # pixels of the search
MIN_SIDE = 100  # smaller images are not searched
ANGLES = 60  # directions of the search
MIN_STEP, MAX_STEP = 0.12, 1.0  # in the logarithm of the levels; darker regions are no shadows
MIN_AREA = 0.2  # of the smaller side, relative to the image; smaller ones are edges of the sheet
ALONG = 0.5  # fraction of the step that three quarters of the edge have
SHARP = 0.75  # fraction of the step, within twice the distance, that is at the edge; less is a soft shadow
BOTH_SIDES = 0.5  # fraction of the step by which the medians of both sides differ
SAME_STEP = 0.5  # relative difference between the step of the search and that of the edge that is found
MAX_EDGES = 2
DARKEST = 4.0  # level that is added before the logarithm, so that noise in black regions is no step
MIN_BAND, BAND = 2, 0.6  # half width of the edge: pixels, and pixels of the search; it is interpolated


def remove_shadow_edges(grey: Grey) -> Grey:
    """Return the levels (height, width) without the steps of light at hard, straight shadow edges."""
    if min(grey.shape) < MIN_SIDE or grey.min() < 0:  # differences of colours may be negative: not levels of light
        return grey
    for _ in range(MAX_EDGES):
        edge = _find_edge(grey)
        if edge is None:
            break
        grey = _flatten(grey, *edge)
    return grey


def _find_edge(grey: Grey) -> Edge | None:
    """The angle, the position, the height J and the half width in pixels of the clearest edge, or None."""
    factor = max(1, min(grey.shape) // SIDE)
    small = block_mean(grey, factor)
    logs = np.log(small + np.float32(DARKEST))
    height, width = (n // TILE for n in logs.shape)
    tiles = logs[: height * TILE, : width * TILE].reshape(height, TILE, width, TILE).max(axis=(1, 3))
    if np.ptp(tiles) < MIN_STEP:  # a shadow covers whole tiles, so that their brightest pixel is darker
        return None
    best, found = MIN_STEP, None
    for angle in np.arange(ANGLES) * math.pi / ANGLES:
        distance = _distance(small.shape, angle)
        lines = np.rint(distance).astype(int).ravel()
        steps = _steps(logs, angle, 2.0).ravel()
        counts = np.bincount(lines - lines.min())
        order = np.lexsort((steps, lines))
        ends = np.cumsum(counts)
        low, middle, high = (
            steps[order][np.minimum(ends - counts + (counts * q).astype(int), ends - 1)] for q in (0.25, 0.5, 0.75)
        )
        weakest = np.where(middle > 0, low * (low > 0), high * (high < 0))
        good = (counts >= SIDE // 3) & (np.abs(weakest) >= ALONG * np.abs(middle))
        for k in np.flatnonzero(good & (np.abs(middle) > best)):
            step, at = float(middle[k]), float(k + lines.min())
            on = lines == at
            wide = _steps(logs, angle, 4.0).ravel()[on]
            if abs(step) < SHARP * abs(float(np.median(wide))):
                continue
            side = distance.ravel() > at
            if not MIN_AREA < side.mean() < 1 - MIN_AREA or abs(step) > MAX_STEP:
                continue
            both = float(np.median(logs.ravel()[side]) - np.median(logs.ravel()[~side]))
            if both * math.copysign(1, step) < BOTH_SIDES * abs(step):
                continue
            best, found = abs(step), (float(angle), at, step)
    if found is None:
        return None
    return _refine(grey, found[0], found[1] * factor, found[2], factor)


def _steps(logs: Grey, angle: float, reach: float) -> Grey:
    """The difference between the pixels at this distance on both sides of each pixel, along the normal."""
    down, right = round(reach * math.sin(angle)), round(reach * math.cos(angle))
    height, width = logs.shape
    padded = np.pad(logs, ((abs(down), abs(down)), (abs(right), abs(right))), mode="edge")
    top, left = abs(down), abs(right)
    ahead = padded[top + down : top + down + height, left + right : left + right + width]
    behind = padded[top - down : top - down + height, left - right : left - right + width]
    return np.asarray(ahead - behind, np.float32)


def _distance(shape: tuple[int, ...], angle: float) -> Grey:
    """The distance of each pixel from the line through the centre with this normal."""
    rows = (np.arange(shape[0], dtype=np.float32) - (shape[0] - 1) / 2) * np.float32(math.sin(angle))
    columns = (np.arange(shape[1], dtype=np.float32) - (shape[1] - 1) / 2) * np.float32(math.cos(angle))
    return np.asarray(rows[:, None] + columns, np.float32)


def _refine(
    grey: Grey, angle: float, position: float, step: float, factor: int
) -> tuple[float, float, float, int] | None:
    """Fit a straight line to the positions of the largest step across the edge, at points along the edge."""
    height, width = grey.shape
    logs = np.log(grey + np.float32(DARKEST))
    along = np.arange(-(height + width) // 2, (height + width) // 2, max(1, factor // 2)).astype(float)
    reach = 4 * factor
    across = np.arange(-reach, reach + 1).astype(float)
    normal = np.array([math.sin(angle), math.cos(angle)])
    rows = (height - 1) / 2 + (position + across) * normal[0] + along[:, None] * normal[1]
    columns = (width - 1) / 2 + (position + across) * normal[1] - along[:, None] * normal[0]
    inside = ((rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)).all(axis=1)
    if inside.sum() < 8:
        return None
    along, rows, columns = along[inside], rows[inside], columns[inside]
    values = logs[np.rint(rows).astype(int), np.rint(columns).astype(int)]
    wide = max(3, factor)  # a hard edge is a little soft
    d = (values[:, wide:] - values[:, :-wide]) * math.copysign(1, step)
    at = across[d.argmax(axis=1)] + wide / 2
    kept = d.max(axis=1) > 0.5 * abs(step)
    for limit in (reach, reach, factor + 1.0, max(3.0, factor / 3), max(2.0, factor / 4)):
        if kept.sum() < 0.4 * len(along):
            return None
        slope, offset = np.polyfit(along[kept], at[kept], 1)
        kept = np.abs(at - (slope * along + offset)) <= limit
    if kept.sum() < 8:
        return None
    # The distance of the fitted line from the centre of the image, and its normal.
    turned = angle - math.atan(slope)
    shift = (position + offset) * math.cos(math.atan(slope))
    profile = values[kept]
    edge = np.rint(slope * along + offset).astype(int)[kept] + reach
    index = np.arange(len(profile))
    low, high = (profile[index, np.clip(edge + n, 0, 2 * reach)] for n in (-wide - 1, wide + 1))
    exact = float(np.median(high - low))
    if abs(exact - step) > SAME_STEP * abs(step):
        return None
    return turned, shift, exact, max(MIN_BAND, round(BAND * factor))


def _flatten(grey: Grey, angle: float, position: float, step: float, band: int) -> Grey:
    """Multiply the dark side, and interpolate across the edge."""
    distance = _distance(grey.shape, angle) - np.float32(position)
    dark = distance > 0 if step < 0 else distance < 0
    light = np.where(dark, (grey + DARKEST) * np.float32(math.exp(abs(step))) - DARKEST, grey).astype(np.float32)
    rows, columns = np.nonzero(np.abs(distance) < band)
    ends = []
    d = distance[rows, columns]
    for side in (-1, 1):
        move = side * (band + 1) - d
        r = np.clip(np.rint(rows + move * math.sin(angle)).astype(int), 0, grey.shape[0] - 1)
        c = np.clip(np.rint(columns + move * math.cos(angle)).astype(int), 0, grey.shape[1] - 1)
        ends.append(light[r, c])
    share = (d + band + 1) / (2 * band + 2)
    light[rows, columns] = ends[0] * (1 - share) + ends[1] * share
    return light
