"""The way out: a trained network as a script of another framework, or as a file that needs none.

    export(network, "digits.c", to="c")
    export(network, "digits.py", to="torch", model="model.safetensors")     a script that loads that file
    export(network, "digits.py", to="torch", train=RECIPES["post"])         a script that trains it anew

Each target is a module with one function that writes; what all of them share is in `plain`, and for `train` in
`training`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import HandgradError, unknown
from ..io.atomic import replace_file
from ..io.models import save
from ..network import Network
from ..recipes import Recipe
from ..wrappers import Ensemble
from .graph import InferenceGraph, as_plain
from .templates import identifier, shown
from .training import Training, training_of

__all__ = ["TARGETS", "Target", "export"]


class Target(NamedTuple):
    """A language to write a network in."""

    ending: str  # of the file's name, after the model's
    write: Callable[[InferenceGraph, str], bytes]  # (network, the file's name) -> its content
    usage: str  # a command that tries it, where there is one
    whole: bool = False  # whether it writes what is in front of the first layer too
    write_training: Callable[[Training, str], bytes] | None = None  # where it loads a model file, and can train anew

    def tried(self, path: Path) -> str:
        """The command that tries the file."""
        return self.usage.format(path=path, macro=identifier(path.stem).upper())


TARGETS = {
    "torch": Target("_torch.py", torch.write, "python {path} EXAMPLES.npy", write_training=torch.write_training),
    "keras": Target(
        "_keras.py", keras.write, "KERAS_BACKEND=torch python {path} EXAMPLES.npy", write_training=keras.write_training
    ),
    "onnx": Target(".onnx", onnx.write, ""),
    "python": Target(".py", python.write, "python {path} EXAMPLES.npy", whole=True),
    "c": Target(".c", c.write, "cc -O2 -D{macro}_MAIN {path} -lm -o digit && ./digit < EXAMPLES"),
    "js": Target(".mjs", js.write, "node {path} < EXAMPLES"),
}


def target_of(to: str) -> Target:
    """The target of that name. Raises HandgradError where there is none."""
    if to not in TARGETS:
        raise unknown("target", to, TARGETS)
    return TARGETS[to]


def export(
    network: Network | Ensemble,
    path: str | os.PathLike[str],
    *,
    to: str,
    model: str | os.PathLike[str] | None = None,
    train: Recipe | None = None,
    without_preprocessing: bool = False,
) -> list[Path]:
    """Write a network for `to`, one of TARGETS, to the file `path`; return the files that were written.

    model                   the file that holds the network. A script that loads its weights finds them beside it: where
                            there is no such file, or not there, they are written there, with the ending .safetensors
    train                   write the training of the network by this recipe, from new weights: torch and keras
    without_preprocessing   write the net behind a preprocessing, and one view in place of a mean over several

    Raises HandgradError for what cannot be exported, naming it, and for places that cannot be written.
    """
    target, path = target_of(to), Path(path)
    made: list[Path] = []
    if train is not None and target.write_training is None:
        able = ", ".join(name for name, other in TARGETS.items() if other.write_training is not None)
        raise HandgradError(f"--train does not go with {to}, which does not train: expected one of {able}")
    if model is not None and path.resolve() == Path(model).resolve():
        raise HandgradError(f"{path} is the model itself: name another file to write")
    source = "" if model is None else Path(model).name
    plain = as_plain(network, source, without_preprocessing=without_preprocessing, whole=target.whole)
    name = shown(path.name)
    if target.write_training is None:
        content = target.write(plain, name)
    elif train is not None:
        content = target.write_training(training_of(plain, network, train), name)
    else:
        weights, made = _weights_beside(path, network, model)
        content = target.write(replace(plain, weights=weights.name), name)
    replace_file(path, content)
    return [path, *made]


def _weights_beside(
    path: Path, network: Network | Ensemble, model: str | os.PathLike[str] | None
) -> tuple[Path, list[Path]]:
    """A model file in the script's directory, and again where it had to be written: never over one that is there."""
    if model is not None and Path(model).resolve().parent == path.resolve().parent:
        return Path(model), []
    weights = path.with_suffix(".safetensors")
    if weights == path:
        raise HandgradError(f"{path} is named as its weights are to be: name a script, as in {path.with_suffix('.py')}")
    if model is None:
        if weights.exists():
            raise HandgradError(f"{weights} is there already: give it as model, if it holds this network")
        save(network, weights)
        return weights, [weights]
    content = Path(model).read_bytes()
    if weights.exists() and weights.read_bytes() != content:
        raise HandgradError(
            f"{weights}, where the script would look for its weights, is another model: name another file"
        )
    replace_file(weights, content)
    return weights, [weights]
