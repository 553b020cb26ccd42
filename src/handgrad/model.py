"""Models: the interface of networks, ensembles and wrappers: predict, predict_proba, evaluate, confusion_matrix."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, Labels, as_array, check_inputs, check_labels, check_positive
from .errors import HandgradError, Misnamed
from .losses import Loss, most_probable, softmax, with_settings
from .tables import Table

if TYPE_CHECKING:
    from .images.reading import Reading


# Small numbers become 0 and large ones infinity, also for programs with np.seterr(all="raise").
without_float_errors = np.errstate(under="ignore", over="ignore", invalid="ignore")


class NotFiniteError(HandgradError):
    """The outputs of a model are NaN or infinite."""


class Evaluation(NamedTuple):
    """Loss and accuracy on a set of examples.

    Attributes
    ----------
    loss : float
        Mean loss.
    correct : int or None
        Number of correct predictions; None for a regression.
    total : int
        Number of examples.
    """

    loss: float
    correct: int | None
    total: int

    @property
    def accuracy(self) -> float | None:
        """Fraction of correct predictions, 0 to 1; None for a regression."""
        return None if self.correct is None else self.correct / self.total

    def __repr__(self) -> str:
        accuracy = "" if self.correct is None else f", accuracy={self.accuracy:.2%} ({self.correct:,}/{self.total:,})"
        return f"Evaluation(loss={self.loss:.4f}{accuracy})"

    def _repr_html_(self) -> str:
        """Return a table."""
        rows = [("loss", f"{self.loss:.4f}"), ("examples", f"{self.total:,}")]
        if self.correct is not None:
            rows += [("correct", f"{self.correct:,}"), ("accuracy", f"{self.accuracy:.2%}")]
        return Table(("Evaluation", ""), rows)._repr_html_()


class Model(ABC):
    """Base class of everything that predicts: networks, ensembles and wrappers.

    A subclass computes `outputs`, the logits z. All predictions follow from z and the loss.

    Attributes
    ----------
    loss : Loss
        The loss, which includes the activation of the output.
    n_in, n_out : int
        Number of inputs and of outputs.
    dtype : numpy.dtype
        float32 or float64.
    classes : tuple of str
        Names of the classes, or of the outputs of a regression.
    image_shape : (height, width) or None
        Set if the inputs are images. Inputs of shape (count, n_in) are then read as pixels, see `check_inputs`.
    feature_names : tuple of str or None
        Names of the inputs, if they are columns of a table. `handgrad.data.load` finds the columns by these names.
    """

    loss: Loss
    n_in: int
    n_out: int
    dtype: np.dtype[Any]
    _classes: tuple[str, ...] | None = None
    _image_shape: tuple[int, int] | None = None
    _feature_names: tuple[str, ...] | None = None
    save = Misnamed("use handgrad.save(model, path)")
    score = Misnamed("use model.evaluate(x, y).accuracy")

    @abstractmethod
    def outputs(self, x: ArrayLike) -> Array:
        """Return the logits z (count, n_out) of any number of examples, in a new array."""

    def _finite_outputs(self, x: ArrayLike) -> Array:
        """The logits. Raises NotFiniteError for NaN and infinity."""
        z = self.outputs(x)
        # The sum of squares is not finite if an element is not. It takes half the time of np.isfinite.
        if not np.vdot(z, z) < np.inf and not (finite := np.isfinite(z)).all():
            row = int(finite.all(axis=1).argmin())
            raise NotFiniteError(
                f"the outputs of the model for example {row} are not finite: its weights or inputs are too large"
            )
        return z

    @property
    def n_classes(self) -> int:
        """Number of classes: 2 for a single output, which decides between 0 (no) and 1 (yes)."""
        return 2 if self.n_out == 1 and self.loss.is_classification else self.n_out

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, "0", "1", ... by default. Raises HandgradError for the wrong number of names."""
        return self._classes or tuple(str(k) for k in range(self.n_classes))

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        self._classes = _check_names("classes", names, self.n_classes)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the inputs, if they are columns of a table. Raises HandgradError for the wrong number of names."""
        return self._feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self._feature_names = None if names is None else _check_names("feature_names", names, self.n_in)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) if the inputs are images. Raises HandgradError unless height * width = n_in."""
        return self._image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        self._image_shape = None if shape is None else check_image_shape(shape, self.n_in)

    def check_inputs(self, x: ArrayLike) -> NDArray[Any]:
        """Validate x (count, n_in) or (count, height, width): see `handgrad.arrays.check_inputs`."""
        return check_inputs(x, self.n_in, self.image_shape)

    @without_float_errors
    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the predictions p (count, n_out) that the loss reads from the outputs.

        For `CrossEntropy` these are the probabilities of the classes. A single output gives the probability of class 1;
        `binary_to_two_columns` gives both. For a regression these are the predicted numbers.
        """
        return self.loss.activation(self._finite_outputs(x))

    @without_float_errors
    def soft_labels(self, x: ArrayLike, temperature: float) -> Array:
        """Return soft labels (count, n_out) for knowledge distillation.

        softmax(ln p / T), with p the probabilities; for p = softmax(z) this is softmax(z / T). A higher temperature T
        makes the labels more even. A regression returns its predictions.

        References
        ----------
        Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network, section 2.
        """
        p = self.predict_proba(x)
        if not self.loss.is_classification:
            return p
        p = binary_to_two_columns(p)
        z = np.log(np.maximum(p, np.finfo(p.dtype).tiny, out=p), out=p)
        z /= check_positive("temperature", temperature)
        return softmax(z, out=z)[:, -self.n_out :]

    @without_float_errors
    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the most probable class (count,) of each example, or the numbers (count, n_out) of a regression."""
        return self.loss.labels(self._finite_outputs(x)) if self.loss.is_classification else self.predict_proba(x)

    @without_float_errors
    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Return the mean loss, at a temperature of 1, and the number of correct predictions.

        Parameters
        ----------
        x : array-like of shape (count, n_in) or (count, height, width)
            Examples.
        y : array-like of shape (count,) or (count, n_out)
            Labels, or one row of targets per example.
        """
        x, loss = self.check_inputs(x), with_settings(self.loss, temperature=1.0)
        t = loss.targets(y, len(x), self.n_out, self.dtype)
        z = self._finite_outputs(x)
        return Evaluation(loss.value(z, t), loss.correct(z, t) if loss.is_classification else None, len(x))

    @without_float_errors
    def confusion_matrix(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
        """Count the examples (n_classes, n_classes) by true class (row) and predicted class (column).

        y holds labels (count,) or one-hot rows (count, n_out).
        """
        z = self._finite_outputs(x)
        predictions = self.loss.labels(z)
        y = as_array("y", y)
        if y.ndim > 1:
            y = most_probable(self.loss.targets(y, len(z), self.n_out, self.dtype))
        return confusion_matrix(check_labels(y, self.n_classes, len(z)), predictions, self.n_classes)

    # ---- Shortcuts ---------------------------------------------------------------------------------------------------

    def predict_image(self, image: Any) -> list[Reading]:
        """Find the digits in an image and predict the class of each one, or predict the class of the whole image.

        See `handgrad.images.reading.predict_image`.

        Parameters
        ----------
        image : str, path-like, binary stream, bytes, PIL.Image.Image or array-like
            A file, an image of Pillow, or an array of grey levels or colours.

        Returns
        -------
        list of Reading
            One for each digit, line by line from left to right, or one for the whole image: label, confidence, reason,
            probabilities, prepared image.
        """
        from .images.reading import predict_image  # late: a feature on the core

        return predict_image(self, image)

    def draw(self) -> Any:
        """Return a drawing pad for a notebook: draw a digit, and see what the model reads.

        The pad shows the drawing as the network sees it and a bar for each class, or "not sure". It reads the drawing
        with `predict_image` and the current weights. It needs the extra `notebook`.

        Returns
        -------
        anywidget.AnyWidget
            The widget, which a notebook displays. `readings` are those of the current drawing, as `predict_image`
            returns them.

        Raises
        ------
        HandgradError
            If the model is not a classifier of images, or if the extra is not installed.
        """
        from .diagnostics.widget import drawing_pad  # late: a feature on the core

        return drawing_pad(self)


def _check_names(what: str, names: Any, count: int) -> tuple[str, ...]:
    """Validate the names of `count` classes or features."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise HandgradError(f"{what} must be {count} names, got {names!r}")
    checked = tuple(map(str, names))
    if len(checked) != count:
        raise HandgradError(f"{what} has {len(checked)} names: expected {count}")
    check_distinct(checked, what)
    try:
        "".join(checked).encode()
    except UnicodeEncodeError as error:
        raise HandgradError(f"{what} has a name with a lone surrogate, which is not a character: {checked}") from error
    return checked


def check_distinct(names: Sequence[str], what: str = "classes") -> None:
    """Raise HandgradError if a name of a class or of a feature occurs twice."""
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise HandgradError(f"{what} has the name {twice!r} twice: expected different names")


def check_image_shape(shape: Any, n_in: int) -> tuple[int, int]:
    """Validate (height, width) with height * width = n_in."""
    try:
        height, width = (operator.index(side) for side in shape)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1 or height * width != n_in:
        raise HandgradError(f"image_shape must be (height, width) with {n_in} pixels, got {shape!r}")
    return height, width


def binary_to_two_columns(p: Array) -> Array:
    """Convert the probability p of a single output to [1 - p, p]; return several outputs unchanged."""
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


def confusion_matrix(labels: Labels, predictions: Labels, n_classes: int) -> NDArray[np.int64]:
    """Count (n_classes, n_classes) by true class (row) and predicted class (column)."""
    return np.bincount(labels * n_classes + predictions, minlength=n_classes**2).reshape(n_classes, n_classes)
