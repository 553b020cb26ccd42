"""Whatever answers: outputs z, and all that follows from them by the loss that reads them.

A network is one, and so is a committee of networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, Labels, as_examples, as_labels
from .losses import Loss, as_temperature, softmax
from .preprocessing import Preprocessing


class Evaluation(NamedTuple):
    """How a network does on a set of examples."""

    loss: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct / self.total


class Classifier(ABC):
    """Whatever gives outputs z that a loss can read: all its answers follow from them."""

    loss: Loss
    n_raw: int  # the numbers in an example as it is given: those of the first layer, unless preprocessing changes them
    n_out: int
    dtype: np.dtype[Any]
    classes: tuple[str, ...]  # the names of the `n_classes` classes; of the outputs, where those are numbers
    image_shape: tuple[int, int] | None  # (height, width) where the inputs are pictures

    @abstractmethod
    def outputs(self, x: ArrayLike) -> Array:
        """z (count, n_out) of any number of examples, in an array of its own."""

    @abstractmethod
    def sees_through(self, preprocessing: Preprocessing | None) -> bool:
        """Whether it sees examples through a preprocessing that is this one."""

    @abstractmethod
    def preprocessed(self) -> Classifier:
        """The same, for examples that are preprocessed already: as it answers while it learns, and teaches."""

    @property
    def n_classes(self) -> int:
        """How many classes the outputs tell apart: one output alone tells 0, no, from 1, yes."""
        return 2 if self.n_out == 1 and self.loss.classifies else self.n_out

    def probabilities(self, x: ArrayLike) -> Array:
        """Each output's probability (count, n_out), as the loss reads it: a softmax's rows sum to 1.

        Of one output alone it is that of class 1; `by_class` gives both. A loss for numbers reads them as numbers.
        """
        return self.loss.probabilities(self.outputs(x))

    def soft_labels(self, x: ArrayLike, temperature: float) -> Array:
        """softmax(ln p / T) (count, n_out): targets that tell another network which wrong classes are nearly right.

        p are the probabilities; of a softmax(z) it is softmax(z / T). The higher the temperature T, the more evenly
        they are spread. Hinton, Vinyals and Dean (2015), section 2. Numbers stay as they are.
        """
        p = self.probabilities(x)
        if not self.loss.classifies:
            return p
        p = by_class(p)
        z = np.log(np.maximum(p, np.finfo(p.dtype).tiny, out=p), out=p)
        z /= as_temperature(temperature)
        return softmax(z, out=z)[:, -self.n_out :]

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """The most probable class (count,) of each example; the numbers (count, n_out), where the loss is for those."""
        return self.loss.labels(self.outputs(x)) if self.loss.classifies else self.probabilities(x)

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """The mean loss and the number of right answers, 0 of numbers. y (count,) labels, or (count, n_out) rows."""
        x = as_examples(x, self.n_raw)
        t = self.loss.targets(y, len(x), self.n_out, self.dtype)
        z = self.outputs(x)
        return Evaluation(self.loss.value(z, t), self.loss.correct(z, t), len(x))

    def confusion_matrix(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
        """(n_classes, n_classes) counts: row the true class, column the answer."""
        answers, count = self.loss.labels(self.outputs(x)), self.n_classes
        return confusion_matrix(as_labels(y, count, len(answers)), answers, count)


def by_class(p: Array) -> Array:
    """Probabilities (count, n_out) as (count, n_classes): one output's, p, are 1 - p and p."""
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


def confusion_matrix(labels: Labels, answers: Labels, count: int) -> NDArray[np.int64]:
    """(count, count) counts, of so many classes: row the true class, column the answer."""
    return np.bincount(labels * count + answers, minlength=count**2).reshape(count, count)
