"""Export models to PyTorch, Keras, ONNX, NumPy, C and JavaScript.

    export(model, "digits.c", to="c")
    export(model, "digits.py", to="torch", model_file="model.safetensors")     a script that loads this file
    export(model, "digits.py", to="torch", train=RECIPES["post"])              a script that trains the network

Each target is a module with a function `write`. `graph` has what all targets share, `templates` formats text, and
`training` describes a training for `train`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import HandgradError, unknown
from ..io.atomic import is_stream, read_bytes, replace_file
from ..io.models import save
from ..model import Model
from ..recipes import Recipe
from . import c, javascript, keras, numpy_file, onnx, torch
from .graph import InferenceGraph, inference_graph
from .templates import identifier, safe_filename
from .training import Training, translate_training

__all__ = ["TARGETS", "Target", "export", "get_target"]


class Target(NamedTuple):
    """A language or format to export to.

    Attributes
    ----------
    suffix : str
        Default end of the file name, after the name of the model.
    write : callable
        (graph, file name) -> content of the file.
    usage : str
        A command that runs the file; empty if there is none. See `command`.
    write_training : callable or None
        (training, file name) -> content of a script that trains the network. Such a target loads its weights from a
        model file.
    """

    suffix: str
    write: Callable[[InferenceGraph, str], bytes]
    usage: str
    write_training: Callable[[Training, str], bytes] | None = None

    def command(self, path: Path) -> str:
        """Return the command that runs the exported file `path`; empty if there is none."""
        return self.usage.format(path=path, macro=identifier(path.stem).upper())


TARGETS = {
    "torch": Target("_torch.py", torch.write, "python {path} EXAMPLES.npy", write_training=torch.write_training),
    "keras": Target(
        "_keras.py", keras.write, "KERAS_BACKEND=torch python {path} EXAMPLES.npy", write_training=keras.write_training
    ),
    "onnx": Target(".onnx", onnx.write, ""),
    "python": Target(".py", numpy_file.write, "python {path} EXAMPLES.npy"),
    "c": Target(".c", c.write, "cc -O2 -D{macro}_MAIN {path} -lm -o digit && ./digit < EXAMPLES"),
    "js": Target(".mjs", javascript.write, "node {path} < EXAMPLES"),
}


def get_target(to: str) -> Target:
    """Return the target of this name. Raises HandgradError for an unknown name."""
    if to not in TARGETS:
        raise unknown("target", to, TARGETS)
    return TARGETS[to]


def export(
    model: Model,
    path: str | os.PathLike[str],
    *,
    to: str,
    model_file: str | os.PathLike[str] | None = None,
    train: Recipe | None = None,
    without_preprocessing: bool = False,
) -> list[Path]:
    """Export a model to a file.

    Parameters
    ----------
    model : Model
        A network, an ensemble, or a wrapper of handgrad around them: preprocessing, test-time augmentation.
    path : path-like
        File to write.
    to : {"torch", "keras", "onnx", "python", "c", "js"}
        Target.
    model_file : path-like, optional
        File that contains the model. Scripts for torch and keras load their weights from a file in their own directory.
        If the model file is in another directory it is copied there; if there is none, the model is saved there. The
        name of that file is the name of the script with the suffix .safetensors.
    train : Recipe, optional
        Write a script that trains the network with this recipe from new weights. Only for torch and keras. The script
        deskews the images with handgrad if the model does.
    without_preprocessing : bool
        Export the network without its preprocessing and test-time augmentation.

    Returns
    -------
    list of Path
        The files that were written, `path` first.

    Raises
    ------
    HandgradError
        If the model cannot be exported to this target, or a file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from handgrad import Network
    >>> from handgrad.export import export
    >>> with TemporaryDirectory() as directory:
    ...     [path.name for path in export(Network([784, 30, 10], rng=0), Path(directory, "digits.c"), to="c")]
    ['digits.c']
    """
    target, path = get_target(to), Path(path)
    if train is not None and target.write_training is None:
        able = " or ".join(name for name, other in TARGETS.items() if other.write_training is not None)
        raise HandgradError(f"--train cannot be used with the target {to}: expected {able}")
    if model_file is not None and path.resolve() == Path(model_file).resolve():
        raise HandgradError(f"{path} is the model file: choose another name for the export")
    graph = inference_graph(
        model,
        "" if model_file is None else safe_filename(Path(model_file).name),
        without_preprocessing=without_preprocessing or train is not None,  # the training deskews the images itself
    )
    name = safe_filename(path.name)
    written: list[Path] = []
    if target.write_training is None:
        content = target.write(graph, name)
    elif train is not None:
        content = target.write_training(translate_training(graph, model, train), name)
    else:
        weights, written = _place_weights(path, model, model_file)
        content = target.write(replace(graph, weights=weights.name), name)
    replace_file(path, content)
    return [path, *written]


def _place_weights(path: Path, model: Model, model_file: str | os.PathLike[str] | None) -> tuple[Path, list[Path]]:
    """The model file in the directory of the script, and again if it was written. Never overwrites another model."""
    if model_file is not None and Path(model_file).resolve().parent == path.resolve().parent:
        return Path(model_file).resolve(), []  # a link in another directory has another name
    if is_stream(path):  # whose directory is not that of a script
        if model_file is None:
            raise HandgradError(
                f"{path} is a device or a pipe: pass the name of the file with the weights as model_file"
            )
        return Path(model_file), []
    weights = path.with_suffix(".safetensors")
    if weights == path:
        raise HandgradError(
            f"{path} is the name of the file with the weights: name the script, as in {path.with_suffix('.py')}"
        )
    if model_file is None:
        if weights.exists():
            raise HandgradError(f"{weights} already exists: pass it as model_file if it contains this model")
        save(model, weights)
        return weights, [weights]
    content = read_bytes(model_file)
    if weights.exists() and read_bytes(weights) != content:
        raise HandgradError(
            f"{weights}, from which the script would load its weights, is another model: choose another name for the "
            "script"
        )
    replace_file(weights, content)
    return weights, [weights]
