"""Labelled pictures: MNIST found or fetched, any set in its format, and digits drawn by formula."""

from __future__ import annotations

from .dataset import Dataset, Split, read_dataset

__all__ = ["Dataset", "Split", "load", "read_dataset"]


def load(name: str) -> Dataset:
    """The set of that name: "mnist", "drawn", or a directory of four IDX files (or Keras's mnist.npz)."""
    if name == "drawn":
        from .drawn import drawn_digits

        x_train, y_train, x_test, y_test = drawn_digits()
        return Dataset(x_train, y_train, x_test, y_test, name="drawn digits", classes=tuple("0123456789"))
    from .mnist import load_mnist

    return load_mnist(None if name == "mnist" else name)
