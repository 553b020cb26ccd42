"""Data sets of labelled images: MNIST, IDX directories and synthetic digits."""

from __future__ import annotations

from .dataset import Dataset, Split, read_dataset

__all__ = ["Dataset", "Split", "load", "read_dataset"]


def load(name: str) -> Dataset:
    """Load a data set by name or from a directory.

    Parameters
    ----------
    name : str
        "mnist": MNIST, downloaded if no copy is found on this machine. "synthetic": 60,000 training and 10,000 test
        digits that `handgrad.data.synthetic` renders. Any other string: the path of a directory with four IDX files,
        or of Keras's mnist.npz.

    Returns
    -------
    Dataset
        Training and test images with their labels.

    Raises
    ------
    HandgradError
        If the directory contains no complete data set, or if MNIST is neither found nor downloaded.

    Examples
    --------
    >>> from handgrad.data import load
    >>> load("synthetic")
    synthetic digits: 60,000 training images, 10,000 test images, 28x28 pixels, 10 classes
    """
    if name == "synthetic":
        from .synthetic import synthetic_digits

        x_train, y_train, x_test, y_test = synthetic_digits()
        return Dataset(x_train, y_train, x_test, y_test, name="synthetic digits", classes=tuple("0123456789"))
    from .mnist import load_mnist

    return load_mnist(None if name == "mnist" else name)
