"""File inspection: describe a safetensors file: a model, a checkpoint, an estimator, or arrays of another program.

The file may be from an untrusted source: nothing in it is executed, and control characters in its names are escaped.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandgradError
from ..errors import printable as _printable
from ..interop import from_torch
from ..io.models import TRAINING, load
from ..io.safetensors import open_tensors, parse_description, read_tensors
from ..layers import Dense
from ..model import Model
from ..network import Network
from ..wrappers import Calibrated, Ensemble, Preprocessed, TestTimeAugmentation

# The dtypes of safetensors that NumPy has.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"}
DTYPES |= {f"{sign[0].upper()}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)}
MAX_TRIED_BYTES = 1 << 30  # largest file of another program that is read to find out whether it can be imported
MAX_ARRAYS = 60  # number of arrays that the report lists
MAX_DEPTH = 4  # of lists and dictionaries in a parameter of an estimator


def inspect(path: Path) -> dict[str, Any]:
    """Describe a safetensors file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Values that JSON can represent. "kind" is "model", "checkpoint", "estimator" or "foreign". "arrays" has name,
        shape, dtype, minimum, maximum and norm √Σx² of each array. "model" describes the wrappers, nested as in the
        model, and its networks.

    Raises
    ------
    HandgradError
        If the file is not a safetensors file, is damaged, or is inconsistent.
    """
    with open_tensors(path) as file:
        metadata = file.metadata() or {}
        arrays = [_describe_array(file, name) for name in file.keys()]  # noqa: SIM118 (not a dict)
        found: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size}
    if "handgrad" not in metadata:
        return found | {"kind": "foreign", "metadata": metadata, "arrays": arrays, "import": _try_import(path)}
    description = parse_description(path, metadata)
    found |= {"format": description["format"]}
    if "state" in description:
        return found | {"kind": "checkpoint", **_describe_checkpoint(path, description["state"]), "arrays": arrays}
    found |= {"kind": "model", "model": _describe_model(load(path))}
    if "estimator" not in description:
        return found | {"arrays": arrays}
    try:
        estimator = _describe_estimator(description["estimator"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HandgradError(f"{path} is damaged: inconsistent description of the estimator: {error!r}") from error
    own = [array for array in arrays if not array["name"].startswith(TRAINING)]
    training = [array for array in arrays if array["name"].startswith(TRAINING)]
    return found | {"kind": "estimator", "estimator": estimator, "arrays": own, "training": training}


def describe_layers(network: Network) -> list[str]:
    """Return a short text for each layer: "Dense(784, 30)", "ReLU()", ..."""
    return [f"Dense({x.n_in}, {x.n_out})" if isinstance(x, Dense) else repr(x) for x in network.layers]


# ---- Description -----------------------------------------------------------------------------------------------------


def _describe_array(file: Any, name: str) -> dict[str, Any]:
    """Name, shape and dtype of an array, and its minimum, maximum and norm if NumPy has the dtype."""
    part = file.get_slice(name)
    kind = part.get_dtype()
    described: dict[str, Any] = {"name": name, "shape": list(part.get_shape()), "dtype": DTYPES.get(kind, str(kind))}
    if kind in DTYPES and math.prod(described["shape"]):
        x = file.get_tensor(name).ravel()
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        numbers = {"minimum": x.min(), "maximum": x.max(), "norm": math.sqrt(np.vdot(x, x))}
        described |= {key: float(value) if math.isfinite(value) else str(value) for key, value in numbers.items()}
    return described


def _describe_model(model: Model) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(model).__name__}
    if isinstance(model, Preprocessed):
        described |= {"preprocessing": repr(model.preprocessing), "model": _describe_model(model.model)}
    elif isinstance(model, TestTimeAugmentation):
        described |= {"shifts": model.shifts, "model": _describe_model(model.model)}
    elif isinstance(model, Calibrated):
        described |= {"temperature": model.temperature, "model": _describe_model(model.model)}
    elif isinstance(model, Ensemble):
        described |= {"members": [_describe_model(member) for member in model.members]}
    elif isinstance(model, Network):
        described |= {"layers": describe_layers(model), "parameters": model.parameters.size}
    return described | {
        "loss": repr(model.loss),
        "dtype": str(model.dtype),
        "n_in": model.n_in,
        "n_out": model.n_out,
        "classes": list(model.classes) if model.loss.is_classification else None,
        "image_shape": None if model.image_shape is None else list(model.image_shape),
    }


def _describe_checkpoint(path: Path, state: Any) -> dict[str, Any]:
    """The progress of a training, and the metrics of its last epoch."""
    if not isinstance(state, dict) or not isinstance(state.get("history"), dict):
        raise HandgradError(f"{path} is not a checkpoint: its metadata has no training state")
    last = {name: values[-1] for name, values in state["history"].items() if isinstance(values, list) and values}
    callbacks = {name.split(".")[1] for name in state if name.startswith("callbacks.")}
    described = {
        "epoch": state.get("epoch"),
        "stopped": state.get("stop"),
        "optimizer": state.get("optimizer.kind"),
        "steps": state.get("optimizer.steps"),
        "last": last,
        "callbacks": len(callbacks),
    }
    try:
        return {name: _json_value(value, MAX_DEPTH) for name, value in described.items()}
    except ValueError as error:
        raise HandgradError(f"{path} is damaged: inconsistent training state: {error}") from error


def _describe_estimator(kept: Any) -> dict[str, Any]:
    """The class of the estimator, its parameters, and the progress of its training."""
    fitted, optimizer = kept["fitted"], kept.get("optimizer") or {}
    last = {name: values[-1] for name, values in fitted.get("history_", {}).items() if values}
    if not last and "loss_" in fitted:  # the solver lbfgs has no history
        last = {"loss": fitted["loss_"]}
    return {
        "type": _json_value(kept["type"]),
        "parameters": _json_value(dict(kept["parameters"]), MAX_DEPTH + 1),
        "epochs": _json_value(len(fitted["loss_curve_"]) if "loss_curve_" in fitted else fitted.get("n_iter_")),
        "last": _json_value(last, 1),
        "optimizer": _json_value(optimizer.get("kind")),
        "steps": _json_value(optimizer.get("steps")),
        "lr": _json_value(optimizer.get("lr")),
    }


def _json_value(value: Any, depth: int = 0) -> Any:
    """A copy with NaN and infinity as strings, which JSON can represent. Raises ValueError for deeper nesting."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, list | dict):
        return value
    if depth == 0:
        raise ValueError("too many nested values")
    if isinstance(value, list):
        return [_json_value(item, depth - 1) for item in value]
    return {name: _json_value(item, depth - 1) for name, item in value.items()}


def _try_import(path: Path) -> dict[str, Any]:
    """Whether `handgrad import` can convert the arrays, and their layers or the reason."""
    if path.stat().st_size > MAX_TRIED_BYTES:
        return {"possible": False, "reason": f"not tried, because the file is larger than {_size(MAX_TRIED_BYTES)}"}
    try:
        arrays, _ = read_tensors(path)
        network = from_torch(arrays, activation="relu", loss="squared_error")  # they do not matter here
    except HandgradError as error:
        return {"possible": False, "reason": str(error)}
    layers = [
        text for text, layer in zip(describe_layers(network), network.layers, strict=True) if layer.parameter_shapes
    ]
    hidden = sum(isinstance(layer, Dense) for layer in network.layers) - 1
    return {"possible": True, "layers": layers, "needs_activation": hidden > 0}


# ---- Report ----------------------------------------------------------------------------------------------------------


def format_report(found: dict[str, Any], *, arrays: bool = True) -> Iterator[str]:
    """Return the lines of a report.

    Parameters
    ----------
    found : dict
        A result of `inspect`.
    arrays : bool
        Whether to list the arrays.
    """
    kind = found["kind"]
    title = "safetensors file of another program" if kind == "foreign" else f"handgrad {kind}, format {found['format']}"
    yield f"{printable(found['file'])}: {title}, {_size(found['bytes'])}"
    if kind == "model":
        yield from _rows(_model_rows(found["model"]))
    elif kind == "estimator":
        yield from _rows(_estimator_rows(found["estimator"]))
        yield from _rows(_model_rows(found["model"]))
    elif kind == "checkpoint":
        yield from _rows(_checkpoint_rows(found))
    else:
        yield from _rows((name, printable(value)) for name, value in found["metadata"].items())
        yield from _rows([("import", _import_text(found["import"]))])
    if arrays:
        yield from _array_table(found["arrays"], "array")
        if found.get("training"):
            yield from _array_table(found["training"], "array of the training")


def printable(text: str, max_length: int = 200) -> str:
    """Return a text from a file as one line: long text is cut, and control characters are escaped."""
    return _printable(text, max_length)


def _rows(rows: Any) -> Iterator[str]:
    for name, value in rows:
        yield f"  {printable(str(name)):14} {printable(str(value), max_length=2000)}"


def _model_rows(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    shape = model["image_shape"]
    yield "inputs", f"images of {shape[0]} x {shape[1]} pixels" if shape else f"{model['n_in']:,} numbers"
    yield from _structure_rows(model)
    yield "loss", model["loss"]
    yield "parameters", f"{_parameters(model):,}, {model['dtype']}"
    if model["classes"] is None:
        yield "outputs", f"{model['n_out']:,} numbers"
    else:
        yield "classes", f"{len(model['classes'])}: {', '.join(model['classes'])}"


def _structure_rows(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The wrappers from the outermost to the networks, in the order of the computation."""
    if "preprocessing" in model:
        yield "preprocessing", model["preprocessing"]
    elif "temperature" in model:
        yield "calibration", f"temperature {model['temperature']:.4g}"
    elif "shifts" in model:
        yield "augmentation", f"mean over {model['shifts']} shifts (test-time augmentation)"
    if "layers" in model:
        yield "layers", " → ".join(model["layers"])
    elif "members" in model:
        members = [list(_structure_rows(member)) for member in model["members"]]
        if all(rows == members[0] for rows in members):
            yield "ensemble", f"mean over {len(members)} members with the same structure:"
            yield from members[0]
        else:
            yield "ensemble", f"mean over {len(members)} members:"
            for i, rows in enumerate(members):
                yield f"member {i}", ", ".join(text if name == "layers" else f"{name} {text}" for name, text in rows)
    elif "model" in model:
        yield from _structure_rows(model["model"])


def _parameters(model: dict[str, Any]) -> int:
    """Number of parameters of all networks in a model."""
    if "members" in model:
        return sum(map(_parameters, model["members"]))
    return _parameters(model["model"]) if "model" in model else int(model.get("parameters", 0))


def _checkpoint_rows(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "epoch", f"{found['epoch']}{', stopped early' if found['stopped'] else ''}"
    yield "optimizer", f"{found['optimizer']}, {found['steps']} steps"
    for name, value in found["last"].items():
        yield name, _number(value)
    yield "callbacks", f"{found['callbacks']} with a state"


def _estimator_rows(estimator: dict[str, Any]) -> Iterator[tuple[str, str]]:
    parameters = ", ".join(f"{name}={_parameter_text(value)}" for name, value in estimator["parameters"].items())
    yield "estimator", str(estimator["type"])
    for line in textwrap.wrap(printable(parameters, 2000), 100, break_on_hyphens=False):
        yield "", line
    yield "iterations" if estimator["optimizer"] is None else "epochs", str(estimator["epochs"])
    if estimator["optimizer"] is not None:
        yield "optimizer", f"{estimator['optimizer']}, {estimator['steps']} steps, lr {estimator['lr']}"
    for name, value in estimator["last"].items():
        yield f"last {name}", _number(value)


def _parameter_text(value: Any) -> str:
    """A parameter as in Python: a loss as a call, class weights as a dictionary."""
    if isinstance(value, dict) and isinstance(loss := value.get("loss"), dict):
        options = ", ".join(f"{name}={option!r}" for name, option in loss.items() if name != "type")
        return f"{loss.get('type')}({options})"
    if isinstance(value, dict) and isinstance(pairs := value.get("pairs"), list):
        weights = (": ".join(map(repr, pair)) if isinstance(pair, list) else repr(pair) for pair in pairs)
        return f"{{{', '.join(weights)}}}"
    return value if value in ("inf", "nan") else repr(value)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _import_text(result: dict[str, Any]) -> str:
    if not result["possible"]:
        return f"not possible: {printable(result['reason'])}"
    option = " --activation NAME" if result["needs_activation"] else ""
    return f"possible with handgrad import{option}: {' → '.join(result['layers'])}"


def _array_table(arrays: list[dict[str, Any]], title: str) -> Iterator[str]:
    width = max([len(title), *(len(printable(array["name"])) for array in arrays[:MAX_ARRAYS])])
    yield f"  {title:{width}}  {'shape':>14}  {'dtype':>8}  {'minimum':>11}  {'maximum':>11}  {'norm':>11}"
    for array in arrays[:MAX_ARRAYS]:
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        numbers = [array.get(key, "-") for key in ("minimum", "maximum", "norm")]
        cells = [f"{n:>11.4g}" if isinstance(n, float) else f"{n:>11}" for n in numbers]
        yield f"  {printable(array['name']):{width}}  {shape:>14}  {printable(array['dtype']):>8}  {'  '.join(cells)}"
    if len(arrays) > MAX_ARRAYS:
        yield f"  {len(arrays) - MAX_ARRAYS:,} more arrays: --json lists all"


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1024 else f"{count / 1024:,.1f} KiB"
