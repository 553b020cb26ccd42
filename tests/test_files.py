"""Files: what is written is what is read, what is no such file is refused in one line, what was there is never lost."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from handgrad import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Ensemble,
    BinaryCrossEntropy,
    Dense,
    Deskew,
    Dropout,
    EMA,
    GELU,
    HandgradError,
    Identity,
    Layer,
    LeakyReLU,
    Momentum,
    Nesterov,
    Network,
    Quadratic,
    ReLU,
    Sigmoid,
    CrossEntropy,
    Softplus,
    Tanh,
    Trainer,
    load,
    save,
)
from handgrad.callbacks import Checkpoint, resume
from handgrad.images.deskew import PREPROCESSING, Preprocessing
from handgrad.io.atomic import read_json, replace_file, write_json
from handgrad.io.models import FORMAT
from handgrad.layers import LAYERS
from handgrad.losses import LOSSES

X = np.random.default_rng(0).random((12, 4))
Y = np.arange(12) % 3

NETWORKS = {
    "sizes": lambda dtype: Network([4, 5, 3], rng=1, dtype=dtype),
    "every-layer": lambda dtype: Network(
        [
            *(Dense(4, 6, "lecun"), ReLU(), Dense(6, 5), LeakyReLU(0.2), Dropout(0.3), Dense(5, 5), GELU()),
            *(Dense(5, 4), Softplus(), Dense(4, 4), Tanh(), Dense(4, 4), Sigmoid(), Dense(4, 3), Identity()),
            BatchNorm(3, 0.2, 1e-3),
        ],
        loss=CrossEntropy(label_smoothing=0.1, temperature=3),
        rng=2,
        dtype=dtype,
    ),
    "quadratic": lambda dtype: Network([4, 3], loss="quadratic", rng=3, dtype=dtype),
    "deskewed": lambda dtype: Network([4, 5, 3], rng=4, dtype=dtype, preprocessing=Deskew(2, 2)),
}


def small(**options):
    return Network([4, 5, 3], rng=1, **options)


def one_line(caught):
    """The error is bad input told in one line, and nothing but that."""
    assert type(caught.value) is HandgradError
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20
    return str(caught.value)


def assert_refused(path, read=load, match="."):
    with pytest.raises(Exception, match=match) as caught:  # any other exception fails in one_line
        read(path)
    assert path.name in one_line(caught)


def raw_file(header, data=b""):
    """A safetensors file from the ground up: the header's length in eight bytes, the header, the data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def model_file(path, change=lambda description, arrays: None):
    """The small network's file, its description and arrays changed before they are written."""
    save(small(), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"])
    arrays = safetensors.numpy.load_file(path)
    change(description, arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"handgrad": json.dumps(description)}))
    return path


# ---- Models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_as_it_was(name, dtype, tmp_path):
    network = NETWORKS[name](dtype)
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.dtype == again.parameters.dtype == dtype
    assert repr(again) == repr(network)
    assert again.loss.config() == network.loss.config()
    np.testing.assert_array_equal(again.parameters, network.parameters)
    np.testing.assert_array_equal(again.outputs(X), network.outputs(X))


def test_the_round_trips_cover_every_layer_and_loss():
    made = [make(np.float32) for make in NETWORKS.values()]
    assert {type(layer) for network in made for layer in network.layers} == set(LAYERS.values())
    assert {type(network.loss) for network in made} == set(LOSSES.values())
    assert {type(network.preprocessing) for network in made} == {type(None), *PREPROCESSING.values()}


def test_a_loaded_network_can_be_trained_on(tmp_path):
    save(small(), tmp_path / "m.safetensors")
    a, b = small(), load(tmp_path / "m.safetensors")
    for network in (a, b):
        Trainer(network, SGD(0.5), batch_size=4, rng=0).fit(X, Y, epochs=2)
    np.testing.assert_array_equal(a.parameters, b.parameters)


def test_arrays_have_pytorchs_names_and_shapes(tmp_path):
    network = small()
    save(network, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    shapes = {name: value.shape for name, value in arrays.items()}
    assert shapes == {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
    np.testing.assert_array_equal(arrays["0.weight"], network.layers[0].W)
    np.testing.assert_array_equal(arrays["2.bias"], network.layers[2].b)


def test_the_metadata_is_json_that_says_what_the_model_is(tmp_path):
    network = small()
    network.classes, network.image_shape = ("ant", "bee", "cat ü"), (2, 2)
    save(network, tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert set(metadata) == {"handgrad"}
    description = json.loads(metadata["handgrad"])
    assert description["format"] == 1  # every handgrad there has been reads it
    assert description["classes"] == ["ant", "bee", "cat ü"]
    assert description["image_shape"] == [2, 2]
    assert [layer["type"] for layer in description["layers"]] == ["Dense", "Sigmoid", "Dense"]
    assert description["loss"] == {"type": "BinaryCrossEntropy"}
    assert description["preprocessing"] == {"uint8": "x / 255"}
    network.preprocessing = Deskew(1, 4)
    save(network, tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"])
    images = {"type": "Deskew", "height": 1, "width": 4}
    assert description["preprocessing"] == {"uint8": "x / 255", "images": images}
    assert description["format"] == 2  # one that does not know of it would answer without


def test_a_file_that_names_no_preprocessing_is_read(tmp_path):
    older = model_file(tmp_path / "m.safetensors", lambda d, a: d.pop("preprocessing"))
    assert load(older).preprocessing is None
    np.testing.assert_array_equal(load(older).outputs(X), small().outputs(X))


@pytest.mark.parametrize("image_shape", [(2, 2), None])
def test_classes_and_image_shape_are_kept(image_shape, tmp_path):
    network = small()
    network.classes, network.image_shape = ("ant", "bee", "a cat or a kitten"), image_shape
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.classes, again.image_shape) == (network.classes, image_shape)


@pytest.mark.parametrize("classes", [["0", "1", "2"], np.array(["0", "1", "2"])], ids=["list", "array"])
@pytest.mark.parametrize("image_shape", [[2, 2], (np.int64(2), np.int64(2))])
def test_classes_and_image_shape_may_be_set_as_any_sequence(classes, image_shape, tmp_path):
    network = small()
    network.classes, network.image_shape = classes, image_shape
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.classes, again.image_shape) == (("0", "1", "2"), (2, 2))


@pytest.mark.parametrize(
    ("classes", "image_shape"),
    [
        (("ant", "bee"), None),
        (None, None),
        *((("ant", "bee", "cat"), shape) for shape in [(3, 2), (-2, -2), (4,), (4, 1, 1), (2.0, 2.0), 4, ()]),
    ],
)
def test_classes_and_image_shape_that_do_not_fit_are_not_saved(classes, image_shape, tmp_path, refused):
    """What `load` would refuse must be refused while the network is still there."""
    network = small()
    network.classes, network.image_shape = classes, image_shape
    with refused("classes"):
        save(network, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_begins_like_a_pickle_is_read(length, tmp_path):
    network, path = small(), tmp_path / "m.safetensors"
    for padding in range(length):
        network.classes = ("ant", "bee", "c" * padding)
        save(network, path)
        if path.read_bytes()[:2] == struct.pack("<H", length):
            break
    else:
        pytest.fail(f"no header is {length} bytes long")
    assert load(path).classes == network.classes


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
    ("network", "name"),
    [
        (Network([Dense(4, 3), Cubic()], rng=0), "Cubic"),
        (Network([4, 3], loss=Halved(), rng=0), "Halved"),
        (Network([4, 3], rng=0, preprocessing=Negative()), "Negative"),
    ],
    ids=["layer", "loss", "preprocessing"],
)
def test_a_class_of_ones_own_is_refused_by_name(network, name, tmp_path):
    with pytest.raises(HandgradError, match=name) as caught:
        save(network, tmp_path / "m.safetensors")
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


# ---- Views, and what comes in is not what the first layer sees ------------------------------------------------


def described(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["handgrad"])


@pytest.mark.parametrize("views", [5, 9])
@pytest.mark.parametrize("preprocessing", [None, Deskew(4, 4, 2)], ids=["plain", "shrunk"])
def test_views_and_a_shrunken_picture_come_back(views, preprocessing, tmp_path):
    network = small(preprocessing=preprocessing)
    network.image_shape = (2, 2) if preprocessing is None else (4, 4)
    network.views = views
    save(network, tmp_path / "m.safetensors")
    description = described(tmp_path / "m.safetensors")
    assert (description["format"], description["views"]) == (2, views)
    again = load(tmp_path / "m.safetensors")
    assert (again.views, again.image_shape, again.n_in) == (views, network.image_shape, network.n_in)
    assert repr(again.preprocessing) == repr(preprocessing)
    x = np.random.default_rng(1).integers(0, 256, (7, network.n_in)).astype(np.uint8)
    np.testing.assert_array_equal(again.outputs(x), network.outputs(x))
    ensemble = Ensemble([network, again])
    save(ensemble, tmp_path / "c.safetensors")
    assert [member.views for member in load(tmp_path / "c.safetensors").members] == [views, views]


def test_a_plain_networks_file_says_nothing_of_views(tmp_path):
    save(small(), tmp_path / "m.safetensors")
    assert "views" not in described(tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").views == 1


@pytest.mark.parametrize("views", [0, 2, "5", [5], None, {}, 1e300])
def test_views_that_are_none_are_refused(views, tmp_path):
    def change(description, arrays):
        description |= {"views": views, "image_shape": [2, 2]}

    assert_refused(model_file(tmp_path / "m.safetensors", change), match="views|unhashable")


def test_views_of_no_pictures_are_refused(tmp_path):
    assert_refused(
        model_file(tmp_path / "m.safetensors", lambda d, a: d.update(views=5)), match="views 5 of no pictures"
    )


def test_a_format_that_is_later_is_refused(tmp_path):
    later = model_file(tmp_path / "m.safetensors", lambda d, a: d.update(format=FORMAT + 1))
    assert_refused(later, match=f"format {FORMAT + 1}")


# ---- Committees ---------------------------------------------------------------------------------------------


def three(dtype=np.float32):
    """A ensemble of networks that are alike in nothing but the question."""
    chains = [[Dense(4, 5), Sigmoid(), Dense(5, 3)], [Dense(4, 3)], [Dense(4, 2), ReLU(), Dropout(), Dense(2, 3)]]
    losses = [CrossEntropy(temperature=2), CrossEntropy(0.1), CrossEntropy()]
    members = [
        Network(c, loss=loss, rng=i, dtype=dtype) for i, (c, loss) in enumerate(zip(chains, losses, strict=True))
    ]
    for member in members:
        member.classes, member.image_shape = ("ant", "bee", "cat ü"), (2, 2)
    return Ensemble(members)


def committee_file(path, change=lambda description, arrays: None):
    """The file of three, its description and arrays changed before they are written."""
    save(three(), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"])
    arrays = safetensors.numpy.load_file(path)
    change(description, arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"handgrad": json.dumps(description)}))
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_committee_comes_back_as_it_was(dtype, tmp_path):
    ensemble = three(dtype)
    save(ensemble, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert isinstance(again, Ensemble)
    assert repr(again) == repr(ensemble)
    assert (again.classes, again.image_shape, again.dtype) == (("ant", "bee", "cat ü"), (2, 2), dtype)
    for member, before in zip(again.members, ensemble.members, strict=True):
        np.testing.assert_array_equal(member.parameters, before.parameters)
    np.testing.assert_array_equal(again.outputs(X), ensemble.outputs(X))
    assert again.evaluate(X, Y) == ensemble.evaluate(X, Y)


def test_a_committee_of_one_stays_a_committee(tmp_path):
    save(Ensemble([small()]), tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert isinstance(again, Ensemble)
    assert len(again.members) == 1


def test_more_than_ten_members_keep_their_order(tmp_path):
    ensemble = Ensemble([Network([4, 3], rng=i) for i in range(12)])
    save(ensemble, tmp_path / "m.safetensors")
    for member, before in zip(load(tmp_path / "m.safetensors").members, ensemble.members, strict=True):
        np.testing.assert_array_equal(member.parameters, before.parameters)


def test_a_committees_arrays_have_the_names_of_a_module_list(tmp_path):
    ensemble = three()
    save(ensemble, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert sorted(arrays) == sorted(
        f"{name}.{kind}" for name in ("0.0", "0.2", "1.0", "2.0", "2.3") for kind in ("weight", "bias")
    )
    np.testing.assert_array_equal(arrays["2.3.weight"], ensemble.members[2].layers[3].W)


def test_each_member_is_described_as_in_a_file_of_its_own(tmp_path):
    ensemble, descriptions = three(), []
    for network in (ensemble, *ensemble.members):
        save(network, tmp_path / "m.safetensors")
        with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
            descriptions.append(json.loads(file.metadata()["handgrad"]))
    whole, *members = descriptions
    assert whole == {"format": 2, "members": members}  # 2: earlier readers find no layers in it


def test_what_a_committee_calls_its_classes_is_kept(tmp_path):
    ensemble = three()
    ensemble.classes, ensemble.image_shape = ["a", "b", "c"], [4, 1]
    save(ensemble, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert {(each.classes, each.image_shape) for each in (again, *again.members)} == {(("a", "b", "c"), (4, 1))}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: setattr(c, "classes", ("ant", "bee")),
        lambda c: setattr(c, "image_shape", (3, 3)),
        lambda c: c.members[2].layers.append(Cubic()),
    ],
)
def test_a_committee_that_no_file_can_hold_is_refused(spoil, tmp_path, refused):
    ensemble = three()
    spoil(ensemble)
    with refused("classes|Cubic"):
        save(ensemble, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---- What is no model file ------------------------------------------------------------------------------------


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(), path)
    whole = path.read_bytes()
    for length in [*range(12), *range(12, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_bytes_behind_the_end_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save(small(), path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert_refused(path)


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


def tensor(dtype, size):
    return {"0.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}


def handgrad_says(text):
    return raw_file({"__metadata__": {"handgrad": text}, **tensor("F32", 8)}, bytes(8))


NO_MODELS = [
    (b"", "safetensors"),
    (b"\xff" * 400, "safetensors"),
    (np.random.default_rng(0).bytes(3000), "safetensors"),
    (b"a line of text\n" * 20, "safetensors"),
    *((pickle.dumps({"weight": [1.0]}, protocol), "pickle") for protocol in (2, 3, 4, 5)),
    (zipped(), "pickle"),
    (safetensors.numpy.save({"w": np.zeros(2)}), "not one of handgrad's"),
    (safetensors.numpy.save({"w": np.zeros(2)}, {"format": "pt"}), "not one of handgrad's"),
    (raw_file(tensor("BF16", 4), bytes(4)), "."),
    (raw_file(tensor("F8_E4M3", 2), bytes(2)), "."),
    *((handgrad_says(text), ".") for text in ("", "{", "5", "[]", "{}", '{"format": null}', '{"format": "x"}')),
    (handgrad_says('{"format": Infinity}'), "."),
    (handgrad_says("[" * 100_000), "."),
    (handgrad_says('{"format": 1}'), "no layers"),
    *((handgrad_says(f'{{"format": 1, "layers": {value}}}'), ".") for value in ("5", "null", "[]", "[5]", "[{}]")),
]


@pytest.mark.parametrize(("content", "match"), NO_MODELS, ids=range(len(NO_MODELS)))
def test_what_is_no_model_file_is_refused(content, match, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert_refused(path, match=match)


def put(where, value):
    """A change of a model file's description: `value` at the place that the keys in `where` lead to."""

    def change(description, arrays):
        *way, last = where
        for key in way:
            description = description[key]
        description[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put(["format"], FORMAT + 1), "update handgrad"),
        (put(["layers", 0, "n_out"], 6), "."),
        (put(["layers", 0, "n_out"], -1), "whole number"),
        (put(["layers", 0, "n_out"], 1.5), "whole number"),
        (put(["layers", 0, "n_in"], 7), "damaged"),
        (put(["layers", 0], {"type": "Dense", "n_in": 10**5, "n_out": 5}), "damaged"),
        (put(["layers", 0], {"type": "Dense", "n_in": 10**18, "n_out": 5}), "."),
        (put(["layers", 0], {"type": "Dense", "n_in": 10**40, "n_out": 5}), "."),
        (put(["layers", 0, "type"], "Dens"), "did you mean 'Dense'"),
        (put(["layers", 1, "type"], "Swish"), "unknown layer 'Swish'"),
        (put(["layers", 1, "type"], ["Tanh"]), "."),
        (put(["layers", 1, "slope"], 0.1), "."),
        (put(["layers"], []), "."),
        (put(["loss", "type"], "Hinge"), "unknown loss 'Hinge'"),
        (put(["loss"], None), "."),
        (put(["preprocessing"], 5), "."),
        (put(["preprocessing", "images"], {"type": "Deskw"}), "did you mean 'Deskew'"),
        (put(["preprocessing", "images"], {"type": "Blur", "radius": 2}), "unknown preprocessing 'Blur'"),
        (put(["preprocessing", "images"], {"type": ["Deskew"]}), "."),
        (put(["preprocessing", "images"], {"height": 2, "width": 2}), "."),
        (put(["preprocessing", "images"], {"type": "Deskew", "height": 2}), "."),
        (put(["preprocessing", "images"], {"type": "Deskew", "height": 10**40, "width": 2}), "the network takes 4"),
        (put(["preprocessing", "images"], {"type": "Deskew", "height": -2, "width": -2}), "whole number"),
        (put(["preprocessing", "images"], "Deskew"), "."),
        (put(["classes"], None), "."),
        (put(["classes"], ["one", "two"]), "."),
        (put(["image_shape"], 5), "."),
        (put(["image_shape"], [28, 28]), "."),
        (lambda d, a: a.pop("2.bias"), "damaged"),
        (lambda d, a: a.update(more=a["2.bias"]), "damaged"),
        (lambda d, a: a.update({"0.weight": a["0.weight"].T.copy()}), "damaged"),
        (lambda d, a: a.update({"2.bias": a["2.bias"].astype(np.float64)}), "."),
        (lambda d, a: a.update({k: v.astype(np.int32) for k, v in a.items()}), "int32"),
        (lambda d, a: a.clear(), "."),
        (lambda d, a: d.pop("layers"), "describes no layers"),
        (lambda d, a: d.pop("loss"), "."),
    ],
)
def test_a_model_file_that_does_not_hold_together_is_refused(change, match, tmp_path):
    assert_refused(model_file(tmp_path / "m.safetensors", change), match=match)


def without_arrays(prefix):
    def change(description, arrays):
        for name in [name for name in arrays if name.startswith(prefix)]:
            del arrays[name]

    return change


def resized(description, arrays):
    """Member 1 holds together, and answers another question than member 0."""
    description["members"][1].update(
        layers=[{"type": "Dense", "n_in": 9, "n_out": 3}], image_shape=[3, 3], classes=["ant", "bee", "cat ü"]
    )
    arrays.update({"1.0.weight": np.zeros((3, 9), np.float32)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put(["format"], FORMAT + 1), "update handgrad"),
        (lambda d, a: d["members"].pop(), "describes 2 members, and none has 2.0.bias, 2.0.weight"),
        (lambda d, a: d["members"].append(d["members"][0]), "member 3 of .* damaged"),
        (without_arrays("1."), "member 1 of .* damaged"),
        (without_arrays("2.3.bias"), "member 2 of .* damaged"),
        (lambda d, a: a.update({"0.0.weight": a["0.0.weight"].T.copy()}), "member 0 of .* damaged"),
        (lambda d, a: a.update({"01.weight": a["0.0.weight"]}), "none has 01.weight"),
        (lambda d, a: a.update({"weight": a["0.0.weight"]}), "none has weight"),
        (lambda d, a: a.update({"1.0.bias": a["1.0.bias"].astype(np.float64)}), "member 1"),
        (lambda d, a: a.update({n: v.astype(float) for n, v in a.items() if n[0] == "1"}), "member 1 .* dtype float64"),
        (resized, "member 1 of the ensemble has n_in 9, and member 0 4"),
        (
            put(["members", 1, "loss", "type"], "BinaryCrossEntropy"),
            "member 1 of the ensemble has loss BinaryCrossEntropy",
        ),
        (put(["members", 1, "loss", "temperature"], 0), "member 1 of .* temperature 0"),
        (put(["members", 1, "classes"], ["one", "two", "three"]), "member 1 of the ensemble has classes"),
        (put(["members", 1, "image_shape"], [1, 4]), "member 1 of the ensemble has image_shape"),
        (put(["members", 1, "layers", 0, "n_out"], 10**6), "member 1 of .* damaged"),
        (put(["members", 1], None), "member 1 of .* no layers"),
        (put(["members", 1], ["layers"]), "member 1 of .* no layers"),
        *((put(["members"], value), ".") for value in (None, 5, "ab", {}, [], [[]], {"0": {}})),
        (lambda d, a: (a.clear(), put(["members"], [])(d, a)), "expected one Network or more"),
    ],
)
def test_a_committees_file_that_does_not_hold_together_is_refused(change, match, tmp_path):
    assert_refused(committee_file(tmp_path / "m.safetensors", change), match=match)


@pytest.mark.parametrize("read", [load, lambda path: resume(Trainer(small(), SGD(0.1)), path), read_json])
def test_a_missing_file_and_a_directory_are_refused(read, tmp_path):
    assert_refused(tmp_path / "none.safetensors", read, "No such file")
    (tmp_path / "directory").mkdir()
    assert_refused(tmp_path / "directory", read, "directory")


# ---- Writing ------------------------------------------------------------------------------------------------

WRITERS = {
    "save": lambda path: save(small(), path),
    "write_json": lambda path: write_json(path, [1]),
    "replace_file": lambda path: replace_file(path, b"new"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(fails, write, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(HandgradError, match=r"cannot write .*No space left") as caught:
        write(path)
    one_line(caught)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_write_replaces_the_old_file_and_leaves_nothing_else(write, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write(path)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def in_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "m.safetensors"


def a_directory(tmp_path):
    (tmp_path / "m.safetensors").mkdir()
    return tmp_path / "m.safetensors"


PLACES = {
    "in-a-file": in_a_file,
    "a-directory": a_directory,
    "in-no-directory": lambda tmp_path: tmp_path / "none" / "m.safetensors",
    "long-name": lambda tmp_path: tmp_path / ("m" * 300),
    "no-name": lambda tmp_path: Path(),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_written_is_refused(place, write, tmp_path):
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(path, write, "cannot write")
    assert sorted(tmp_path.rglob("*")) == before


# ---- JSON ---------------------------------------------------------------------------------------------------


def test_json_comes_back_as_it_was(tmp_path):
    value = {"loss": [0.1, 1e-300], "name": "ü", "none": None}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"nonsense", b"[" * 100_000])
def test_what_is_no_json_is_refused(content, tmp_path):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    assert_refused(path, read_json, "no JSON file")


# ---- Checkpoints --------------------------------------------------------------------------------------------


def trained(network, optimizer, path, epochs=2):
    """A trainer that has left its checkpoint at `path`."""
    trainer = Trainer(network, optimizer, batch_size=4, callbacks=[Checkpoint(path)], rng=0)
    trainer.fit(X, Y, epochs=epochs)
    return trainer


@pytest.mark.parametrize("make", [SGD, Momentum, Adam])
def test_a_checkpoint_holds_the_trainers_state(make, tmp_path):
    path = tmp_path / "c.safetensors"
    before = trained(small(), make(0.1), path)
    after = Trainer(small(), make(0.1), batch_size=4, callbacks=[Checkpoint(path)], rng=5)
    resume(after, path)
    np.testing.assert_array_equal(after.network.parameters, before.network.parameters)
    np.testing.assert_array_equal(after.optimizer.memory, before.optimizer.memory)
    assert after.epoch == 2
    assert after.history == before.history
    assert after.shuffling.bit_generator.state == before.shuffling.bit_generator.state
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("network", "optimizer", "match"),
    [
        (lambda: Network([4, 6, 3], rng=1), Adam, "another network"),
        (lambda: small(dtype=np.float64), Adam, "another network"),
        (small, lambda: SGD(0.1), "another optimizer"),
        (small, lambda: Momentum(0.1), "another optimizer"),
        (lambda: Network([Dense(4, 5), Dropout(), Dense(5, 3)], rng=1), Adam, "another training"),
    ],
    ids=["sizes", "dtype", "sgd", "momentum", "dropout"],
)
def test_the_checkpoint_of_another_training_is_refused(network, optimizer, match, tmp_path):
    path = tmp_path / "c.safetensors"
    trained(small(), Adam(), path)
    trainer = Trainer(network(), optimizer(), batch_size=4, rng=0)
    before = trainer.network.parameters.copy()
    with pytest.raises(HandgradError, match=match) as caught:
        resume(trainer, path)
    one_line(caught)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    assert trainer.epoch == 0


def test_momentums_checkpoint_is_not_nesterovs(tmp_path):
    path = tmp_path / "c.safetensors"
    trained(small(), Momentum(0.1), path)
    with pytest.raises(HandgradError, match="another optimizer"):
        resume(Trainer(small(), Nesterov(0.1)), path)


def test_a_model_is_no_checkpoint_and_a_checkpoint_no_model(tmp_path):
    path = tmp_path / "c.safetensors"
    trained(small(), SGD(0.1), path)
    assert_refused(path, load, "describes no layers")
    save(small(), path)
    assert_refused(path, lambda path: resume(Trainer(small(), SGD(0.1)), path), "no checkpoint")


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    trained(small(), Adam(), path)
    whole = path.read_bytes()
    for length in (0, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused(path, lambda path: resume(Trainer(small(), Adam()), path))


def test_a_generator_of_another_kind_can_be_kept(tmp_path):
    rng = np.random.Generator(np.random.MT19937(0))
    path = tmp_path / "c.safetensors"
    before = Trainer(small(), SGD(0.1), batch_size=4, callbacks=[Checkpoint(path)], rng=rng)
    before.fit(X, Y, epochs=1)
    after = Trainer(small(), SGD(0.1), batch_size=4, rng=np.random.Generator(np.random.MT19937(1)))
    resume(after, path)
    np.testing.assert_array_equal(after.shuffling.permutation(9), before.shuffling.permutation(9))


def test_a_quadratic_loss_is_read_with_its_smoothing(tmp_path):
    network = Network([4, 3], loss=Quadratic(label_smoothing=0.25), rng=0)
    save(network, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").evaluate(X, Y) == network.evaluate(X, Y)


# ---- Files of earlier versions ------------------------------------------------------------------------------

EARLIER = Path(__file__).parent / "files"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ("x", "checkpoint-1")])
def test_a_model_file_of_an_earlier_version_answers_as_it_did(name):
    """Each was written once, by tests/files/write.py, and is never written again."""
    model = load(EARLIER / f"{name}.safetensors")
    np.testing.assert_allclose(model.outputs(EXPECTED["x"]), EXPECTED[name], rtol=1e-5, atol=1e-6)
    assert (model.classes, model.image_shape) == (("ant", "bee", "cat ü")[: model.n_classes], (2, 2))
    assert described(EARLIER / f"{name}.safetensors")["format"] == int(name[-1])


def test_a_checkpoint_of_an_earlier_version_goes_on():
    trainer = Trainer(small(), Adam(0.01), batch_size=3, callbacks=[EMA(0.9)], rng=0)
    resume(trainer, EARLIER / "checkpoint-1.safetensors")
    np.testing.assert_allclose(trainer.network.outputs(EXPECTED["x"]), EXPECTED["checkpoint-1"], rtol=1e-5, atol=1e-6)
    assert (trainer.epoch, trainer.optimizer.steps) == (2, 4)
    trainer.fit(EXPECTED["x"], np.arange(6) % 3, epochs=3)
    assert len(trainer.history["loss"]) == 3


@pytest.mark.filterwarnings("error")
def test_an_estimator_of_an_earlier_version_answers_as_it_did_and_goes_on():
    from handgrad import sklearn

    estimator, x = sklearn.load(EARLIER / "estimator-3.safetensors"), np.array(EXPECTED["x"])
    assert type(estimator) is sklearn.MLPClassifier
    assert (estimator.hidden_layer_sizes, estimator.solver, estimator.random_state) == ((5,), "sgd", 10)
    answers = np.array(["ant", "bee", "cat ü"])[np.argmax(EXPECTED["estimator-3"], axis=1)]
    assert (estimator.predict(x) == answers).all()
    assert len(estimator.loss_curve_) == 2
    estimator.partial_fit(x, answers)
    assert (len(estimator.loss_curve_), estimator._optimizer.steps) == (3, 6)


def test_the_files_of_earlier_versions_are_all_read_and_of_every_format():
    files_there = {path.stem for path in EARLIER.glob("*.safetensors")}
    assert files_there == set(EXPECTED) - {"x"}
    assert {name[-1] for name in files_there} == {str(n + 1) for n in range(FORMAT)}


class Clock:
    """A clock that goes on by `step` seconds each time that it is looked at."""

    def __init__(self, step):
        self.now, self.step = 1000.0, step

    def monotonic(self):
        self.now += self.step
        return self.now


def kept_epochs(share, epochs, path, monkeypatch, step=1.0, stop=None):
    """After each epoch, the last that is kept: by the callback, which the file must bear out."""
    monkeypatch.setattr(files, "time", Clock(step))
    checkpoint, kept = Checkpoint(path, share), []

    class Watch(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = trainer.epoch == stop

    class See(Callback):
        def on_epoch_end(self, trainer):
            again = Trainer(small(), SGD(0.1), batch_size=4, rng=5, callbacks=[Callback()] * 3)
            resume(again, path)
            assert again.epoch == checkpoint.epoch
            kept.append(checkpoint.epoch)

    trainer = Trainer(small(), SGD(0.1), batch_size=4, callbacks=[Watch(), checkpoint, See()], rng=0)
    trainer.fit(X, Y, epochs=epochs)
    return kept


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (1.0, [1, 2, 3, 4, 5, 6, 7, 8]),
        (0.5, [1, 2, 3, 4, 5, 6, 7, 8]),  # writing takes a second, then a second goes by until the next look
        (0.25, [1, 1, 1, 4, 4, 4, 7, 8]),  # after a second of writing three are for training
        (0.1, [1, 1, 1, 1, 1, 1, 1, 8]),
    ],
)
def test_a_checkpoint_takes_its_share_of_the_time_and_the_last_epoch_is_always_kept(
    share, expected, tmp_path, monkeypatch
):
    assert kept_epochs(share, 8, tmp_path / "c", monkeypatch) == expected


def test_a_training_that_is_told_to_stop_is_kept_as_it_stopped(tmp_path, monkeypatch):
    assert kept_epochs(0.1, 8, tmp_path / "c", monkeypatch, stop=4) == [1, 1, 1, 4]


def test_where_writing_takes_no_time_every_epoch_is_kept(tmp_path, monkeypatch):
    assert kept_epochs(0.01, 5, tmp_path / "c", monkeypatch, step=0.0) == [1, 2, 3, 4, 5]


def test_what_a_resumed_training_began_from_is_kept(tmp_path):
    path = tmp_path / "c"
    Trainer(small(), SGD(0.1), batch_size=4, callbacks=[Checkpoint(path)], rng=0).fit(X, Y, epochs=3)
    again = Checkpoint(path)
    assert again.epoch == 0
    trainer = Trainer(small(), SGD(0.1), batch_size=4, callbacks=[again], rng=5)
    resume(trainer, path)
    trainer.fit(X, Y, epochs=3)
    assert again.epoch == 3


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share, tmp_path, refused):
    with refused(f"share {share}: expected a number above 0, at most 1"):
        Checkpoint(tmp_path / "c", share)
