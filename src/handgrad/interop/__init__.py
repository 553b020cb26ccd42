"""Interoperability: convert models of PyTorch, Keras and scikit-learn.

None of these libraries is imported. An object is read through its documented attributes, and a file is read as arrays
and text. A layer without an equivalent raises an error, so that a converted model has the predictions of the original.

    PyTorch         Linear, BatchNorm1d, Dropout, Identity, Flatten, the activations of `layers`
    Keras           Dense, BatchNormalization, Dropout, Rescaling, Normalization, Flatten, Reshape, Identity,
                    Sequential, Activation, ReLU, LeakyReLU, ELU, Softmax
    scikit-learn    MLPClassifier, MLPRegressor

The modules `torch`, `keras` and `sklearn` have the tables of equivalents.
"""

from .keras import from_keras
from .sklearn import from_sklearn
from .torch import from_torch

__all__ = ["from_keras", "from_sklearn", "from_torch"]
