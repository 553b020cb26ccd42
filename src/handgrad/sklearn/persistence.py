"""Estimator files: save and load estimators with their complete training state, without pickle.

An estimator file is a model file (see `handgrad.io.models`) with additional arrays, whose names begin with "training.",
and with an additional description of the estimator in the metadata. `handgrad.load` reads the network of such a file.
`handgrad.sklearn.load` reads the estimator, whose training continues with the same bits as without saving.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..errors import HandgradError
from ..io.models import TRAINING, build_model, describe_model, make_part
from ..io.safetensors import read_arrays, write_arrays
from ..losses import LOSS_CLASSES, Loss
from ..training import MAX_COUNT, set_rng_state
from .classifier import MLPClassifier
from .regressor import MLPRegressor

ESTIMATORS = {estimator.__name__: estimator for estimator in (MLPClassifier, MLPRegressor)}

# Fitted attributes that JSON can represent. A solver sets only some of them.
FITTED: tuple[str, ...] = ("n_outputs_", "n_iter_", "n_layers_", "t_", "n_features_in_", "loss_", "best_loss_")
FITTED += ("best_epoch_", "loss_curve_", "history_", "validation_scores_", "best_validation_score_")
FITTED += ("_no_improvement_count", "_optimizer_settings")
COUNTS = ("n_outputs_", "n_iter_", "n_layers_", "n_features_in_", "t_", "_no_improvement_count")

LABELS = "biufUmM"  # kinds of dtypes of the classes: numbers, strings, dates
MAX_LABEL_BYTES = 1 << 20


def save(estimator: MLPClassifier | MLPRegressor, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator and its training state to a file, atomically.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        A fitted estimator.
    path : path-like
        The file.

    Raises
    ------
    HandgradError
        For other objects, such as a pipeline, and for parameters that a file cannot hold: callbacks, and a schedule
        that is a function.
    """
    if not isinstance(estimator, MLPClassifier | MLPRegressor):
        kind = type(estimator).__name__
        hint = "; save its last step, pipeline[-1]" if kind == "Pipeline" else ""
        raise HandgradError(f"cannot save a {kind}: expected an MLPClassifier or MLPRegressor of handgrad{hint}")
    check_is_fitted(estimator)
    network, optimizer = estimator.network_, estimator._optimizer
    random_state = estimator._random_state.get_state(legacy=False)
    training = {"sample_order": estimator._sample_order.astype(np.int32)}
    training["random_state"] = random_state["state"].pop("key")
    description: dict[str, Any] = {
        "type": type(estimator).__name__,
        "parameters": _describe_parameters(estimator),
        "fitted": {name: vars(estimator)[name] for name in FITTED if name in vars(estimator)},
        "random_state": random_state,
        "layers": {str(i): layer.rng.bit_generator.state for i, layer in enumerate(network.layers) if layer.rng},
    }
    if hasattr(estimator, "feature_names_in_"):
        description["feature_names"] = list(estimator.feature_names_in_)
    if isinstance(estimator, MLPClassifier):
        description["classes"] = _describe_labels(estimator.classes_)
        description["target_type"] = estimator._label_binarizer.y_type_
        description["sparse_targets"] = bool(estimator._label_binarizer.sparse_input_)
    if optimizer is not None:
        state = optimizer.state_dict()
        training["optimizer"] = state.pop("state")
        description["optimizer"] = {**state, "lr": optimizer.lr}
    model, arrays = describe_model(network)
    arrays |= {f"{TRAINING}{name}": value for name, value in training.items()}
    write_arrays(Path(path), arrays, {"model": model, "estimator": _to_json(description)})


def load(path: str | os.PathLike[str]) -> MLPClassifier | MLPRegressor:
    """Read an estimator from a file.

    Parameters
    ----------
    path : path-like
        A file of `save`.

    Returns
    -------
    MLPClassifier or MLPRegressor
        The estimator. A random_state that was a RandomState is None in its parameters; its position is restored.

    Raises
    ------
    HandgradError
        If the file contains no estimator, or is damaged.
    """
    arrays, description = read_arrays(Path(path))
    if "estimator" not in description:
        raise HandgradError(f"{path} contains no estimator: use handgrad.load to read the model")
    training = {k.removeprefix(TRAINING): v for k, v in arrays.items() if k.startswith(TRAINING)}
    network = build_model(str(path), arrays, description.get("model"))
    try:
        return _build_estimator(description["estimator"], network, training)
    except (AttributeError, IndexError, KeyError, OverflowError, SyntaxError, TypeError, ValueError) as error:
        raise HandgradError(f"{path} is damaged: inconsistent metadata of the estimator: {error!r}") from error


def _build_estimator(
    description: dict[str, Any], network: Any, training: dict[str, Any]
) -> MLPClassifier | MLPRegressor:
    parameters = {name: _from_json(value) for name, value in description["parameters"].items()}
    estimator: MLPClassifier | MLPRegressor = ESTIMATORS[description["type"]](**parameters)
    fitted = description["fitted"]
    for name in FITTED:
        if name in fitted:
            setattr(estimator, name, fitted[name])
    _check_fitted(fitted, network.n_in)
    estimator.network_, estimator._sample_order = network, training["sample_order"].astype(np.intp)
    for i, state in description["layers"].items():
        set_rng_state(network.layers[int(i)].rng, state)
    random_state, key = description["random_state"], training["random_state"]
    if (key.shape, key.dtype) != ((624,), np.uint32):
        raise ValueError(f"random state of shape {key.shape}")
    if not 0 <= random_state["state"]["pos"] <= len(key):  # NumPy does not check it, and reads beyond the end
        raise ValueError(f"random state at position {random_state['state']['pos']}")
    random_state["state"]["key"] = key
    estimator._random_state = check_random_state(0)
    estimator._random_state.set_state(random_state)
    if "feature_names" in description:
        estimator.feature_names_in_ = np.array(description["feature_names"], dtype=object)
    if isinstance(estimator, MLPClassifier):
        estimator.classes_ = _restore_labels(description["classes"])
        multilabel = description["target_type"].startswith("multilabel")
        estimator._label_binarizer = LabelBinarizer().fit(
            np.eye(len(estimator.classes_), dtype=int) if multilabel else estimator.classes_
        )
        estimator._label_binarizer.sparse_input_ = sparse = bool(description["sparse_targets"])
        counts = [(network.n_out,)] if multilabel or network.n_out > 1 else [(1,), (2,)]
        if estimator.classes_.shape not in counts or (sparse and not multilabel):
            raise ValueError("invalid classes")
        if not multilabel and not np.array_equal(estimator._label_binarizer.classes_, estimator.classes_):
            raise ValueError("the classes are not sorted or not unique")
    estimator._optimizer = None
    if "optimizer" in description:
        estimator._optimizer = optimizer = estimator._make_optimizer()
        optimizer.lr = description["optimizer"].pop("lr")
        state = training["optimizer"]
        if state.shape != (optimizer.n_slots, network.parameters.size) or np.isnan(state).any():
            raise ValueError(f"optimizer state of shape {state.shape}, or with NaN")
        optimizer.load_state_dict({**description["optimizer"], "state": state})
    _check_consistent(estimator)
    return estimator


def _has_huge_integer(value: Any) -> bool:
    """Whether a parameter, as the weights of the classes, contains an integer that may not fit into a float."""
    if isinstance(value, dict):
        return _has_huge_integer(list(value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_huge_integer, value))
    return isinstance(value, int) and abs(value) >= MAX_COUNT


def _check_fitted(fitted: dict[str, Any], n_in: int) -> None:
    """Raise ValueError unless the fitted attributes have the types that continuing the training needs."""
    always = [name for name in FITTED if name not in ("loss_", "best_epoch_")]
    recorded = always if "history_" in fitted else COUNTS[:-1]
    missing = [name for name in recorded if name not in fitted]
    if missing or fitted["n_features_in_"] != n_in:
        raise ValueError(f"no {missing[0]}" if missing else f"n_features_in_ is {fitted['n_features_in_']}")
    compared = "best_loss_" if fitted.get("validation_scores_") is None else "best_validation_score_"
    if "history_" in fitted and fitted[compared] is None:  # the next epoch is compared with it
        raise ValueError(f"{compared} is None")
    for name, value in fitted.items():
        if name in COUNTS:
            valid = type(value) is int and 0 <= value < MAX_COUNT
        elif name == "history_":
            valid = isinstance(value, dict) and all(isinstance(values, list) for values in value.values())
        elif name.endswith(("_curve_", "_scores_", "_settings")):
            valid = isinstance(value, list) or (value is None and name == "validation_scores_")
        else:  # a number, or None if it is not used
            valid = value is None or isinstance(value, float) or (type(value) is int and abs(value) < MAX_COUNT)
        if valid and name in ("history_", "loss_curve_", "validation_scores_"):
            lists = value.values() if name == "history_" else [value or []]
            valid = all(isinstance(number, float | int) for numbers in lists for number in numbers)
        if not valid:
            raise ValueError(f"{name} is {value!r}")


def _check_consistent(estimator: MLPClassifier | MLPRegressor) -> None:
    """Raise ValueError if the parts of an estimator contradict each other."""
    estimator._validate_params()
    if _has_huge_integer(list(estimator.get_params(deep=False).values())):
        raise ValueError("a parameter is too large")
    if len(estimator.callbacks) or callable(estimator.schedule):
        raise ValueError("callbacks or a schedule, which a file cannot hold")
    if not estimator._matches_parameters(estimator.network_.n_in):
        raise ValueError("the parameters describe another network")
    if not np.array_equal(np.sort(estimator._sample_order), np.arange(len(estimator._sample_order))):
        raise ValueError("invalid sample order")


def _describe_parameters(estimator: MLPClassifier | MLPRegressor) -> dict[str, Any]:
    """The parameters as JSON values. A RandomState becomes None, because its position is saved separately."""
    described = {}
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, Loss):
            value = {"loss": {"type": type(value).__name__, **value.config()}}
        elif name == "class_weight":
            value = [_describe_pairs(v) for v in value] if isinstance(value, list) else _describe_pairs(value)
        elif name == "random_state" and not isinstance(value, int | np.integer):
            value = None
        elif name == "dtype" and value is not None:
            value = np.dtype(value).name
        value = _to_json(value)
        if (name == "callbacks" and value) or not _is_json(value):
            raise HandgradError(
                f"a file cannot hold {name}={value!r}: change it with set_params({name}=...), then save"
            )
        described[name] = value
    return described


def _to_json(value: Any) -> Any:
    """Convert NumPy scalars to Python numbers and sequences to lists; other values are unchanged."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    """Restore a parameter from the value of `_describe_parameters`."""
    if isinstance(value, list):
        values = [_from_json(item) for item in value]
        return values if any(isinstance(item, dict) for item in values) else tuple(values)
    if isinstance(value, dict) and "loss" in value:
        return make_part(LOSS_CLASSES, "loss", value["loss"])
    if isinstance(value, dict):
        return {_restore_labels(k)[0] if isinstance(k, dict) else k: weight for k, weight in value["pairs"]}
    return value


def _is_json(value: Any) -> bool:
    """Return whether JSON can represent a value."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _describe_pairs(value: Any) -> Any:
    """Class weights as JSON values: a dict becomes a list of pairs, because its keys need not be strings."""
    if not isinstance(value, dict):
        return value
    pairs = []
    for key, weight in value.items():
        if isinstance(key, datetime.date):
            key = np.datetime64(key)
        if isinstance(key, datetime.timedelta):
            key = np.timedelta64(key)
        dated = isinstance(key, np.datetime64 | np.timedelta64)
        pairs.append([_describe_labels(np.array([key])) if dated else _to_json(key), _to_json(weight)])
    return {"pairs": pairs}


def _describe_labels(labels: NDArray[Any]) -> dict[str, Any]:
    """An array of labels as JSON values: numbers, strings, and dates as integers of the unit that the dtype names."""
    if labels.dtype.kind not in LABELS:
        raise HandgradError(f"a file cannot hold classes of dtype {labels.dtype}: expected numbers, strings or dates")
    stored = {"m": np.int64, "M": np.int64, "f": np.float64}.get(labels.dtype.kind, labels.dtype)
    return {"values": labels.astype(stored).tolist(), "dtype": labels.dtype.str}


def _restore_labels(description: dict[str, Any]) -> NDArray[Any]:
    """The labels of `_describe_labels`."""
    values, dtype = description["values"], np.dtype(description["dtype"])
    if dtype.kind not in LABELS or dtype.itemsize > MAX_LABEL_BYTES:
        raise ValueError(f"labels of dtype {dtype}")
    return np.array(values, np.int64).astype(dtype) if dtype.kind in "mM" else np.array(values, dtype)
