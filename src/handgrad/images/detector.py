"""The detector of digits: a small network that decides whether a prepared shape looks like a digit.

A network that has only seen digits gives letters and scribbles a digit's name, often with a high confidence. The
detector was trained on digits and on other shapes. Its outputs are the probabilities of the digits 0 to 9, and of "not
a digit". `records/detector.py` trains it and writes the file of its weights.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..network import Network
from ..wrappers import Preprocessed
from .deskew import Deskew

DIGITS = tuple("0123456789")
SHAPE = (28, 28)
SHRINK = 2  # the network sees 14x14 pixels
HIDDEN = (240, 96)
OTHER = 10  # the output for "not a digit"
KNOWN = 0.5  # fraction of synthetic digits that a model must recognize: others do not read digits


@functools.cache
def _network() -> Preprocessed:
    """The network, from the weights in the package, which are stored in float16."""
    deskew = Deskew(*SHAPE, shrink=SHRINK)
    network = Network([deskew.n_out, *HIDDEN, OTHER + 1], activation="relu", loss="cross_entropy", rng=0)
    network.image_shape = deskew.image_shape_out
    with (
        resources.files(__package__).joinpath("detector.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        network.parameters[:] = arrays["parameters"]
    return Preprocessed(network, deskew)


def probabilities(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities (count, 11) of the digits 0 to 9 and of "not a digit".

    Parameters
    ----------
    images : ndarray of uint8, shape (count, 28, 28)
        Prepared as in MNIST.
    """
    p: NDArray[np.float32] = _network().predict_proba(images)
    return p


def reads_digits(model: Model) -> bool:
    """Whether a model of images reads digits: its classes are 0 to 9, and it recognizes synthetic digits.

    The classes of other data sets, for example of clothes, often have the names 0 to 9, too.
    """
    if tuple(model.classes) != DIGITS or model.image_shape != SHAPE:
        return False
    x, y = _synthetic_digits()
    return float(np.mean(model.predict_proba(x).argmax(axis=1) == y)) >= KNOWN


@functools.cache
def _synthetic_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from ..data.synthetic import render_digits  # late: few programs read images

    return render_digits(100, rng=np.random.default_rng(0))
