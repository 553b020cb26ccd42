"""Networks that answer together: where each errs in its own way, their mean errs less often than any one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, as_examples
from .classifier import Classifier
from .errors import HandgradError
from .network import BLOCK, Network
from .preprocessing import Preprocessing


class Committee(Classifier):
    """p = 1/M Σₘ pₘ, the mean of the M members' probabilities; one answers whatever a Network does.

    The mean is read back as outputs z, the loss's own inverse of its probabilities, so that `evaluate` gives the loss
    of p. That loss, its smoothing and temperature with it, is the first member's. No member is copied.

    Raises HandgradError for no members, and for members of different inputs, outputs, classes, losses or dtypes.
    Hansen and Salamon (1990); Ciresan, Meier, Gambardella and Schmidhuber (2011).
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.members = tuple(networks)
        if not self.members or not all(isinstance(member, Network) for member in self.members):
            raise HandgradError(f"a committee of {list(self.members)}: expected one Network or more")
        first = self.members[0]
        kind = _kind(first)
        for i, member in enumerate(self.members):
            for name, value in _kind(member).items():
                if value != kind[name]:
                    raise HandgradError(
                        f"member {i} of the committee has {name} {value}, and member 0 {kind[name]}: "
                        "expected members that answer the same question"
                    )
        self.loss, self.n_raw, self.n_out, self.dtype = first.loss, first.n_raw, first.n_out, first.dtype
        self.classes, self.image_shape = kind["classes"], kind["image_shape"]

    def sees_through(self, preprocessing: Preprocessing | None) -> bool:
        """Whether all its members do."""
        return all(member.sees_through(preprocessing) for member in self.members)

    def preprocessed(self) -> Committee:
        """The members' `preprocessed`, as a committee. Raises HandgradError where they see pictures of other sizes."""
        return Committee([member.preprocessed() for member in self.members])

    def outputs(self, x: ArrayLike) -> Array:
        """z (count, n_out), of which the members' mean is the probabilities."""
        return self.loss.outputs(self.probabilities(x))

    def probabilities(self, x: ArrayLike) -> Array:
        """The mean (count, n_out) of the members' probabilities, a block at a time: of nothing else a whole is held."""
        x = as_examples(x, self.n_raw)
        p = np.empty((len(x), self.n_out), self.dtype)
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            p[rows] = sum(member.probabilities(x[rows]) for member in self.members)
        p /= len(self.members)
        return p

    def __repr__(self) -> str:
        return f"Committee([{', '.join(map(repr, self.members))}])"


def _kind(network: Network) -> dict[str, Any]:
    """What the members of a committee must have in common, in plain values."""
    shape = network.image_shape
    return {
        "n_raw": network.n_raw,
        "n_out": network.n_out,
        "classes": tuple(map(str, network.classes)),
        "image_shape": None if shape is None else tuple(shape),
        "loss": type(network.loss).__name__,
        "dtype": network.dtype,
    }
