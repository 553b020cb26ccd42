"""The way in: networks of PyTorch, scikit-learn and Keras as layers and a loss of handgrad's, with their numbers.

No other library is imported: what is asked of an object is what its documentation says that it has, and a file is read
as arrays and text. What handgrad has no equal of is refused by its name, so what comes in answers as it did there.

    PyTorch         Linear, BatchNorm1d, Dropout, Identity, Flatten in front, and the activations of `layers`
    scikit-learn    MLPClassifier, MLPRegressor
    Keras           Dense, BatchNormalization, Dropout, Flatten in front, Activation, ReLU, LeakyReLU, Softmax
"""

from .imported import ImportedLayer, ImportedModel
from .keras import from_keras
from .sklearn import from_sklearn
from .torch import from_torch

__all__ = ["ImportedLayer", "ImportedModel", "from_keras", "from_sklearn", "from_torch"]
