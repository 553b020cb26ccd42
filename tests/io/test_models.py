"""Model files: a saved model is loaded unchanged, and inconsistent files are rejected with one line."""

import itertools
import json
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from handgrad import (
    GELU,
    SGD,
    AbsoluteError,
    BatchNorm,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    Deskew,
    Dropout,
    Ensemble,
    Huber,
    Identity,
    Layer,
    LeakyReLU,
    LogCosh,
    Network,
    Poisson,
    Preprocessed,
    ReLU,
    Sigmoid,
    Softplus,
    SquaredError,
    Standardize,
    Tanh,
    TestTimeAugmentation,
    Trainer,
    load,
    save,
)
from handgrad.callbacks import Checkpoint
from handgrad.io.models import MAX_DEPTH, PREPROCESSING
from handgrad.io.safetensors import read_arrays, write_arrays
from handgrad.layers import LAYERS
from handgrad.losses import LOSS_CLASSES
from handgrad.preprocessing import Preprocessing

X = np.random.default_rng(0).random((12, 4))
Y = np.arange(12) % 3

NETWORKS = {
    "sizes": lambda dtype: Network([4, 5, 3], rng=1, dtype=dtype),
    "layers with options": lambda dtype: Network(
        [
            *(Dense(4, 6, "lecun"), ReLU(), Dense(6, 5), LeakyReLU(0.2), Dropout(0.3), Dense(5, 5), GELU()),
            *(Dense(5, 4), Softplus(), Dense(4, 4), Tanh(), Dense(4, 4), Sigmoid(), Dense(4, 3), Identity()),
            BatchNorm(3, 0.2, 1e-3),
        ],
        loss=CrossEntropy(label_smoothing=0.1, temperature=3),
        rng=2,
        dtype=dtype,
    ),
    "every layer with its defaults": lambda dtype: Network(
        [Dense(4, 4), *(kind() for kind in LAYERS.values() if kind not in (Dense, BatchNorm)), Dense(4, 3)],
        rng=2,
        dtype=dtype,
    ),
    "options that are NumPy scalars": lambda dtype: Network(
        [Dense(4, 5), LeakyReLU(np.float32(0.2)), Dropout(np.float32(0.3)), Dense(5, 3)],
        loss=CrossEntropy(np.float32(0.1), temperature=np.float32(3)),
        rng=2,
        dtype=dtype,
    ),
    "squared error": lambda dtype: Network([4, 3], loss=SquaredError(), rng=3, dtype=dtype),
    "squared error of sigmoids": lambda dtype: Network([4, 3], loss=SquaredError("sigmoid", 0.25), rng=3, dtype=dtype),
    "one output": lambda dtype: Network([4, 1], loss=BinaryCrossEntropy(0.1), rng=3, dtype=dtype),
    **{
        type(loss).__name__: lambda dtype, loss=loss: Network([4, 3], loss=loss, rng=3, dtype=dtype)
        for loss in (AbsoluteError(), Huber(np.float32(0.7)), LogCosh(), Poisson())
    },
}


def small(rng=1, **options):
    return Network([4, 5, 3], rng=rng, **options)


def of_images(rng=1, shape=(2, 2)):
    network = small(rng)
    network.image_shape = shape
    return network


def described(path):
    """The description of the model in a file."""
    return read_arrays(path)[1]["model"]


# ---- Networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, np.float32) for name in NETWORKS), ("layers with options", np.float64)]
)
def test_network_round_trip(name, dtype, tmp_path):
    network = NETWORKS[name](dtype)
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.dtype == again.parameters.dtype == dtype
    assert repr(again) == repr(network)
    assert again.loss.config() == network.loss.config()
    np.testing.assert_array_equal(again.parameters, network.parameters)
    np.testing.assert_array_equal(again.predict_proba(X), network.predict_proba(X))


def test_round_trips_cover_every_layer_loss_and_preprocessing():
    made = [make(np.float32) for make in NETWORKS.values()]
    assert {type(layer) for network in made for layer in network.layers} == set(LAYERS.values())
    assert {type(network.loss) for network in made} == set(LOSS_CLASSES.values())
    assert set(PREPROCESSING.values()) == {Deskew, Standardize}


def test_loaded_network_can_be_trained(tmp_path):
    save(small(), tmp_path / "m.safetensors")
    a, b = small(), load(tmp_path / "m.safetensors")
    for network in (a, b):
        Trainer(network, SGD(0.5), batch_size=4, rng=0).fit(X, Y, epochs=2)
    np.testing.assert_array_equal(a.parameters, b.parameters)


def test_arrays_have_the_names_and_shapes_of_pytorch(tmp_path):
    network = small()
    save(network, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    shapes = {name: value.shape for name, value in arrays.items()}
    assert shapes == {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
    np.testing.assert_array_equal(arrays["0.weight"], network.layers[0].W)
    np.testing.assert_array_equal(arrays["2.bias"], network.layers[2].b)


def test_description_of_a_network(tmp_path):
    network = of_images()
    network.classes = ("ant", "bee", "cat ü")
    save(network, tmp_path / "m.safetensors")
    _, description = read_arrays(tmp_path / "m.safetensors")
    assert description == {
        "format": 1,
        "model": {
            "type": "Network",
            "layers": [
                {"type": "Dense", "n_in": 4, "n_out": 5, "init": "normal"},
                {"type": "Sigmoid"},
                {"type": "Dense", "n_in": 5, "n_out": 3, "init": "normal"},
            ],
            "loss": {"type": "BinaryCrossEntropy"},
            "classes": ["ant", "bee", "cat ü"],
            "image_shape": [2, 2],
        },
    }
    again = load(tmp_path / "m.safetensors")
    assert (again.classes, again.image_shape) == (("ant", "bee", "cat ü"), (2, 2))


def test_classes_and_image_shape_may_be_any_sequence(tmp_path):
    network = small()
    network.classes, network.image_shape = np.array(["a", "b", "c"]), [np.int64(2), np.int64(2)]
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.classes, again.image_shape) == (("a", "b", "c"), (2, 2))


def test_file_of_format_1_loads_with_the_same_parameters():
    """network.safetensors was written once and must never be written again: network.json has what it contains."""
    expected = json.loads((Path(__file__).parent / "network.json").read_text())
    for is_mapped in (False, True):
        model = load(Path(__file__).parent / "network.safetensors", mmap=is_mapped)
        network = model.model.members[1].model
        assert repr(model) == expected["repr"]
        np.testing.assert_array_equal(network.parameters, np.array(expected["parameters"], np.float32))
        np.testing.assert_allclose(model.predict_proba(expected["x"]), expected["p"], rtol=1e-5)
        assert list(model.classes) == expected["classes"]


class Cubic(Layer):
    def forward(self, x):
        self.x = x
        return x**3

    def backward(self, dy):
        return 3 * self.x**2 * dy


class Halved(BinaryCrossEntropy):
    pass


class Negative(Preprocessing):
    n_in = n_out = 4

    def __call__(self, x, out=None):
        return np.subtract(1, x, out=out)

    def config(self):
        return {}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Network([Dense(4, 3), Cubic()], rng=0), "custom class Cubic: save network.parameters with numpy.save"),
        (Network([4, 3], loss=Halved(), rng=0), "custom class Halved"),
        (Preprocessed(small(), Negative()), "custom class Negative"),
        (Ensemble([Network([Dense(4, 3), Cubic()], rng=0)]), "custom class Cubic"),
        ("model", "cannot save a str: expected a network, an ensemble or a wrapper"),
    ],
    ids=["layer", "loss", "preprocessing", "member", "no model"],
)
def test_model_that_a_file_cannot_hold_is_rejected(model, says, tmp_path, rejects):
    with rejects(says):
        save(model, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---- Wrappers --------------------------------------------------------------------------------------------------------


def three(dtype=np.float32):
    """An ensemble of networks with different layers."""
    layers = [[Dense(4, 5), Sigmoid(), Dense(5, 3)], [Dense(4, 3)], [Dense(4, 2), ReLU(), Dropout(), Dense(2, 3)]]
    losses = [CrossEntropy(temperature=2), CrossEntropy(0.1), CrossEntropy()]
    networks = [
        Network(each, loss=loss, rng=i, dtype=dtype) for i, (each, loss) in enumerate(zip(layers, losses, strict=True))
    ]
    for network in networks:
        network.classes, network.image_shape = ("ant", "bee", "cat ü"), (2, 2)
    return Ensemble(networks)


MODELS = {
    "ensemble": three,
    "ensemble of one": lambda: Ensemble([small()]),
    "deskewed": lambda: Preprocessed(small(), Deskew(2, 2)),
    "shifted": lambda: TestTimeAugmentation(of_images(), 5),
    "deskewed and shifted": lambda: Preprocessed(TestTimeAugmentation(of_images(), 9), Deskew(4, 4, 2)),
    "everything": lambda: Preprocessed(
        Ensemble([TestTimeAugmentation(of_images(1), 5), of_images(2)]), Deskew(4, 4, 2)
    ),
    "nested ensembles": lambda: Ensemble([Ensemble([small(1), small(2)]), small(3)]),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_wrapper_round_trip(make, tmp_path):
    model = make()
    model.classes = ("a", "b", "c")
    if model.image_shape is None:
        model.feature_names = [f"column {i}" for i in range(model.n_in)]
        assert all(network.feature_names for network in networks_of(model))
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert again.feature_names == model.feature_names
    assert (again.classes, again.image_shape, again.n_in) == (("a", "b", "c"), model.image_shape, model.n_in)
    x = np.random.default_rng(1).integers(0, 256, (7, *(model.image_shape or (2, 2))), dtype=np.uint8)
    np.testing.assert_array_equal(again.outputs(x), model.outputs(x))


def test_more_than_ten_members_keep_their_order(tmp_path):
    ensemble = Ensemble([Network([4, 3], rng=i) for i in range(12)])
    save(ensemble, tmp_path / "m.safetensors")
    for member, before in zip(load(tmp_path / "m.safetensors").members, ensemble.members, strict=True):
        np.testing.assert_array_equal(member.parameters, before.parameters)


def test_arrays_of_an_ensemble_have_the_names_of_a_module_list(tmp_path):
    ensemble = three()
    save(ensemble, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert sorted(arrays) == sorted(
        f"{name}.{kind}" for name in ("0.0", "0.2", "1.0", "2.0", "2.3") for kind in ("weight", "bias")
    )
    np.testing.assert_array_equal(arrays["2.3.weight"], ensemble.members[2].layers[3].W)


def test_member_is_described_as_in_its_own_file(tmp_path):
    ensemble = three()
    for name, model in {"whole": ensemble, "member": ensemble.members[2]}.items():
        save(model, tmp_path / name)
    assert described(tmp_path / "whole")["type"] == "Ensemble"
    assert described(tmp_path / "whole")["members"][2] == described(tmp_path / "member")


# ---- Memory-mapped files ---------------------------------------------------------------------------------------------


def networks_of(model):
    """The networks in a model."""
    if isinstance(model, Network):
        return [model]
    inner = model.members if isinstance(model, Ensemble) else [model.model]
    return [network for each in inner for network in networks_of(each)]


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (NETWORKS["sizes"], np.float32),
        (NETWORKS["sizes"], np.float64),
        (NETWORKS["layers with options"], np.float32),
        (three, np.float32),
    ],
    ids=["sizes", "float64", "layers with options", "ensemble"],
)
def test_mapped_model_is_a_view_of_the_file_and_equal(make, dtype, tmp_path):
    path = tmp_path / "m.safetensors"
    save(make(dtype), path)
    model, mapped = load(path), load(path, mmap=True)
    np.testing.assert_array_equal(mapped.outputs(X), model.outputs(X))
    (memory,) = {id(network.parameters.base): network.parameters.base for network in networks_of(mapped)}.values()
    assert isinstance(memory, mmap.mmap)
    assert all(network.parameters.flags.aligned for network in networks_of(mapped))
    assert repr(mapped) == repr(model)


def test_first_parameter_of_a_file_begins_at_a_cache_line(tmp_path):
    for batch_norm in (False, True):
        save(small(batch_norm=batch_norm), tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors", mmap=True).parameters.ctypes.data % 64 == 0


def test_training_a_mapped_network_leaves_the_file_and_other_processes_unchanged(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(), path)
    content = path.read_bytes()
    networks = [small(), load(path, mmap=True)]
    other = load(path, mmap=True)
    for network in networks:
        Trainer(network, SGD(0.5), batch_size=4, rng=0).fit(X, Y, epochs=2)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
    np.testing.assert_array_equal(other.parameters, small().parameters)
    assert path.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="there, a mapped file cannot be replaced")
def test_mapped_network_outlives_the_replacement_of_its_file(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(1), path)
    mapped = load(path, mmap=True)
    save(small(2), path)
    np.testing.assert_array_equal(mapped.parameters, small(1).parameters)
    np.testing.assert_array_equal(load(path, mmap=True).parameters, small(2).parameters)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_mapped_parameters_take_no_memory_of_their_own(tmp_path):
    save(Network([512, 512, 10], rng=0), tmp_path / "large.safetensors")
    network = load(tmp_path / "large.safetensors", mmap=True)
    network.outputs(np.zeros((2, 512)))

    def private_dirty():
        entry = Path("/proc/self/smaps").read_text().partition("large.safetensors")[2]
        return int(entry.partition("Private_Dirty:")[2].split()[0])  # kB

    assert private_dirty() == 0
    network.parameters *= 2
    assert private_dirty() >= network.parameters.nbytes / 1024 - 8


def test_arrays_in_another_order_are_copied(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    network = load(path, mmap=True)
    assert not isinstance(network.parameters.base, mmap.mmap)
    np.testing.assert_array_equal(network.parameters, small().parameters)


# ---- Inconsistent files ----------------------------------------------------------------------------------------------


def changed_file(model, path, change):
    """The file of a model, whose description and arrays `change` has changed."""
    save(model, path)
    arrays, description = read_arrays(path)
    change(description["model"], arrays)
    write_arrays(path, arrays, {"model": description["model"]})
    return path


def put(keys, value):
    """A change of the description: set the entry that the keys lead to."""

    def change(description, arrays):
        *path, last = keys
        for key in path:
            description = description[key]
        description[last] = value

    return change


DENSE = {"type": "Dense", "n_out": 5}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(["type"], "Netwrk"), "unknown type of model 'Netwrk'"),
        (put(["type"], None), "unknown type of model None"),
        (lambda d, a: d.clear(), "inconsistent metadata: 'type'"),
        (
            put(["layers", 0, "n_out"], 6),
            "damaged: it describes",
        ),
        (put(["layers", 0, "n_out"], -1), "must be an integer >= 1, got -1"),
        (put(["layers", 0, "n_out"], 1.5), "must be an integer >= 1, got 1.5"),
        (put(["layers", 0, "n_in"], 7), "damaged: it describes"),
        (put(["layers", 0], DENSE | {"n_in": 10**18}), "damaged: it describes"),
        (put(["layers", 0], DENSE | {"n_in": 10**40}), "m.safetensors"),
        (put(["layers", 0, "type"], "Dens"), "unknown layer 'Dens': did you mean 'Dense'"),
        (put(["layers", 1, "type"], ["Tanh"]), "inconsistent metadata"),
        (put(["layers", 1, "slope"], 0.1), "inconsistent metadata: Sigmoid"),
        (put(["layers"], []), "m.safetensors"),
        (put(["layers"], 5), "inconsistent metadata"),
        (put(["loss", "type"], "Hinge"), "unknown loss 'Hinge'"),
        (put(["loss"], None), "inconsistent metadata"),
        (put(["classes"], None), "inconsistent metadata"),
        (put(["classes"], ["one", "two"]), "classes has 2 names: expected 3"),
        (put(["feature_names"], 5), "feature_names must be 4 names, got 5"),
        (put(["feature_names"], ["a", "b"]), "feature_names has 2 names: expected 4"),
        (put(["feature_names"], ["a", "b", "c", "a"]), "feature_names has the name 'a' twice"),
        (put(["image_shape"], [28, 28]), r"image_shape must be \(height, width\) with 4 pixels"),
        (lambda d, a: a.pop("2.bias"), "damaged: it describes 43 parameters"),
        (lambda d, a: a.update(more=a["2.bias"]), "damaged: it describes 43 parameters"),
        (
            lambda d, a: a.update({"0.weight": a["0.weight"].T.copy()}),
            r"the arrays .*0.weight \(4, 5\)",
        ),
        (lambda d, a: a.update({"2.bias": a["2.bias"].astype(np.float64)}), "its parameters are float32 and float64"),
        (lambda d, a: a.update({k: v.astype(np.int32) for k, v in a.items()}), "dtype must be float32 .* got int32"),
        (lambda d, a: a.clear(), "damaged"),
        (lambda d, a: (a.clear(), put(["layers"], [])(d, a)), "it describes a network without parameters"),
        (lambda d, a: (a.clear(), put(["layers"], [{"type": "ReLU"}])(d, a)), "a network without parameters"),
        (lambda d, a: d.pop("loss"), "inconsistent metadata: 'loss'"),
    ],
)
def test_inconsistent_file_of_a_network_is_rejected(change, says, tmp_path, rejects):
    path = changed_file(small(), tmp_path / "m.safetensors", change)
    with rejects(says) as caught:
        load(path)
    assert path.name in str(caught.value)


def with_numbers(name, *numbers):
    """A change of the arrays: the first numbers of one."""

    def change(description, arrays):
        changed = arrays[name].copy()
        changed.reshape(-1)[: len(numbers)] = numbers
        arrays[name] = changed

    return change


@pytest.mark.parametrize(
    ("name", "number", "says"),
    [
        ("0.weight", np.nan, "NaN or infinity"),
        ("0.bias", np.inf, "NaN or infinity"),
        ("1.running_var", -1e-3, "a negative variance"),
        ("1.running_var", np.nan, "NaN or infinity"),
    ],
)
def test_numbers_that_give_no_predictions_are_rejected(name, number, says, tmp_path, rejects):
    path = changed_file(small(batch_norm=True), tmp_path / "m.safetensors", with_numbers(name, number))
    with rejects(f"m.safetensors is damaged: {name} contains {says}"):
        load(path)
    ensemble = Ensemble([small(batch_norm=True)])
    path = changed_file(ensemble, tmp_path / "m.safetensors", with_numbers(f"0.{name}", number))
    with rejects(f"m.safetensors is damaged: .*contains {says}"):
        load(path)


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_lone_surrogates_in_class_names_are_rejected(name, tmp_path, rejects):
    path = changed_file(small(), tmp_path / "m.safetensors", lambda d, a: None)
    with path.open("rb") as file:
        content = file.read()
    escaped = json.dumps(name)[1:-1].replace("\\", "\\\\").encode()
    text = content.replace(b'[\\"0\\",', b'[\\"' + escaped + b'\\",')
    length = int.from_bytes(content[:8], "little") + len(text) - len(content)
    path.write_bytes(length.to_bytes(8, "little") + text[8:])
    with rejects("m.safetensors is damaged: unreadable metadata: UnicodeEncodeError"):
        load(path)
    with rejects("classes has a name with a lone surrogate"):
        small().classes = (name, "1", "2")
    with rejects("feature_names has a name with a lone surrogate"):
        small().feature_names = (name, "1", "2", "3")


def test_time_to_read_an_ensemble_is_linear_in_its_members(tmp_path):
    """Counted in function calls. A file of 8 MB can have 20,000 members."""
    counts = []
    for members in (20, 40, 80):
        save(Ensemble([Network([2, 2], rng=0) for _ in range(members)]), tmp_path / "m.safetensors")
        calls = itertools.count()
        sys.setprofile(lambda frame, event, argument, calls=calls: next(calls))
        try:
            load(tmp_path / "m.safetensors")
        finally:
            sys.setprofile(None)
        counts.append(next(calls))
    assert counts[2] - counts[1] < 2.2 * (counts[1] - counts[0])


def without(prefix):
    def change(description, arrays):
        for name in [name for name in arrays if name.startswith(prefix)]:
            del arrays[name]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d, a: d["members"].pop(), "describes 2 members, none of which has 2.0"),
        (lambda d, a: d["members"].append(d["members"][0]), "damaged"),
        (without("1."), "damaged"),
        (without("2.3.bias"), "damaged"),
        (lambda d, a: a.update({"0.0.weight": a["0.0.weight"].T.copy()}), "damaged"),
        (lambda d, a: a.update({"01.weight": a["0.0.weight"]}), "none of which has 01.weight"),
        (lambda d, a: a.update({"weight": a["0.0.weight"]}), "none of which has weight"),
        (lambda d, a: a.update({n: v.astype(float) for n, v in a.items() if n[0] == "1"}), "member 1 .* dtype float64"),
        (put(["members", 1, "loss", "type"], "BinaryCrossEntropy"), "member 1 of the ensemble has loss"),
        (put(["members", 1, "loss", "temperature"], 0), "temperature must be"),
        (put(["members", 1, "classes"], ["one", "two", "three"]), "member 1 of the ensemble has classes"),
        (put(["members", 1, "image_shape"], [1, 4]), "member 1 of the ensemble has image_shape"),
        (put(["members", 1], None), "inconsistent metadata"),
        *((put(["members"], value), "m.safetensors") for value in (5, "ab", [[]], {"0": {}})),
        (lambda d, a: (a.clear(), put(["members"], [])(d, a)), "an ensemble needs at least one model"),
    ],
)
def test_inconsistent_file_of_an_ensemble_is_rejected(change, says, tmp_path, rejects):
    path = changed_file(three(), tmp_path / "m.safetensors", change)
    with rejects(says) as caught:
        load(path)
    assert path.name in str(caught.value)


def nested(description, arrays):
    inner = dict(description)
    for _ in range(MAX_DEPTH):
        inner = {"type": "Preprocessed", "preprocessing": {"type": "Deskew", "height": 2, "width": 2}, "model": inner}
    description |= inner


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(["model", "shifts"], 2), "shifts must be 1, 5 or 9, got 2"),
        (put(["model", "shifts"], [5]), "inconsistent metadata"),
        (put(["model", "model", "image_shape"], None), "needs a model of images"),
        (put(["preprocessing", "type"], "Deskw"), "did you mean 'Deskew'"),
        (put(["preprocessing"], 5), "inconsistent metadata"),
        (put(["preprocessing"], {"type": "Deskew", "height": 2}), "inconsistent metadata"),
        (put(["preprocessing"], {"type": "Deskew", "height": 2, "width": 3}), "returns 6 values .* expects 4"),
        (put(["preprocessing"], {"type": "Deskew", "height": -2, "width": -2}), "must be an integer >= 1"),
        (put(["preprocessing"], {"type": "Deskew", "height": 10**40, "width": 2}), "m.safetensors"),
        (lambda d, a: d.pop("model"), "inconsistent metadata: 'model'"),
        (nested, "too many nested models"),
    ],
)
def test_inconsistent_file_of_a_wrapper_is_rejected(change, says, tmp_path, rejects):
    model = Preprocessed(TestTimeAugmentation(of_images(), 5), Deskew(2, 2))
    path = changed_file(model, tmp_path / "m.safetensors", change)
    with rejects(says) as caught:
        load(path)
    assert path.name in str(caught.value)


def test_directory_of_a_run_is_read(tmp_path, rejects):
    save(small(), tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path).parameters, small().parameters)
    with rejects("Is a directory"):
        load(tmp_path.parent)


@pytest.mark.parametrize("name", ["wine.csv", "x.npz", "mnist"])
def test_data_set_is_not_a_model_file(name, tmp_path, rejects):
    with rejects(f"cannot read .*{name}: No such file or directory; handgrad.data.load reads data sets"):
        load(tmp_path / name)
    (tmp_path / name).write_text("a,b,label\n1,2,0\n")
    with rejects(f"{name} is not a safetensors file.*; handgrad.data.load reads data sets"):
        load(tmp_path / name)


def test_checkpoint_is_not_a_model_file(tmp_path, rejects):
    path = tmp_path / "c.safetensors"
    Trainer(small(), SGD(0.1), batch_size=4, callbacks=[Checkpoint(path)], rng=0).fit(X, Y, epochs=1)
    with rejects("c.safetensors is not a model file: its metadata describes no model"):
        load(path)
