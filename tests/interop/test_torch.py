"""Import from PyTorch without PyTorch: state dicts of arrays, imitated modules, error messages."""

import json
import re
import struct
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy

from handgrad import (
    HOG,
    AdamW,
    BatchNorm,
    CrossEntropy,
    Dense,
    Huber,
    Ladder,
    Lookahead,
    Nesterov,
    Network,
    SquaredError,
    interop,
    save,
)
from handgrad.initializers import INITIALIZERS
from handgrad.interop import torch as tables
from handgrad.layers import LAYERS, Tanh
from handgrad.losses import LOSSES
from handgrad.optimizers import OPTIMIZERS, SGD

RNG = np.random.default_rng(0)
X = RNG.random((40, 4))


def linear(n_in, n_out, name, dtype=np.float64):
    """The arrays of a Linear in a state dict."""
    W, b = RNG.standard_normal((n_out, n_in)).astype(dtype), RNG.standard_normal(n_out).astype(dtype)
    return {f"{name}.weight": W, f"{name}.bias": b}


def norm(n, name):
    """The arrays of a BatchNorm1d in a state dict."""
    arrays = {"weight": RNG.random(n), "bias": RNG.random(n), "running_mean": RNG.random(n)}
    arrays |= {"running_var": RNG.random(n) + 0.5, "num_batches_tracked": np.array(3)}
    return {f"{name}.{kind}": value for kind, value in arrays.items()}


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


# ---- Tables ----------------------------------------------------------------------------------------------------------


def test_every_class_of_the_core_has_an_equivalent():
    assert set(tables.TORCH_LAYERS) == set(LAYERS.values())
    assert set(tables.TORCH_LOSSES) == set(LOSSES.values())
    assert set(tables.TORCH_OPTIMIZERS) == set(OPTIMIZERS.values())
    assert set(tables.TORCH_INITIALIZERS) == set(INITIALIZERS)


def test_code_of_layers_losses_and_optimizers():
    assert tables.layer_code(Dense(784, 30)) == "nn.Linear(784, 30)"
    assert tables.layer_code(BatchNorm(30, 0.2, 1e-3)) == "nn.BatchNorm1d(30, eps=0.001, momentum=0.2)"
    assert tables.loss_code(SquaredError("sigmoid")) == (
        'functional.mse_loss(z.sigmoid(), t, reduction="sum") / (2 * len(z))'
    )
    assert tables.loss_code(CrossEntropy(temperature=2)) == "4.0 * functional.cross_entropy(z / 2.0, t)"
    assert tables.loss_code(Huber(0.3)).endswith("delta=0.3) / len(z)")
    assert tables.optimizer_code(Nesterov(0.1)) == (
        "torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)"
    )
    assert tables.optimizer_code(AdamW(weight_decay=0), "weights").endswith(
        "AdamW(weights, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    )


def test_custom_classes_have_no_equivalent(rejects):
    class Cubic(Tanh):
        pass

    with rejects("PyTorch has no equivalent of Cubic: expected one of Dense, BatchNorm"):
        tables.layer_code(Cubic())
    with rejects("PyTorch has no equivalent of Ladder: convert fold_batchnorm"):
        tables.layer_code(Ladder([4, 3]))
    with rejects("PyTorch has no equivalent of HOG: handgrad export --to torch writes one"):
        tables.layer_code(HOG(28, 28))
    with rejects("PyTorch has no equivalent of Lookahead: expected one of SGD"):
        tables.optimizer_code(Lookahead(SGD(0.1)))


# ---- State dicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_dict_gives_the_same_outputs(dtype):
    state = linear(4, 5, "0", dtype) | linear(5, 3, "2", dtype)
    network = interop.from_torch(state, activation="tanh")
    assert (network.dtype, repr(network.loss)) == (dtype, "CrossEntropy()")
    W, b, V, c = state.values()
    x = X.astype(dtype)
    tolerance = 2e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(network.outputs(x), np.tanh(x @ W.T + b) @ V.T + c, rtol=tolerance)
    W[0, 0] = 7  # the network has copies
    assert network.layers[0].W[0, 0] != 7


@pytest.mark.parametrize("as_text", [True, False])
def test_a_saved_network_read_as_state_dict_has_the_same_parameters(as_text, tmp_path):
    network = Network([4, 6, 5, 3], activation=["relu", "tanh"], loss="cross_entropy", rng=0)
    save(network, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    safetensors.numpy.save_file(arrays, tmp_path / "state.safetensors")
    path = tmp_path / "state.safetensors"
    again = interop.from_torch(str(path) if as_text else path, activation=["relu", "tanh"])
    assert kinds(again) == kinds(network)
    np.testing.assert_array_equal(again.parameters, network.parameters)


def test_order_follows_the_numbers_in_the_names():
    """Sorted as strings, 10 comes before 2, and all matrices are square."""
    state = linear(4, 4, "net.10") | linear(4, 4, "net.2") | linear(4, 4, "net.0")
    network = interop.from_torch(state, activation="relu")
    for layer, name in zip(network.layers[::2], ("net.0", "net.2", "net.10"), strict=True):
        np.testing.assert_array_equal(layer.W, state[f"{name}.weight"])


def test_order_of_names_without_numbers_follows_the_shapes():
    state = linear(5, 3, "head") | linear(4, 6, "stem") | linear(6, 5, "body")
    network = interop.from_torch(state, activation=["relu", "tanh"])
    assert [(layer.n_in, layer.n_out) for layer in network.layers[::2]] == [(4, 6), (6, 5), (5, 3)]
    assert kinds(network) == ["Dense", "ReLU", "Dense", "Tanh", "Dense"]


def test_numbers_in_some_names_decide_between_equal_shapes():
    state = linear(5, 3, "out") | linear(5, 5, "fc3") | linear(5, 5, "fc2") | linear(4, 5, "fc1")
    network = interop.from_torch(state, activation="relu")
    np.testing.assert_array_equal(network.layers[2].W, state["fc2.weight"])
    np.testing.assert_array_equal(network.layers[4].W, state["fc3.weight"])


def test_an_ordered_dict_gives_the_order_that_shapes_leave_open(rejects):
    state = linear(4, 4, "b") | linear(4, 4, "a")
    with rejects(r"the order of the layers is not unique: 'b' \(4, 4\), 'a' \(4, 4\)"):
        interop.from_torch(state, activation="relu")
    network = interop.from_torch(OrderedDict(state), activation="relu")
    np.testing.assert_array_equal(network.layers[0].W, state["b.weight"])


def test_many_names_without_numbers_are_not_searched(rejects):
    """12 square matrices have 479,001,600 orders."""
    state = {}
    for name in "abcdefghijkl":
        state |= linear(4, 4, name)
    with rejects("the order of the layers is not unique"):
        interop.from_torch(state, activation="relu")


def test_a_single_linear_needs_no_activation():
    state = linear(4, 3, "fc")
    assert kinds(interop.from_torch(state)) == ["Dense"]
    assert kinds(interop.from_torch({name.removeprefix("fc."): p for name, p in state.items()})) == ["Dense"]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((0, 1, 3), ["Dense", "BatchNorm", "ReLU", "Dense"]),
        ((0, 2, 3), ["Dense", "ReLU", "BatchNorm", "Dense"]),
        ((0, 1, 4), ["Dense", "BatchNorm", "ReLU", "Dense"]),  # with a Dropout, which has no arrays
    ],
)
def test_a_gap_in_the_numbers_is_the_activation_next_to_a_batch_norm(places, expected):
    first, second, third = places
    state = linear(4, 5, first) | norm(5, second) | linear(5, 3, third)
    network = interop.from_torch(state, activation="relu")
    assert kinds(network) == expected
    g = network.named_parameters[f"{expected.index('BatchNorm')}.g"]
    np.testing.assert_array_equal(g, state[f"{second}.weight"])


def test_batch_norm_as_the_first_and_the_last_layer():
    state = norm(4, "0") | linear(4, 3, "1") | norm(3, "2")
    assert kinds(interop.from_torch(state)) == ["BatchNorm", "Dense", "BatchNorm"]


TWO = linear(4, 5, "0") | linear(5, 3, "2")


@pytest.mark.parametrize(
    ("state", "options", "match"),
    [
        (TWO, {}, "does not contain activations: give activation='relu', or a list of 1"),
        (TWO, {"activation": "rlu"}, "did you mean 'relu'"),
        (TWO, {"activation": ["relu", "tanh"]}, "activation has 2 names for 1 hidden layers"),
        (TWO, {"activation": "relu", "loss": "hinge"}, "unknown loss 'hinge'"),
        (
            linear(4, 5, "0") | linear(6, 3, "2"),
            {"activation": "relu"},
            "'2' expects 6 inputs, but '0' has 5 outputs",
        ),
        (
            linear(4, 5, "a") | linear(6, 3, "b"),
            {"activation": "relu"},
            r"no order of the layers fits: 'a' \(5, 4\)",
        ),
        ({"0.weight": np.ones((3, 4))}, {}, "'0' has no '0.bias': add zeros"),
        ({"0.bias": np.ones(3)}, {}, "'0' has no '0.weight'"),
        (
            linear(4, 3, "0") | {"0.bias": np.ones(4)},
            {},
            r"'0' has a bias of shape \(4,\).*expected a bias of .* \(3,\)",
        ),
        ({"0.weight": np.ones((8, 1, 3, 3)), "0.bias": np.ones(8)}, {}, r"'0' has weights of shape \(8, 1, 3, 3\)"),
        ({"0.weight": np.ones(4), "0.bias": np.ones(4)}, {}, r"'0' has weights of shape \(4,\)"),  # a LayerNorm
        (linear(4, 3, "0") | {"lstm.weight_ih_l0": np.ones(3)}, {}, "'lstm.weight_ih_l0' belongs to an unknown layer"),
        (linear(4, 3, "0") | {"head": linear(3, 3, "1")}, {}, "'head' is a mapping: if it is the state dict, pass it"),
        (
            {"generator": linear(4, 3, "0"), "discriminator": linear(4, 3, "0")},
            {},
            r"the checkpoint contains 'generator', 'discriminator': pass one of them, as checkpoint\['generator'\]",
        ),
        ({"epoch": 3, "optimizer_state_dict": {"state": {0: {}}}}, {}, "'epoch' belongs to an unknown layer"),
        (linear(4, 3, "0") | linear(4, 3, "_orig_mod.0"), {}, "several arrays have the same name without the prefix"),
        ({k: p.astype(np.int8) for k, p in linear(4, 3, "0").items()}, {}, r"the dtypes int8 \('0'\): expected all"),
        (linear(4, 3, "0") | {"0.bias": "three"}, {}, "'0.bias' is not an array of numbers: got a str"),
        ({}, {}, "the model has no dense layer"),
        (norm(4, "0"), {}, "the model has no dense layer"),
        (linear(4, 5, "0") | linear(5, 3, "2", np.float32), {"activation": "relu"}, "float64 .*, float32"),
        (linear(4, 3, "0") | {"0.bias": np.array([1, np.nan, 2])}, {}, "the weights of '0' contain NaN or infinity"),
        (linear(4, 1, "0"), {}, "a softmax over one output is always 1: give loss='binary_cross_entropy'"),
        (
            linear(4, 5, "0") | norm(5, "2") | linear(5, 3, "4"),
            {"activation": "relu"},
            "the numbers from '0' to '4' do not determine whether the BatchNorm is before or after",
        ),
        (linear(4, 5, "fc1") | norm(5, "bn1") | linear(5, 3, "fc2"), {"activation": "relu"}, "names do not determine"),
        (norm(4, "0") | {"0.running_var": np.ones(3)}, {}, r"'0' has .* running_var \(3,\): expected vectors"),
        ({k: v for k, v in norm(4, "0").items() if "mean" not in k}, {}, "'0' has no '0.running_mean'"),
        (None, {}, "cannot convert a NoneType: expected a torch.nn.Sequential, or a state dict"),
    ],
)
def test_an_invalid_state_dict_is_rejected_with_its_names(state, options, match, rejects):
    with rejects(match):
        interop.from_torch(state, **options)


# ---- Checkpoints, prefixes, half precision ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "checkpoint",
    [
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {0: {}}, "lr": 0.1}},
        lambda state: {"state_dict": state, "hyper_parameters": {"weight_decay": 0.1}},
        lambda state: {"net": state, "acc": 98.1},
        lambda state: {"step": 10, "classifier": state},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"model": state, "args": None, "optimizer": {}},
    ],
)
def test_the_state_dict_in_a_checkpoint_is_found(checkpoint, caplog):
    network = interop.from_torch(checkpoint(TWO), activation="relu")
    np.testing.assert_array_equal(network.parameters, interop.from_torch(TWO, activation="relu").parameters)
    assert caplog.messages == []


def test_the_model_is_preferred_to_other_state_dicts_of_a_checkpoint(caplog):
    other = linear(4, 5, "0") | linear(5, 3, "2")
    network = interop.from_torch({"ema": other, "model": TWO}, activation="relu")
    np.testing.assert_array_equal(network.layers[0].W, TWO["0.weight"])
    assert caplog.messages == ["the checkpoint also contains 'ema': importing 'model'"]


def test_a_checkpoint_may_contain_a_module():
    network = interop.from_torch({"epoch": 3, "model": sequential(lin(4, 5), module("ReLU"), lin(5, 3))})
    assert kinds(network) == ["Dense", "ReLU", "Dense"]


ONE = {name.removeprefix("0."): p for name, p in linear(4, 3, "0").items()}


@pytest.mark.parametrize(
    ("prefix", "state"),
    [
        *(("module.", state) for state in (ONE, TWO)),
        *[("_orig_mod.", TWO), ("_orig_mod.module.", ONE), ("module._orig_mod.", TWO), ("module.module.", ONE)],
    ],
)
def test_prefixes_of_wrapped_models_are_ignored(prefix, state, rejects):
    prefixed = {f"{prefix}{name}": p for name, p in state.items()} | {"n_averaged": np.array(3)}
    network = interop.from_torch(prefixed, activation="relu")
    np.testing.assert_array_equal(network.parameters, interop.from_torch(state, activation="relu").parameters)
    bad = next(name for name in prefixed if "weight" in name)
    layer = bad.removeprefix(prefix).rpartition(".")[0]
    with rejects(f"^{layer!r} has weights of shape"):  # the name in the model, not in its wrapper
        interop.from_torch(prefixed | {bad: np.ones(3)}, activation="relu")


def test_an_inner_module_that_was_compiled():
    state = {name.replace("0.", "net._orig_mod.0.").replace("2.", "net._orig_mod.2."): p for name, p in TWO.items()}
    network = interop.from_torch(state, activation="relu")
    np.testing.assert_array_equal(network.parameters, interop.from_torch(TWO, activation="relu").parameters)


def test_half_precision_becomes_float32_with_a_warning(caplog):
    state = linear(4, 5, "0", np.float16) | linear(5, 3, "2", np.float32)
    network = interop.from_torch(state, activation="relu")
    assert network.dtype == np.float32
    np.testing.assert_array_equal(network.layers[0].W, state["0.weight"].astype(np.float32))
    assert caplog.messages == ["the weights are float16: converted to float32, without a loss of precision"]


def write_bfloat16(path, state, others):
    """Write a file whose arrays are bfloat16, truncated, except those named in `others`."""
    header, content = {}, b""
    for name, p in state.items():
        floats = np.ascontiguousarray(p, np.float32)
        data = floats.tobytes() if name in others else (floats.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32" if name in others else "BF16", "shape": p.shape, "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("others", [(), ("2.bias",)])
def test_a_file_with_bfloat16_becomes_float32_with_a_warning(others, tmp_path, caplog):
    write_bfloat16(tmp_path / "m.safetensors", TWO, others)
    network = interop.from_torch(tmp_path / "m.safetensors", activation="relu")
    for name, p in network.named_parameters.items():
        original = TWO[name.replace("W", "weight").replace("b", "bias")].astype(np.float32)
        bits = original if name.replace("b", "bias") in others else (original.view(np.uint32) >> 16 << 16)
        np.testing.assert_array_equal(p, bits.view(np.float32))
    assert caplog.messages == ["the weights are bfloat16: converted to float32, without a loss of precision"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *(("ReLU", "ReLU"), ("LeakyReLU", "LeakyReLU"), ("SiLU", "SiLU"), ("swish", "SiLU"), ("TANH", "Tanh")),
        *(
            ("Exact-GELU", "ExactGELU"),
            ("ELU", "ELU"),
            ("selu", "SELU"),
            ("gelu_tanh", "GELU"),
            ("Logistic", "Sigmoid"),
        ),
    ],
)
def test_activations_and_losses_are_found_in_any_case(given, expected, caplog):
    network = interop.from_torch(TWO, activation=given, loss="CrossEntropy")
    assert kinds(network) == ["Dense", expected, "Dense"]
    assert caplog.messages == []


def test_gelu_of_a_state_dict_is_the_approximation_and_says_so(caplog):
    assert kinds(interop.from_torch(TWO, activation="GELU")) == ["Dense", "GELU", "Dense"]
    assert caplog.messages == ["'gelu' is GELU(approximate='tanh') of PyTorch: give 'exact_gelu' for GELU()"]


@pytest.mark.parametrize("wrong", [{"0.bias": np.full(5, np.nan, np.float32)}, linear(6, 3, "2", np.float32)])
def test_an_error_in_a_file_has_the_name_of_the_file(wrong, tmp_path, rejects):
    path = tmp_path / "state.safetensors"
    state = linear(4, 5, "0", np.float32) | linear(5, 3, "2", np.float32)
    safetensors.numpy.save_file(state | wrong, path)
    with rejects(f"^{re.escape(str(path))}: "):
        interop.from_torch(path, activation="relu")


# ---- Modules, imitated without PyTorch -------------------------------------------------------------------------------


def module(kind, where="torch.nn.modules.made", **attributes):
    made = type(kind, (), {"__module__": where, "extra_repr": lambda self: "settings"})()
    vars(made).update(attributes)
    return made


def sequential(*children):
    made = module("Sequential")
    made._modules = {str(i): child for i, child in enumerate(children)}
    return made


def lin(n_in, n_out, bias=True):
    arrays = list(linear(n_in, n_out, "0").values())
    return module("Linear", weight=arrays[0], bias=arrays[1] if bias else None)


def test_a_sequential_with_nested_modules():
    inner = sequential(module("LeakyReLU", negative_slope=0.2), module("Dropout", p=0.3))
    flatten = module("Flatten", start_dim=1, end_dim=-1)
    network = interop.from_torch(
        sequential(flatten, lin(4, 5), inner, lin(5, 3, bias=False), module("LogSoftmax", dim=1))
    )
    assert kinds(network) == ["Identity", "Dense", "LeakyReLU", "Dropout", "Dense"]
    assert (network.layers[2].slope, network.layers[3].rate) == (0.2, 0.3)
    assert not network.layers[4].b.any()
    assert repr(network.loss) == "CrossEntropy()"


def test_all_activations():
    made = [module("SiLU"), module("ELU", alpha=0.5), module("SELU"), module("GELU", approximate="none")]
    made += [module("GELU", approximate="tanh"), module("Softplus", beta=1, threshold=20), module("Flatten")]
    vars(made[-1]).update(start_dim=1, end_dim=-1)
    network = interop.from_torch(sequential(lin(4, 3), *made))
    assert kinds(network) == ["Dense", "SiLU", "ELU", "SELU", "ExactGELU", "GELU", "Softplus", "Identity"]
    assert network.layers[2].alpha == 0.5


def test_a_subclass_of_sequential_with_the_same_forward(rejects):
    made = sequential(lin(4, 5), module("ReLU"), lin(5, 3))
    base = type(made)
    made.__class__ = type("Net", (base,), {"__module__": "__main__"})
    assert kinds(interop.from_torch(made)) == ["Dense", "ReLU", "Dense"]
    made.__class__ = type("Net", (base,), {"__module__": "__main__", "forward": lambda self, x: x})
    with rejects("cannot convert a Net: expected a torch.nn.Sequential"):
        interop.from_torch(made)


@pytest.mark.parametrize(
    ("kind", "where", "inner"),
    [
        ("DataParallel", "torch.nn.parallel.data_parallel", "module"),
        ("OptimizedModule", "torch._dynamo.eval_frame", "_orig_mod"),
        ("AveragedModel", "torch.optim.swa_utils", "module"),
    ],
)
def test_a_wrapped_module_is_unwrapped(kind, where, inner):
    made = module(kind, where=where, **{inner: sequential(lin(4, 5), module("ReLU"), lin(5, 3))})
    assert kinds(interop.from_torch(made)) == ["Dense", "ReLU", "Dense"]
    assert kinds(interop.from_torch(sequential(made, module("ReLU")))) == ["Dense", "ReLU", "Dense", "ReLU"]


@pytest.mark.parametrize(
    ("loss", "expected", "layers"),
    [
        (None, "BinaryCrossEntropy()", ["Dense"]),
        (SquaredError("sigmoid"), "SquaredError(activation='sigmoid')", ["Dense"]),
        ("squared_error", "SquaredError()", ["Dense", "Sigmoid"]),
        ("absolute_error", "AbsoluteError()", ["Dense", "Sigmoid"]),
    ],
)
def test_a_final_sigmoid_is_removed_if_the_loss_includes_it(loss, expected, layers):
    fc = lin(4, 3)
    network = interop.from_torch(sequential(fc, module("Sigmoid")), loss=loss)
    assert (repr(network.loss), kinds(network)) == (expected, layers)
    p = 1 / (1 + np.exp(-(X @ fc.weight.T + fc.bias)))
    np.testing.assert_allclose(network.predict_proba(X), p, rtol=1e-12)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (module("Conv2d"), r"'Sequential\[1\] Conv2d' has no equivalent in handgrad: supported are Linear"),
        (module("GELU", approximate="other"), r"'Sequential\[1\] GELU'\(settings\) has no equivalent"),
        (module("ELU", alpha=-1.0), r"'Sequential\[1\] ELU': ELU: alpha must be a finite number > 0"),
        (module("Softplus", beta=2, threshold=20), r"Softplus'\(settings\) has no equivalent"),
        (module("Flatten", start_dim=0, end_dim=-1), r"Flatten'\(settings\) has no equivalent"),
        (module("Linear", where="my.lora"), r"'Sequential\[1\] Linear' has no equivalent"),
        (module("ReLU", where="my.layers"), r"'Sequential\[1\] ReLU' has no equivalent"),
        (module("Softmax", dim=0), "has dim=0: expected dim=1"),
        (module("LeakyReLU", negative_slope=-1.0), r"'Sequential\[1\] LeakyReLU': LeakyReLU: slope must be"),
        (module("Dropout", p=1.0), r"'Sequential\[1\] Dropout': Dropout: rate must be"),
        (module("BatchNorm1d", weight=None, bias=None, running_mean=None, running_var=None), "no running statistics"),
    ],
)
def test_a_module_without_an_equivalent_is_rejected_by_name(bad, match, rejects):
    with rejects(match):
        interop.from_torch(sequential(lin(4, 3), bad))


def test_a_softmax_must_be_the_last_module_and_fit_the_loss(rejects):
    with rejects("Softmax' has no equivalent"):
        interop.from_torch(sequential(lin(4, 3), module("Softmax", dim=1), lin(3, 3)))
    with rejects(r"the model ends with a softmax, but the loss is SquaredError\(\): expected cross_entropy"):
        interop.from_torch(sequential(lin(4, 3), module("Softmax", dim=1)), loss="squared_error")


def test_a_sequential_takes_no_activation(rejects):
    with rejects("activation 'relu' is only for a state dict: a Sequential has its own activations"):
        interop.from_torch(sequential(lin(4, 3)), activation="relu")


def test_a_custom_module_is_rejected(rejects):
    with rejects("cannot convert a Net: expected a torch.nn.Sequential, or a state dict"):
        interop.from_torch(module("Net", where="__main__"))


def test_modules_may_be_repeated_unless_they_have_weights(rejects):
    act, twice = module("ReLU"), lin(4, 4)
    network = interop.from_torch(sequential(lin(3, 4), act, lin(4, 4), sequential(act), lin(4, 2)))
    assert kinds(network) == ["Dense", "ReLU", "Dense", "ReLU", "Dense"]
    with rejects(r"'Sequential\[2\] Linear' shares its weights with 'Sequential\[0\] Linear'.*copy.deepcopy"):
        interop.from_torch(sequential(twice, act, twice))
    tied = lin(4, 4)
    tied.weight = twice.weight
    with rejects(r"'Sequential\[1\] Linear' shares its weights"):
        interop.from_torch(sequential(twice, tied))
