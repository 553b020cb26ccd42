"""Drawing pad: a notebook widget that reads a drawn digit with a model, see `handgrad.Model.draw`.

The browser sends the drawing as grey levels, and Python answers with the readings of `handgrad.images.predict_image`.
There is no second implementation of the reading in JavaScript.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandgradError, optional
from ..images.reading import Reading, predict_image
from ..model import Model

SIZE = 280  # pixels of the canvas, as in widget.js
MARGIN = 140  # pixels of paper around the drawing, so that a scribble over all of it is not read as the background
MAX_READINGS = 4  # digits of a drawing that are shown
MAX_BARS = 10  # of more classes, only the most probable ones are shown
EMPTY = "Draw a digit."


def drawing_pad(model: Model) -> Any:
    """Create the widget of `Model.draw`.

    Parameters
    ----------
    model : Model
        A classifier of images. It is not copied: the pad uses its current weights.

    Returns
    -------
    anywidget.AnyWidget
        The widget. A notebook displays it. `readings` are those of the current drawing.

    Raises
    ------
    HandgradError
        If the model is not a classifier of images, or if the extra `notebook` is not installed.
    """
    predict_image(model, np.full((SIZE, SIZE), 255, np.uint8))  # raises the errors of an unsuitable model
    return _widget_class()(model)


def answer(model: Model, drawing: bytes) -> tuple[dict[str, Any], list[Reading]]:
    """Read a drawing.

    Parameters
    ----------
    model : Model
        A classifier of images.
    drawing : bytes
        SIZE x SIZE grey levels, row by row; 255 is the background. Empty before the first stroke.

    Returns
    -------
    answer : dict
        What the browser shows, as values that JSON can represent: a message, and for each digit its label (None if
        the model is not sure), the reason, the prepared image (255 is the background) and a list of (class,
        probability).
    readings : list of Reading
        The digits that were found.
    """
    if len(drawing) not in (0, SIZE * SIZE):
        raise HandgradError(f"the drawing has {len(drawing)} bytes: expected {SIZE} x {SIZE} grey levels")
    levels = np.frombuffer(drawing, np.uint8).reshape(-1, SIZE)
    if not len(levels) or levels.min() == 255:
        return {"message": EMPTY, "readings": []}, []
    found = predict_image(model, np.pad(levels, MARGIN, constant_values=255))
    readings = [reading._replace(box=_without_margin(reading.box)) for reading in found]
    shown = [
        {
            "label": reading.label,
            "reason": reading.reason,
            "digit": (255 - reading.digit).tolist(),
            "bars": _bars(reading.probabilities),
        }
        for reading in readings[:MAX_READINGS]
        if reading.box is not None
    ]
    hidden = len(readings) - MAX_READINGS
    more = f"{hidden} more {'digit is' if hidden == 1 else 'digits are'} not shown."
    return {"message": more if hidden > 0 else "" if shown else readings[0].reason, "readings": shown}, readings


def _without_margin(box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
    """The bounding box in pixels of the canvas."""
    if box is None:
        return None
    left, top, right, bottom = (min(max(0, side - MARGIN), SIZE) for side in box)
    return left, top, right, bottom


def _bars(probabilities: dict[str, float]) -> list[tuple[str, float]]:
    """The probability of each class, or of the most probable ones."""
    bars = list(probabilities.items())
    return bars if len(bars) <= MAX_BARS else sorted(bars, key=lambda bar: -bar[1])[:MAX_BARS]


@functools.cache
def _widget_class() -> Any:
    """The class of the widget, whose base class is in the extra `notebook`."""
    anywidget, traitlets = optional("anywidget", "notebook"), optional("traitlets", "notebook")

    class DrawingPad(anywidget.AnyWidget):  # type: ignore[misc, name-defined]
        """A canvas, what the network sees, and a bar for each class."""

        _esm = Path(__file__).with_name("widget.js").read_text()
        _css = Path(__file__).with_name("widget.css").read_text()
        drawing = traitlets.Bytes(b"").tag(sync=True, from_json=lambda value, widget: bytes(value or b""))
        answer = traitlets.Dict({"message": EMPTY, "readings": []}).tag(sync=True)

        def __init__(self, model: Model) -> None:
            super().__init__()
            self._model, self.readings = model, list[Reading]()
            self.observe(self._read, "drawing")

        def _read(self, change: dict[str, Any]) -> None:
            try:
                self.answer, self.readings = answer(self._model, change["new"])
            except HandgradError as error:
                self.answer, self.readings = {"message": str(error), "readings": []}, []

        def __repr__(self) -> str:
            return f"DrawingPad({self._model!r})"

    return DrawingPad
