"""handgrad: multi-layer perceptrons in NumPy with hand-derived gradients.

from handgrad import Network, SGD, Trainer

network = Network([784, 30, 10], rng=0)
Trainer(network, SGD(lr=0.5), batch_size=10, rng=0).fit(x, y, epochs=30)
network.predict(x)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import _interrupt, schedules  # noqa: F401 (_interrupt first: see there)
from .adversarial import Adversarial, VirtualAdversarial, deepfool
from .errors import HandgradError, closest, submodule
from .gradcheck import check_gradient
from .history import History
from .images import HOG, Augmentation, Deskew
from .ladder import Ladder
from .layers import (
    ELU,
    GELU,
    SELU,
    BatchNorm,
    Dense,
    Dropout,
    ExactGELU,
    Identity,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from .losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    LogCosh,
    Loss,
    Poisson,
    SquaredError,
    one_hot,
)
from .model import Evaluation, Model
from .muon import Muon, newton_schulz
from .network import Network
from .optimizers import SGD, Adam, AdamW, Lookahead, Momentum, Nesterov, Optimizer
from .preprocessing import Standardize
from .training import Callback, Trainer
from .wrappers import Ensemble, Preprocessed, TestTimeAugmentation, fold_batchnorm

if TYPE_CHECKING:
    from .callbacks import EMA, SWA, Checkpoint, CSVLogger, EarlyStopping
    from .diagnostics.lr_finder import find_lr, overfit_one_batch
    from .io import load, save
    from .progress import ProgressBar

__version__ = "0.1.0"

__all__ = [
    "ELU",
    "EMA",
    "GELU",
    "HOG",
    "SELU",
    "SGD",
    "SWA",
    "AbsoluteError",
    "Adam",
    "AdamW",
    "Adversarial",
    "Augmentation",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CrossEntropy",
    "Dense",
    "Deskew",
    "Dropout",
    "EarlyStopping",
    "Ensemble",
    "Evaluation",
    "ExactGELU",
    "HandgradError",
    "History",
    "Huber",
    "Identity",
    "Ladder",
    "Layer",
    "LeakyReLU",
    "LogCosh",
    "Lookahead",
    "Loss",
    "Model",
    "Momentum",
    "Muon",
    "Nesterov",
    "Network",
    "Optimizer",
    "Poisson",
    "Preprocessed",
    "ProgressBar",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "SquaredError",
    "Standardize",
    "Tanh",
    "TestTimeAugmentation",
    "Trainer",
    "VirtualAdversarial",
    "check_gradient",
    "deepfool",
    "find_lr",
    "fold_batchnorm",
    "load",
    "newton_schulz",
    "one_hot",
    "overfit_one_batch",
    "save",
    "schedules",
]

# Imported when they are first used: together they take as long to import as everything else.
_LATE = {
    "load": "io",
    "save": "io",
    "EMA": "callbacks",
    "SWA": "callbacks",
    "CSVLogger": "callbacks",
    "Checkpoint": "callbacks",
    "EarlyStopping": "callbacks",
    "ProgressBar": "progress",
    "find_lr": "diagnostics.lr_finder",
    "overfit_one_batch": "diagnostics.lr_finder",
}
_SUBPACKAGES = (
    "blas",
    "callbacks",
    "cli",
    "data",
    "diagnostics",
    "distributed",
    "export",
    "images",
    "interop",
    "io",
    "lab",
    "progress",
    "recipes",
    "sklearn",
    "wrappers",
)
# What users of PyTorch and Keras look for.
_ELSEWHERE = {
    "Softmax": "the loss CrossEntropy includes the softmax; predict_proba returns the probabilities",
    "Sequential": "use Network([Dense(784, 30), ReLU(), Dense(30, 10)])",
    "Linear": "use Dense",
    "NLLLoss": "use CrossEntropy",
    "MSELoss": "use SquaredError",
    "BCEWithLogitsLoss": "use BinaryCrossEntropy",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f".{_LATE[name]}", __name__), name)
    if name in _SUBPACKAGES:
        return submodule(__name__, name)
    hint = _ELSEWHERE.get(name)
    if hint is None and not name.startswith("_"):
        near = closest(name, __all__)
        hint = f"did you mean {near}?" if near else None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f": {hint}" if hint else ""))


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBPACKAGES, "__version__"})
