"""Readers: for each one valid files, their mutations, and a function that reads a file and uses what it has read."""

from __future__ import annotations

import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import handgrad
from handgrad import callbacks
from handgrad.adversarial import VirtualAdversarial
from handgrad.cli.run_directory import read_config
from handgrad.data.idx import encode_idx, read_idx
from handgrad.diagnostics.inspect import format_report, inspect
from handgrad.errors import HandgradError, HandgradWarning, printable
from handgrad.interop import from_torch
from handgrad.recipes import RECIPES

from . import mutations
from .mutations import Mutation

X = np.random.default_rng(0).random((12, 4))
Y = np.arange(12) % 3
MAX_SIZE = 10**6  # largest network that is created from a configuration


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes
    ----------
    name : str
        Name on the command line.
    suffix : str
        End of the file name of the inputs.
    seeds : callable
        Returns the valid files that are mutated. They are made when they are first needed.
    mutate : Mutation
        A random change of a file.
    read : callable
        Reads the file at a path, and uses the result as a program would.
    """

    name: str
    suffix: str
    seeds: Callable[[], list[bytes]]
    mutate: Mutation
    read: Callable[[Path], None]


def check(condition: bool, problem: str) -> None:
    """Raise AssertionError, also with python -O."""
    if not condition:
        raise AssertionError(problem)


def use_report(path: Path) -> None:
    """`inspect`: valid JSON without NaN, and printable lines."""
    found = inspect(path)
    json.dumps(found, allow_nan=False)
    for line in format_report(found):
        printable(line).encode()


def saved(model: handgrad.model.Model) -> bytes:
    """The bytes of a model file."""
    return written(lambda path: handgrad.save(model, path))


def written(write: Callable[[Path], Any]) -> bytes:
    """The bytes that a function writes to a path."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.safetensors"
        write(path)
        return path.read_bytes()


# ---- IDX, gzip -------------------------------------------------------------------------------------------------------


def idx_seeds() -> list[bytes]:
    """Files of every dtype."""
    images = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    return [encode_idx(images.astype(kind)) for kind in ("u1", "i1", "i2", "i4", "f4", "f8")]


# ---- Models, checkpoints, estimators ---------------------------------------------------------------------------------


def network(seed: int = 0, **options: Any) -> handgrad.Network:
    """A small network with every kind of layer that has parameters or a state."""
    return handgrad.Network(
        [4, 5, 3], activation="tanh", loss="cross_entropy", batch_norm=True, dropout=0.2, rng=seed, **options
    )


def model_seeds() -> list[bytes]:
    """A network, a regression, and nested wrappers of images."""
    images = network()
    images.image_shape, images.classes = (2, 2), ("ant", "bee", "cat")
    plain = handgrad.Network([4, 3], loss="huber", rng=0, dtype=np.float64)
    deskewed = handgrad.Preprocessed(handgrad.TestTimeAugmentation(images, 5), handgrad.Deskew(4, 4, 2))
    return [saved(model) for model in (images, plain, deskewed, handgrad.Ensemble([network(1), network(2)]))]


def read_model(path: Path) -> None:
    """Load a model, predict with it, and save it."""
    use_report(path)
    model = handgrad.load(path)
    with np.errstate(all="ignore"):
        model.predict(np.full((3, model.n_in), 0.5))
        model.predict_proba(np.full((3, model.n_in), 0.5))
    repr(model)
    handgrad.save(model, path)
    check(repr(handgrad.load(path)) == repr(model), "the saved model differs")


def trainers() -> list[handgrad.Trainer]:
    """Trainers whose checkpoints have all kinds of states."""
    first = [handgrad.EMA(0.9), handgrad.EarlyStopping("loss", patience=2)]
    return [
        handgrad.Trainer(network(), handgrad.Adam(0.01), batch_size=5, callbacks=first, rng=0),
        handgrad.Trainer(
            network(dtype=np.float64),
            handgrad.Lookahead(handgrad.Momentum(0.1)),
            batch_size=5,
            callbacks=[handgrad.SWA(0.2)],
            perturb=VirtualAdversarial(0.1, rng=0),
            rng=0,
        ),
        handgrad.Trainer(handgrad.Network([4, 3], rng=0), handgrad.SGD(0.1), batch_size=5, rng=0),
    ]


def checkpoint_seeds() -> list[bytes]:
    """Checkpoints after two epochs, and one before the first."""

    def write(trainer: handgrad.Trainer, epochs: int) -> bytes:
        def train(path: Path) -> None:
            trainer.callbacks.append(callbacks.Checkpoint(path))
            trainer.fit(X, Y, epochs=max(1, epochs), validation=(X, Y))

        return written(train)

    return [write(trainer, 2) for trainer in trainers()]


def read_checkpoint(path: Path) -> None:
    """Resume a training. It continues, or nothing has changed."""
    use_report(path)
    reasons = []
    for trainer in trainers():
        trainer.callbacks.append(callbacks.Checkpoint(path.with_name("out")))
        before = trainer.state_dict()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HandgradWarning)  # the optimizer has other options
                callbacks.resume(trainer, path)
        except HandgradError as error:
            reasons.append(error)
            np.testing.assert_equal(trainer.state_dict(), before)
            continue
        if trainer.epoch < 1000:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the training itself
                trainer.fit(X, Y, until_epoch=trainer.epoch + 1, validation=(X, Y))
    if len(reasons) == 3:
        raise reasons[-1]


@cache
def estimators() -> tuple[Any, ...]:
    """Fitted estimators."""
    from handgrad import sklearn

    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 2, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged
        return (
            sklearn.MLPClassifier(**settings, early_stopping=True).fit(
                X.repeat(2, 0), np.array(["a", "b", "c"])[Y.repeat(2)]
            ),
            sklearn.MLPClassifier(**settings, class_weight={0: 1, 1: 2, 2: 1}, loss=handgrad.CrossEntropy(0.1)).fit(
                X, Y
            ),
            sklearn.MLPRegressor(**settings, solver="lbfgs").fit(X, X[:, :2]),
            sklearn.MLPRegressor(**settings, solver="sgd", dropout=0.1).fit(X, Y),
        )


def estimator_seeds() -> list[bytes]:
    """Files of estimators."""
    from handgrad import sklearn

    return [written(lambda path, fitted=fitted: sklearn.save(fitted, path)) for fitted in estimators()]


def read_estimator(path: Path) -> None:
    """Load an estimator, predict with it, and continue its training."""
    from handgrad import sklearn

    use_report(path)
    estimator = sklearn.load(path)
    repr(estimator)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = estimator.predict(np.full((12, estimator.network_.n_in), 0.5))
        if estimator.solver != "lbfgs" and not estimator.early_stopping and estimator.network_.n_in == 4:
            try:
                estimator.partial_fit(X, predicted)
            except ValueError as error:  # scikit-learn's own kind of error, for parameters that do not fit
                raise HandgradError(str(error).splitlines()[0]) from error


def torch_seeds() -> list[bytes]:
    """State dicts of PyTorch."""
    import safetensors.numpy

    named = {"0.weight": np.ones((5, 4), np.float32), "0.bias": np.ones(5, np.float32)}
    named |= {f"1.{name}": np.ones(5, np.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    named |= {"1.num_batches_tracked": np.zeros((), np.int64), "3.weight": np.ones((3, 5)), "3.bias": np.ones(3)}
    single = {name: np.float32(value) if value.dtype == np.float64 else value for name, value in named.items()}
    return [
        safetensors.numpy.save(arrays, {"format": "pt"})
        for arrays in (single, {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)})
    ]


def read_torch(path: Path) -> None:
    """Import a state dict."""
    use_report(path)
    made = from_torch(path, activation="relu", loss="squared_error")
    with np.errstate(all="ignore"):
        made.predict(np.full((2, made.n_in), 0.5))


# ---- Configuration, Keras --------------------------------------------------------------------------------------------


def config_seeds() -> list[bytes]:
    """The config.json of every recipe."""
    return [json.dumps({**recipe.config(), "data": "mnist", "handgrad": "0"}).encode() for recipe in RECIPES.values()]


def read_run(path: Path) -> None:
    """Read config.json, and create what it describes unless it is large."""
    path.rename(path.with_name("config.json"))
    recipe = read_config(path.parent).recipe
    if sum(recipe.hidden) < MAX_SIZE // 784:
        recipe.trainer((28, 28), 10)
    json.dumps(recipe.config(), allow_nan=False)


def keras_seeds() -> list[bytes]:
    """A .keras file as Keras writes it: config.json, metadata.json and the arrays in HDF5."""
    import h5py

    def layer(kind: str, **settings: Any) -> dict[str, Any]:
        config = {"name": kind.lower(), **settings}
        return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}

    norm = layer("BatchNormalization", axis=-1, momentum=0.99, epsilon=1e-3, center=True, scale=True)
    layers = [layer("InputLayer", batch_shape=[None, 2, 2]), layer("Flatten")]
    layers += [layer("Dense", activation="relu", use_bias=True), norm, layer("Dropout", rate=0.2)]
    layers += [layer("Dense", activation="softmax", use_bias=True) | {}]
    layers[-1]["config"]["name"] = "dense_1"
    loss = {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}, "module": "keras.losses"}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}, "compile_config": {"loss": loss}}
    arrays = {"dense": [(4, 5), (5,)], "batch_normalization": [(5,)] * 4, "dense_1": [(5, 3), (3,)]}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, shapes in arrays.items():
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["name"] = {"batch_normalization": "batchnormalization"}.get(name, name)
            for i, shape in enumerate(shapes):
                group.create_dataset(str(i), data=np.ones(shape, np.float32))
    files = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", weights.getvalue())
        files.append(buffer.getvalue())
    return files


def read_keras(path: Path) -> None:
    """Import a .keras file."""
    made = handgrad.interop.from_keras(path)
    with np.errstate(all="ignore"):
        made.predict(np.full((2, made.n_in), 0.5))


def mutate_keras(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the configuration, the HDF5 file or the archive."""
    return mutations.mutate_zip(data, rng, {".json": mutations.mutate_json_file})


# ---- Data sets -------------------------------------------------------------------------------------------------------


def npz_seeds() -> list[bytes]:
    """Archives with the names of Keras, and with x and y and named classes."""
    images, files = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2), []
    for arrays in (
        {"x_train": images, "y_train": np.uint8(Y), "x_test": images, "y_test": np.uint8(Y)},
        {"x": X.astype(np.float32), "y": np.array(["a", "b", "c"])[Y], "classes": np.array(["a", "b", "c"])},
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        files.append(buffer.getvalue())
    return files


def read_npz(path: Path) -> None:
    """Read an archive as a data set."""
    from handgrad.data.archives import load_npz

    use_dataset(load_npz(path))


def csv_seeds() -> list[bytes]:
    """Tables as Kaggle's, with names, quotes, other separators and without a header."""
    pixels = "label,pixel0,pixel1,pixel2,pixel3\n" + "".join(f"{i % 3},0,{i},255,{i * 9}\n" for i in range(12))
    quoted = 'length;"wid;th";"class"\n' + "".join(f'{i}.5;{i * 2};"cl""ass {i % 2}"\n' for i in range(12))
    plain = "".join(f"{i / 7},{-i},{i % 2}\r\n" for i in range(12))
    return [pixels.encode(), quoted.encode("utf-8-sig"), plain.encode()]


def read_csv(path: Path) -> None:
    """Read a table as a data set."""
    from handgrad.data.tables import load_table

    use_dataset(load_table(path))


def use_dataset(dataset: Any) -> None:
    """What a training does with a data set."""
    repr(dataset)
    "".join(dataset.classes)
    model = handgrad.Network([int(np.prod(dataset.x_train.shape[1:])), len(dataset.classes)], rng=0)
    if model.parameters.size < MAX_SIZE:
        with np.errstate(all="ignore"):
            model.evaluate(dataset.x_train, dataset.y_train)


def mutate_csv(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a cell, a line, or bytes."""
    kind = rng.random()
    if kind < 0.3:
        return mutations.mutate_bytes(data, rng)
    if kind < 0.6:
        return mutations.mutate_text(data, rng)
    lines = data.split(b"\n")
    i, j = int(rng.integers(len(lines))), int(rng.integers(len(lines)))
    if kind < 0.8:
        cells = lines[i].split(b",")
        value = str(mutations.choice(rng, (*mutations.NUMBERS, *mutations.TEXTS, '"', "'", ",", ";", "\t", "=1+1")))
        cells[int(rng.integers(len(cells)))] = value.encode("utf-8", "surrogatepass")
        lines[i] = b",".join(cells)
    elif kind < 0.9:
        lines[i] = lines[j] * mutations.choice(rng, (0, 2, 1000))
    else:
        lines[i:i] = [lines[j]] * mutations.choice(rng, (1, 5, 1000))
    return b"\n".join(lines)


# ---- Images ----------------------------------------------------------------------------------------------------------


def digit() -> np.ndarray:
    """A bright stroke on a dark background."""
    pixels = np.zeros((24, 20), np.uint8)
    pixels[4:20, 9:12] = 230
    return pixels


def npy_seeds() -> list[bytes]:
    """Arrays as an image can have them."""
    files = []
    for array in (digit(), digit() / 255, np.repeat(digit()[..., None], 3, 2), digit() > 9, digit().astype(">i2")):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    return files


def image_seeds() -> list[bytes]:
    """Images in the formats and modes that people have."""
    from PIL import Image

    grey, files = Image.fromarray(digit()), []
    colour = Image.merge("RGBA", [grey, grey, grey, Image.new("L", grey.size, 200)])
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    palette = colour.convert("RGB").quantize(8)
    deep = Image.fromarray(digit().astype(np.int32) * 200).convert("I;16")
    for image, kind, options in (
        (grey, "PNG", {}),
        (colour, "PNG", {}),
        (palette, "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (deep, "PNG", {}),
        (grey, "JPEG", {"exif": exif}),
        (colour.convert("RGB"), "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette]}),
        (grey, "BMP", {}),
        (colour, "WEBP", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (grey, "PPM", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


@cache
def digit_model() -> handgrad.Network:
    """An untrained classifier of images."""
    made = handgrad.Network([196, 10], loss="cross_entropy", rng=0)
    made.image_shape = (14, 14)
    return made


def read_image(path: Path) -> None:
    """Find the digits in an image file and predict them."""
    from handgrad.images import predict_image

    for reading in predict_image(digit_model(), path):
        check(0 <= reading.confidence <= 1, f"confidence {reading.confidence}")
        check(sum(reading.probabilities.values()) < 1.001, "the probabilities exceed 100 %")


_READERS = (
    Reader("idx", "-idx", idx_seeds, mutations.mutate_bytes, read_idx),
    Reader(
        "gzip", ".gz", lambda: [gzip.compress(data, mtime=0) for data in idx_seeds()], mutations.mutate_gzip, read_idx
    ),
    Reader("model", ".safetensors", model_seeds, mutations.mutate_safetensors, read_model),
    Reader("checkpoint", ".safetensors", checkpoint_seeds, mutations.mutate_safetensors, read_checkpoint),
    Reader("estimator", ".safetensors", estimator_seeds, mutations.mutate_safetensors, read_estimator),
    Reader("torch", ".safetensors", torch_seeds, mutations.mutate_safetensors, read_torch),
    Reader("config", ".json", config_seeds, mutations.mutate_json_file, read_run),
    Reader("keras", ".keras", keras_seeds, mutate_keras, read_keras),
    Reader(
        "npz",
        ".npz",
        npz_seeds,
        lambda data, rng: mutations.mutate_zip(data, rng, {".npy": mutations.mutate_npy}),
        read_npz,
    ),
    Reader("csv", ".csv", csv_seeds, mutate_csv, read_csv),
    Reader("npy", ".npy", npy_seeds, mutations.mutate_npy, read_image),
    Reader("image", ".png", image_seeds, mutations.mutate_png, read_image),
)
READERS = {reader.name: reader for reader in _READERS}
