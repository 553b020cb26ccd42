"""What is in a safetensors file, told at a glance: a model, a ensemble, a checkpoint, an estimator, anybody's arrays.

A file may be anybody's work: nothing in it is run, and what it calls itself is printed with every control character
spelled out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandgradError
from ..interop import from_torch
from ..io.models import TRAINING, described, load
from ..io.safetensors import opened, read_tensors
from ..layers import Dense
from ..network import Network
from ..wrappers import Ensemble

# The types of safetensors that NumPy has.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"}
DTYPES |= {f"{sign[0].upper()}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)}
TRIED = 1 << 30  # bytes of a file that is read as a whole to see whether it can be imported, at most
SHOWN = 60  # arrays that are told of one by one, at most

# The parameters of the estimators in handgrad.sklearn as they are where nobody sets them, in the words of their files.
# They stand here again because there they stand on scikit-learn; a test compares the two.
DEFAULTS: dict[str, Any] = {"hidden_layer_sizes": [100], "activation": "relu", "solver": "adam", "alpha": 0.0001}
DEFAULTS |= {"batch_size": "auto", "learning_rate": "constant", "learning_rate_init": 0.001, "power_t": 0.5}
DEFAULTS |= {"max_iter": 200, "shuffle": True, "random_state": None, "tol": 1e-4, "verbose": False, "warm_start": False}
DEFAULTS |= {"momentum": 0.9, "nesterovs_momentum": True, "early_stopping": False, "validation_fraction": 0.1}
DEFAULTS |= {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "n_iter_no_change": 10, "max_fun": 15000, "dropout": 0.0}
DEFAULTS |= {"init": None, "schedule": None, "callbacks": [], "dtype": None}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "MLPClassifier": DEFAULTS | {"loss": "log_loss", "class_weight": None},
    "MLPRegressor": DEFAULTS | {"loss": "squared_error"},
}
DEEP = 4  # levels of lists and dictionaries in a parameter, at most


def inspect(path: Path) -> dict[str, Any]:
    """All that can be told of a file, in values that JSON can hold.

    Raises HandgradError where it is no safetensors file, is damaged, or does not hold together.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
        arrays = [_array(file, name) for name in file.keys()]  # noqa: SIM118 (it is no dict)
        found: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size}
    if "handgrad" not in metadata:
        return found | {"kind": "foreign", "metadata": metadata, "arrays": arrays, "import": _importable(path)}
    description = described(path, metadata)
    found |= {"format": description["format"]}
    if "state" in description:
        return found | {"kind": "checkpoint", **_checkpoint(path, description["state"]), "arrays": arrays}
    model = load(path)
    if isinstance(model, Ensemble):
        return found | {
            "kind": "ensemble",
            "members": [_network(member) for member in model.members],
            "arrays": arrays,
        }
    found |= {"kind": "network", **_network(model), "arrays": arrays}
    if "estimator" not in description:
        return found
    try:
        estimator = _estimator(description["estimator"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HandgradError(
            f"{path} is damaged: what it says of its estimator does not hold together: {error!r}"
        ) from error
    own = [array for array in arrays if not array["name"].startswith(TRAINING)]
    training = [array for array in arrays if array["name"].startswith(TRAINING)]
    return found | {"kind": "estimator", "estimator": estimator, "arrays": own, "training": training}


def _array(file: Any, name: str) -> dict[str, Any]:
    """An array's name, shape and type, and where NumPy has that type its extremes and its norm, √Σx²."""
    part = file.get_slice(name)
    kind = part.get_dtype()
    told: dict[str, Any] = {"name": name, "shape": list(part.get_shape()), "dtype": DTYPES.get(kind, str(kind))}
    if kind in DTYPES and math.prod(told["shape"]):
        x = file.get_tensor(name).ravel()
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        numbers = {"smallest": x.min(), "largest": x.max(), "norm": math.sqrt(np.vdot(x, x))}
        told |= {key: float(value) if math.isfinite(value) else str(value) for key, value in numbers.items()}
    return told


def _network(network: Network) -> dict[str, Any]:
    return {
        "chain": chain_of(network),
        "loss": repr(network.loss),
        "parameters": network.parameters.size,
        "dtype": str(network.dtype),
        "inputs": network.n_in,
        "classes": list(network.classes) if network.loss.is_classification else None,
        "image_shape": None if network.image_shape is None else list(network.image_shape),
        "preprocessing": None if network.preprocessing is None else repr(network.preprocessing),
        "views": network.views,
    }


def chain_of(network: Network) -> list[str]:
    """Every layer in a word or two."""
    layers = network.layers
    return [f"Dense({link.n_in}, {link.n_out})" if isinstance(link, Dense) else repr(link) for link in layers]


def _checkpoint(path: Path, state: Any) -> dict[str, Any]:
    """Where the training stands, and the last of its numbers."""
    if not isinstance(state, dict) or not isinstance(state.get("history"), dict):
        raise HandgradError(f"{path} is no checkpoint: its metadata holds no state of a training")
    history = {name: values[-1] for name, values in state["history"].items() if isinstance(values, list) and values}
    callbacks = {name.split(".")[1] for name in state if name.startswith("callbacks.")}
    return {
        "epoch": state.get("epoch"),
        "stopped": state.get("stop"),
        "optimizer": state.get("optimizer.kind"),
        "steps": state.get("optimizer.steps"),
        "last": history,
        "callbacks": len(callbacks),
    }


def _estimator(kept: Any) -> dict[str, Any]:
    """Which it is, its parameters, those of them that are not the defaults, and where its training stands."""
    kind, fitted, optimizer = kept["type"], kept["fitted"], kept.get("optimizer", {})
    defaults, parameters = ESTIMATORS[kind], _plain_value(dict(kept["parameters"]), DEEP + 1)
    last = {name: values[-1] for name, values in fitted.get("history_", {}).items() if values}
    if not last and "loss_" in fitted:  # lbfgs keeps no more
        last = {"loss": fitted["loss_"]}
    return {
        "type": kind,
        "parameters": parameters,
        "changed": [name for name, value in parameters.items() if name not in defaults or value != defaults[name]],
        "epochs": _plain_value(len(fitted["loss_curve_"]) if "loss_curve_" in fitted else fitted.get("n_iter_")),
        "last": _plain_value(last, 1),
        "optimizer": _plain_value(optimizer.get("kind")),
        "steps": _plain_value(optimizer.get("steps")),
        "lr": _plain_value(optimizer.get("lr")),
    }


def _plain_value(value: Any, deep: int = 0) -> Any:
    """A value of JSON with numbers that are not finite as texts. ValueError: it is deeper than that."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, list | dict):
        return value
    if deep == 0:
        raise ValueError("its description is too deep")
    if isinstance(value, list):
        return [_plain_value(item, deep - 1) for item in value]
    return {name: _plain_value(item, deep - 1) for name, item in value.items()}


def _importable(path: Path) -> dict[str, Any]:
    """Whether `handgrad import` takes the arrays, the chain that they are, and if not why."""
    if path.stat().st_size > TRIED:
        return {"possible": False, "why": f"it was not tried: the file is larger than {_size(TRIED)}"}
    try:
        arrays, _ = read_tensors(path)
        network = from_torch(arrays, "relu", "squared_error").build(Network)  # whichever they are
    except HandgradError as error:
        return {"possible": False, "why": str(error)}
    chain = [told for told, layer in zip(chain_of(network), network.layers, strict=True) if layer.parameter_shapes]
    hidden = sum(isinstance(layer, Dense) for layer in network.layers) - 1
    return {"possible": True, "chain": chain, "needs_activation": hidden > 0}


# ---- For people ------------------------------------------------------------------------------------------------------


def told(found: dict[str, Any], arrays: bool = True) -> Iterator[str]:
    """The lines that tell a person what `inspect` has found."""
    kind, size = found["kind"], _size(found["bytes"])
    written = f", format {found['format']}" if "format" in found else ""
    what = {"foreign": "a safetensors file, not handgrad's own", "ensemble": "a handgrad ensemble"}
    yield f"{plain(found['file'])}: {what.get(kind, f'a handgrad {kind}')}{written}, {size}"
    if kind == "network":
        yield from _rows(_told_network(found))
    elif kind == "estimator":
        yield from _rows(_told_estimator(found["estimator"]))
        yield from _rows(_told_network(found))
    elif kind == "ensemble":
        yield from _rows(_told_committee(found["members"]))
    elif kind == "checkpoint":
        yield from _rows(_told_checkpoint(found))
    else:
        yield from _rows((name, plain(value)) for name, value in found["metadata"].items())
        yield from _rows([("import", _told_import(found["import"]))])
    if arrays:
        yield from _told_arrays(found["arrays"])
        if found.get("training"):
            yield from _told_arrays(found["training"], "of training")


def _rows(rows: Any) -> Iterator[str]:
    for name, value in rows:
        yield f"  {plain(str(name)):14} {plain(str(value), most=2000)}"


def _told_network(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "chain", " → ".join(network["chain"])
    yield "loss", network["loss"]
    yield "parameters", f"{network['parameters']:,} in {network['dtype']}"
    yield from _told_question(network)


def _told_question(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What goes in, and what comes out."""
    shape = network["image_shape"]
    pictures = f"pictures of {shape[0]} x {shape[1]} pixels" if shape else f"{network['inputs']:,} numbers"
    yield "inputs", pictures + (f", through {network['preprocessing']}" if network["preprocessing"] else "")
    if network["classes"] is not None:
        yield "classes", f"{len(network['classes'])}: {', '.join(network['classes'])}"
    if network["views"] > 1:
        yield "views", f"the mean over {network['views']} shifts answers"


def _told_committee(members: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    yield "members", str(len(members))
    chains = [" → ".join(member["chain"]) for member in members]
    if len(set(chains)) == 1:
        yield "each a chain", chains[0]
    else:
        yield from ((f"chain {i}", chain) for i, chain in enumerate(chains))
    yield "loss", ", ".join(dict.fromkeys(member["loss"] for member in members))
    yield "parameters", f"{sum(member['parameters'] for member in members):,} in {members[0]['dtype']}"
    yield from _told_question(members[0])


def _told_checkpoint(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "epoch", f"{found['epoch']}{', and told to stop' if found['stopped'] else ''}"
    yield "optimizer", f"{found['optimizer']}, after {found['steps']} steps"
    for name, value in found["last"].items():
        yield name, f"{value:.6g}" if isinstance(value, float) else value
    yield "callbacks", f"{found['callbacks']} with a state"


def _told_estimator(estimator: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """As scikit-learn shows an estimator, by what is not the default, then where its training stands."""
    changed = ", ".join(f"{name}={_told_parameter(estimator['parameters'][name])}" for name in estimator["changed"])
    yield "estimator", f"{estimator['type']}({changed})"
    yield "iterations" if estimator["optimizer"] is None else "epochs", str(estimator["epochs"])
    if estimator["optimizer"] is not None:
        yield "optimizer", f"{estimator['optimizer']}, after {estimator['steps']} steps, lr {estimator['lr']}"
    for name, value in estimator["last"].items():
        yield f"last {name}", f"{value:.6g}" if isinstance(value, float) else str(value)


def _told_parameter(value: Any) -> str:
    """A parameter as it is written in Python: a loss is a call, a class weight a dictionary."""
    if isinstance(value, dict) and isinstance(loss := value.get("loss"), dict):
        options = ", ".join(f"{name}={option!r}" for name, option in loss.items() if name != "type")
        return f"{loss.get('type')}({options})"
    if isinstance(value, dict) and isinstance(pairs := value.get("pairs"), list):
        weights = (": ".join(map(repr, pair)) if isinstance(pair, list) else repr(pair) for pair in pairs)
        return f"{{{', '.join(weights)}}}"
    return value if value in ("inf", "nan") else repr(value)


def _told_import(verdict: dict[str, Any]) -> str:
    if not verdict["possible"]:
        return f"handgrad import cannot take it: {verdict['why']}"
    needs = ", with --activation" if verdict["needs_activation"] else ""
    return f"handgrad import can take it{needs}: {' → '.join(verdict['chain'])}"


def _told_arrays(arrays: list[dict[str, Any]], title: str = "array") -> Iterator[str]:
    wide = max([len(title), *(len(plain(array["name"])) for array in arrays[:SHOWN])])
    yield f"  {title:{wide}}  {'shape':>14}  {'type':>8}  {'smallest':>11}  {'largest':>11}  {'norm':>11}"
    for array in arrays[:SHOWN]:
        shape = " x ".join(map(str, array["shape"])) or "one number"
        numbers = [array.get(key, "-") for key in ("smallest", "largest", "norm")]
        cells = [f"{n:>11.4g}" if isinstance(n, float) else f"{n:>11}" for n in numbers]
        yield f"  {plain(array['name']):{wide}}  {shape:>14}  {plain(array['dtype']):>8}  {'  '.join(cells)}"
    if len(arrays) > SHOWN:
        yield f"  and {len(arrays) - SHOWN:,} more: --json tells of all"


def plain(text: str, most: int = 200) -> str:
    """A text that is not ours in one line, cut where it is long, and no character of it moves the cursor."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:most])
    return shown if len(shown) <= most and len(text) <= most else f"{shown[: most - 3]}..."


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1024 else f"{count / 1024:,.1f} KiB"
