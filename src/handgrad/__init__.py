"""A neural network for handwritten digits, written out by hand in NumPy alone: every gradient derived, none automatic.

from handgrad import Network, SGD, Trainer

network = Network([784, 30, 10], rng=0)
Trainer(network, SGD(lr=0.5), batch_size=10, rng=0).fit(x, y, epochs=30)
network.predict(x)
"""

from typing import TYPE_CHECKING, Any

from . import schedules
from .adversarial import Adversarial, VirtualAdversarial, smallest_change
from .augmentation import Augmentation
from .averaging import ExponentialAverage, WeightAverage
from .classifier import Classifier, Evaluation
from .committee import Committee
from .errors import HandgradError
from .gradcheck import check_gradient
from .layers import BatchNorm, Dense, Dropout, Gelu, Identity, Layer, LeakyRelu, Relu, Sigmoid, Softplus, Tanh
from .lookahead import Lookahead
from .losses import CrossEntropy, Loss, Quadratic, SoftmaxCrossEntropy, one_hot
from .network import Network
from .optimizers import SGD, Adam, AdamW, Momentum, Muon, Nesterov, Optimizer
from .orthogonal import newton_schulz
from .preprocessing import Deskew
from .regression import AbsoluteError, Huber, LogCosh, Poisson, SquaredError
from .stopping import EarlyStopping
from .training import Callback, Trainer

if TYPE_CHECKING:
    from .files import load, save

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AbsoluteError",
    "Adam",
    "AdamW",
    "Adversarial",
    "Augmentation",
    "BatchNorm",
    "Callback",
    "Classifier",
    "Committee",
    "CrossEntropy",
    "Dense",
    "Deskew",
    "Dropout",
    "EarlyStopping",
    "Evaluation",
    "ExponentialAverage",
    "Gelu",
    "HandgradError",
    "Huber",
    "Identity",
    "Layer",
    "LeakyRelu",
    "LogCosh",
    "Lookahead",
    "Loss",
    "Momentum",
    "Muon",
    "Nesterov",
    "Network",
    "Optimizer",
    "Poisson",
    "Quadratic",
    "Relu",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Softplus",
    "SquaredError",
    "Tanh",
    "Trainer",
    "VirtualAdversarial",
    "WeightAverage",
    "check_gradient",
    "load",
    "newton_schulz",
    "one_hot",
    "save",
    "schedules",
    "smallest_change",
]


def __getattr__(name: str) -> Any:
    """`load` and `save` with what they stand on, when they are first asked for: it is most of the time of an import."""
    if name in ("load", "save"):
        from . import files

        return getattr(files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
