"""Estimators as files: a model file, with what the next epoch depends on beside it. No pickle.

`handgrad.load` of such a file gives the network; `load` here gives the estimator, which goes on as if it had never
been away.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..errors import HandgradError
from ..io.models import FORMAT, LOSSES, TRAINING, _arrays, _build, _describe, _make, _read_arrays, _write_arrays
from ..losses import Loss
from .classifier import MLPClassifier
from .regressor import MLPRegressor

ESTIMATORS = {estimator.__name__: estimator for estimator in (MLPClassifier, MLPRegressor)}
# The attributes of a fit that JSON can hold; those that a solver or a setting does not give are left out.
PLAIN: tuple[str, ...] = (
    "n_outputs_",
    "n_iter_",
    "n_layers_",
    "t_",
    "n_features_in_",
    "loss_",
    "best_loss_",
    "best_epoch_",
)
PLAIN += ("loss_curve_", "history_", "validation_scores_", "best_validation_score_", "_no_improvement_count")
PLAIN += ("_settings",)


def save(estimator: MLPClassifier | MLPRegressor, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator, with all that training it further depends on.

    Raises HandgradError for parameters that no file can hold: callbacks, a function as the schedule.
    """
    check_is_fitted(estimator)
    network, optimizer = estimator.network_, estimator._optimizer
    arrays = {f"{TRAINING}order": estimator._order.astype(np.int32)}
    chance = estimator._random_state.get_state(legacy=False)
    arrays[f"{TRAINING}chance"] = chance["state"].pop("key")
    kept: dict[str, Any] = {"type": type(estimator).__name__, "parameters": _plain_parameters(estimator)}
    kept["fitted"] = {name: vars(estimator)[name] for name in PLAIN if name in vars(estimator)}
    kept["chance"] = chance
    kept["layers"] = {str(i): layer.rng.bit_generator.state for i, layer in enumerate(network.layers) if layer.rng}
    if hasattr(estimator, "feature_names_in_"):
        kept["features"] = list(estimator.feature_names_in_)
    if isinstance(estimator, MLPClassifier):
        classes = estimator.classes_
        kept["classes"] = {"values": classes.tolist(), "dtype": classes.dtype.str}
        kept["targets"] = estimator._label_binarizer.y_type_
        kept["sparse_targets"] = bool(estimator._label_binarizer.sparse_input_)
    if optimizer is not None:
        state = optimizer.state()
        arrays[f"{TRAINING}memory"] = state.pop("memory")
        kept["optimizer"] = {**state, "lr": optimizer.lr}
    description = _describe(network, network.classes, network.image_shape)
    _write_arrays(Path(path), _arrays(network) | arrays, {**description, "format": FORMAT, "estimator": _plain(kept)})


def load(path: str | os.PathLike[str]) -> MLPClassifier | MLPRegressor:
    """Read an estimator. Raises HandgradError for what is no such file."""
    arrays, description = _read_arrays(Path(path))
    if "estimator" not in description:
        raise HandgradError(f"{path} holds no estimator: handgrad.load reads the network in it")
    kept, own = description["estimator"], {k: v for k, v in arrays.items() if not k.startswith(TRAINING)}
    network = _build(str(path), own, description)
    try:
        return _restored(kept, network, {k.removeprefix(TRAINING): v for k, v in arrays.items() if k not in own})
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise HandgradError(
            f"{path} is damaged: what it says of its estimator does not hold together: {error!r}"
        ) from error


def _restored(kept: dict[str, Any], network: Any, arrays: dict[str, Any]) -> MLPClassifier | MLPRegressor:
    parameters = {name: _value(plain) for name, plain in kept["parameters"].items()}
    estimator: MLPClassifier | MLPRegressor = ESTIMATORS[kept["type"]](**parameters)
    for name in PLAIN:
        if name in kept["fitted"]:
            setattr(estimator, name, kept["fitted"][name])
    estimator.network_, estimator._order = network, arrays["order"].astype(np.intp)
    for i, state in kept["layers"].items():
        network.layers[int(i)].rng.bit_generator.state = state
    chance = kept["chance"]
    if (arrays["chance"].shape, arrays["chance"].dtype) != ((624,), np.uint32):
        raise ValueError(f"a generator's state of {arrays['chance'].shape}")
    chance["state"]["key"] = arrays["chance"]
    estimator._random_state = check_random_state(0)
    estimator._random_state.set_state(chance)
    if "features" in kept:
        estimator.feature_names_in_ = np.array(kept["features"], dtype=object)
    if isinstance(estimator, MLPClassifier):
        estimator.classes_ = np.array(kept["classes"]["values"], dtype=kept["classes"]["dtype"])
        multilabel = kept["targets"].startswith("multilabel")
        estimator._label_binarizer = LabelBinarizer().fit(
            np.eye(len(estimator.classes_), dtype=int) if multilabel else estimator.classes_
        )
        estimator._label_binarizer.sparse_input_ = bool(kept.get("sparse_targets"))
    estimator._optimizer = None
    if "optimizer" in kept:
        estimator._optimizer = estimator._make_optimizer()
        estimator._optimizer.lr = kept["optimizer"].pop("lr")
        memory = arrays["memory"]
        if memory.shape != (estimator._optimizer.memories, network.parameters.size) or kept["optimizer"]["steps"] < 0:
            raise ValueError(f"an optimizer's memory of {memory.shape}")
        estimator._optimizer.restore({**kept["optimizer"], "memory": memory})
    _check(estimator)
    return estimator


def _check(estimator: MLPClassifier | MLPRegressor) -> None:
    """Raises ValueError where what was read does not hold together."""
    estimator._validate_params()
    if len(estimator.callbacks) or callable(estimator.schedule):
        raise ValueError("callbacks or a schedule that no file can hold")
    if not estimator._is_as_described(estimator.network_.n_in):
        raise ValueError("parameters of another network")
    if not np.array_equal(np.sort(estimator._order), np.arange(len(estimator._order))):
        raise ValueError("an order that is none")


def _plain_parameters(estimator: MLPClassifier | MLPRegressor) -> dict[str, Any]:
    """The parameters as values that JSON can hold. A RandomState goes as None: where it stands is kept apart."""
    plain = {}
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, Loss):
            value = {"loss": {"type": type(value).__name__, **value.config()}}
        elif isinstance(value, dict):
            value = {"pairs": [[_plain(k), _plain(v)] for k, v in value.items()]}
        elif name == "random_state" and not isinstance(value, int | np.integer):
            value = None
        elif name == "dtype" and value is not None:
            value = np.dtype(value).name
        value = _plain(value)
        if callable(value) or (name == "callbacks" and value):
            raise HandgradError(
                f"a file cannot hold {name}={value!r}: set_params({name}=...) to what it can, then save"
            )
        plain[name] = value
    return plain


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, every sequence as a list, all else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _value(plain: Any) -> Any:
    """What `_plain_parameters` made so plain."""
    if isinstance(plain, list):
        return tuple(plain)
    if isinstance(plain, dict):
        return _make(LOSSES, "loss", plain["loss"]) if "loss" in plain else dict(plain["pairs"])
    return plain
