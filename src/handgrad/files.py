"""Models and checkpoints as safetensors files: arrays with names, and a JSON text beside them. Nothing in them runs.

A model file holds PyTorch's names and layout, `0.weight` (n_out, n_in), `0.bias` (n_out,), `2.weight`, ...: a
`load_state_dict` of the matching Sequential takes it with no mapping. For a BatchNorm1d there are `running_mean` and
`running_var` too, and `num_batches_tracked`, always 0: it counts for nothing where a momentum is given. The metadata
has, under "handgrad", the architecture, the loss, what was done to the inputs, and the names of the classes.

A committee's file holds its members one after the other, `0.0.weight`, `0.2.bias`, `1.0.weight`, ...: the names of a
ModuleList of such Sequentials. Its metadata has, under "members", what each one's own file would have.

Every file is written beside its place under a temporary name, flushed to the disk and renamed: there is the whole old
one or the whole new one, never a part.
"""

from __future__ import annotations

import json
import math
import operator
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .atomic import replacing
from .committee import Committee
from .errors import HandgradError, optional, unknown
from .layers import LAYERS, BatchNorm
from .network import Network
from .preprocessing import PREPROCESSING
from .regression import LOSSES as LOSSES_BY_WORD
from .tensors import read_tensors
from .training import Callback, Trainer

FORMAT = 3  # the newest of the metadata; a reader takes it and all earlier ones
# Each file is of the earliest format that can say what it holds.
FORMAT_OF_ONE = 1  # a network, a checkpoint
FORMAT_OF_MANY = 2  # a committee, batch normalisation, preprocessing, views, a temperature

TORCH_NAME = {"W": "weight", "g": "weight", "b": "bias"}  # all else is called there as it is here
COUNT = "num_batches_tracked"
TRAINING = "training."  # begins the names of arrays that a network can do without: see handgrad.sklearn.save

LOSSES = {loss.__name__: loss for loss in LOSSES_BY_WORD.values()}  # in a file as in code: CrossEntropy

Made = TypeVar("Made")


def save(network: Network | Committee, path: str | os.PathLike[str]) -> None:
    """Write a model file.

    Raises HandgradError for layers and a preprocessing that handgrad does not know, for classes and an image shape that
    are not the network's, and for places that cannot be written.
    """
    if isinstance(network, Committee):
        labels = network.classes, network.image_shape
        members = [_describe(member, *labels) for member in network.members]
        arrays = {f"{i}.{name}": p for i, member in enumerate(network.members) for name, p in _arrays(member).items()}
        version = max(FORMAT_OF_MANY, *(member["format"] for member in members))
        _write_arrays(Path(path), arrays, {"format": version, "members": members})
    else:
        description = _describe(network, network.classes, network.image_shape)
        _write_arrays(Path(path), _arrays(network), description)


def load(path: str | os.PathLike[str]) -> Network | Committee:
    """Read a model file. Raises HandgradError for what is no such file, is damaged, or of a later format."""
    arrays, description = _read_arrays(Path(path))
    arrays = {name: value for name, value in arrays.items() if not name.startswith(TRAINING)}
    if "members" not in description:
        return _build(str(path), arrays, description)
    members = description["members"]
    if not isinstance(members, list):
        raise HandgradError(f"{path} is no handgrad model: its metadata has no list of members, but {members!r}")
    networks, strays = [], dict(arrays)
    for i, member in enumerate(members):
        names = [name for name in arrays if name.startswith(f"{i}.")]
        own = {name.removeprefix(f"{i}."): strays.pop(name) for name in names}
        networks.append(_build(f"member {i} of {path}", own, member))
    if strays:
        raise HandgradError(f"{path} is damaged: it describes {len(members)} members, and none has {', '.join(strays)}")
    try:
        return Committee(networks)
    except HandgradError as error:
        raise HandgradError(f"{path} is no handgrad model: {error}") from error


# ---- One network of a file -------------------------------------------------------------------------------------------


def _describe(network: Network, classes: Any, image_shape: Any) -> dict[str, Any]:
    """All that a network is but for its arrays. HandgradError: no file can say it."""
    images = network.preprocessing
    for part in (*network.layers, network.loss, *([] if images is None else [images])):
        if type(part) not in (*LAYERS.values(), *LOSSES.values(), *PREPROCESSING.values()):
            raise HandgradError(
                f"a model file cannot hold {type(part).__name__}, a class of your own: "
                "keep network.parameters with numpy.save, and build the network again from your code"
            )
    classes, image_shape = _labelled(network, classes, image_shape)
    preprocessing: dict[str, Any] = {"uint8": "x / 255"}
    if images is not None:
        preprocessing["images"] = {"type": type(images).__name__, **images.config()}
    later = {"views": network.views} if network.views > 1 else {}
    return {
        "format": _earliest_format(network),
        "layers": [{"type": type(layer).__name__, **layer.config()} for layer in network.layers],
        "loss": {"type": type(network.loss).__name__, **network.loss.config()},
        "preprocessing": preprocessing,
        "image_shape": image_shape,
        "classes": classes,
        **later,
    }


def _earliest_format(network: Network) -> int:
    """The first format whose readers understand this network: 3 brought numbers for answers, and one output alone."""
    if not network.loss.classifies or network.n_out == 1:
        return FORMAT
    normed = any(isinstance(layer, BatchNorm) for layer in network.layers)
    if normed or network.preprocessing is not None or network.views > 1 or network.loss.temperature != 1:
        return FORMAT_OF_MANY
    return FORMAT_OF_ONE


def _build(what: str, arrays: dict[str, NDArray[Any]], description: Any) -> Network:
    """The network that is described, with these arrays. HandgradError, calling it `what`: they do not fit together."""
    if not isinstance(description, dict) or "layers" not in description:
        raise HandgradError(f"{what} is no handgrad model: its metadata describes no layers")
    try:
        layers = [_make(LAYERS, "layer", config) for config in description["layers"]]
        parameters = [value for name, value in arrays.items() if not name.endswith(COUNT)]
        described = sum(math.prod(shape) for layer in layers for shape in layer.shapes.values())
        if described != sum(value.size for value in parameters):  # before so much memory is taken
            raise HandgradError(f"it is damaged, with {described:,} parameters described")
        (dtype,) = {value.dtype for value in parameters}
        network = Network(layers, loss=_make(LOSSES, "loss", description["loss"]), rng=0, dtype=dtype)
        images = dict(description.get("preprocessing", ())).get("images")  # older files name none
        network.preprocessing = None if images is None else _make(PREPROCESSING, "preprocessing", images)
        classes = description["classes"]
        if network.n_classes > network.n_out and len(classes) == 1:  # from before one output told no from yes
            classes = network.classes if classes == ["0"] else [f"not {classes[0]}", classes[0]]
        labelled = _labelled(network, classes, description["image_shape"])
    except (HandgradError, KeyError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise HandgradError(f"{what} is no handgrad model: its description does not hold together: {error}") from error
    network.classes, network.image_shape = labelled
    try:
        network.views = description.get("views", 1)
    except (HandgradError, TypeError) as error:
        raise HandgradError(f"{what} is no handgrad model: {error}") from error

    expected = _arrays(network)
    if {name: value.shape for name, value in arrays.items()} != {name: p.shape for name, p in expected.items()}:
        have = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise HandgradError(f"{what} is damaged: its arrays are {have}, and not those of {network!r}")
    for name, p in expected.items():
        p[...] = arrays[name]
    return network


def _labelled(network: Network, classes: Any, image_shape: Any) -> tuple[tuple[str, ...], tuple[int, int] | None]:
    """The names of the network's classes and the size of its pictures as plain values, whatever sequences they came as.

    Raises HandgradError where they are not n_classes names and either None or a height and width of n_in pixels.
    """
    names: tuple[str, ...] = ()
    try:
        names = tuple(map(str, classes))
        height, width = (1, network.n_raw) if image_shape is None else map(operator.index, image_shape)
        fits = len(names) == network.n_classes and height > 0 and height * width == network.n_raw
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise HandgradError(
            f"{len(names)} classes and the image shape {image_shape}: expected the names of {network.n_classes} "
            f"classes, and (height, width) of {network.n_raw} pixels or None"
        )
    return names, None if image_shape is None else (height, width)


def _arrays(network: Network) -> dict[str, NDArray[Any]]:
    """The parameters by the names that PyTorch has for them, "0.W" as "0.weight", and for each BatchNorm a count."""
    named: dict[str, NDArray[Any]] = {}
    for i, layer in enumerate(network.layers):
        for symbol in layer.shapes:
            named[f"{i}.{TORCH_NAME.get(symbol, symbol)}"] = getattr(layer, symbol)
        if isinstance(layer, BatchNorm):
            named[f"{i}.{COUNT}"] = np.zeros((), np.int64)
    return named


def _make(known: Mapping[str, Callable[..., Made]], kind: str, config: dict[str, Any]) -> Made:
    """The layer, loss or preprocessing that `config` describes: the name it has in `known`, and its arguments."""
    arguments = dict(config)
    name = arguments.pop("type")
    if name not in known:
        raise unknown(kind, name, known)
    return known[name](**arguments)


# ---- Checkpoints -----------------------------------------------------------------------------------------------------


class Checkpoint(Callback):
    """After an epoch, write all that the next one depends on. It goes last: it holds the other callbacks' states.

    Where writing takes longer than `share` of the time, it is not after every epoch, but as often as the share allows,
    and after the last one. `epoch` is the last that is kept.
    """

    def __init__(self, path: str | os.PathLike[str], share: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise HandgradError(f"a checkpoint with share {share}: expected a number above 0, at most 1")
        self.path, self.share = Path(path), share
        self.epoch = 0
        self.due = 0.0  # on the clock

    def on_train_begin(self, trainer: Trainer) -> None:
        """What a run goes on from is kept."""
        self.epoch, self.due = trainer.epoch, 0.0

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Replace the file."""
        begin = time.monotonic()
        if begin < self.due and trainer.epoch < trainer.epochs and not trainer.stop:
            return
        state = trainer.state()
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        _write_arrays(self.path, arrays, {"format": FORMAT_OF_ONE, "state": values})
        self.epoch, end = trainer.epoch, time.monotonic()
        self.due = end + (end - begin) * (1 / self.share - 1)


def resume(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Let a trainer, made as the one before it was, stand where the checkpoint was written."""
    arrays, description = _read_arrays(Path(path))
    if "state" not in description:
        raise HandgradError(f"{path} is no checkpoint: its metadata holds no state of a training")
    try:
        trainer.restore({**description["state"], **arrays})
    except KeyError as error:
        raise HandgradError(f"{path} is of another training: it holds no {error}") from error


# ---- Safetensors, and replacing a file whole -------------------------------------------------------------------------


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]], description: dict[str, Any]) -> None:
    safetensors = optional("safetensors.numpy")
    contiguous = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    replace_file(path, safetensors.save(contiguous, {"handgrad": json.dumps(description)}))


def _read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a file of handgrad's, and what its metadata says of them."""
    arrays, metadata = read_tensors(path)
    return arrays, described(path, metadata)


def described(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What the metadata of a file of handgrad's says of it. HandgradError: it is none, or of a later format."""
    try:
        values: dict[str, Any] = json.loads(metadata["handgrad"])
        version = values["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise HandgradError(f"{path} is a safetensors file, but not one of handgrad's: {error!r}") from error
    if not isinstance(version, int) or version > FORMAT:
        raise HandgradError(f"{path} is of format {version}, and this handgrad reads up to {FORMAT}: update handgrad")
    return values


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all. Raises HandgradError where it cannot be written."""
    path = Path(path)
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file. Raises HandgradError where there is none."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise HandgradError(f"{path} is no JSON file, or only a part of one: {error}") from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as a JSON file that people can read, whole or not at all."""
    replace_file(path, (json.dumps(value, indent=2) + "\n").encode())
