"""Export to PyTorch scripts: one that loads the weights of a model file, or one that trains the network."""

from __future__ import annotations

from ..images.hog import EPSILON as HOG_EPSILON
from ..images.hog import HOG
from ..interop.torch import TORCH_INITIALIZERS, TORCH_OPTIMIZERS, layer_code, loss_code
from ..layers import Dense, Layer
from ..network import Network
from ..optimizers import Adam, AdamW
from .graph import Forward, InferenceGraph
from .python_code import (
    EPSILON,
    TINY,
    PythonCode,
    classification,
    common_values,
    head,
    hog_code,
    hog_module,
    label,
    network_names,
)
from .templates import align_comments, paragraphs, python_string, render
from .training import Training

# The file of an estimator also contains the state of its training: the script loads the arrays of the network only.
TEMPLATE = '''
"""«title»

    python «name» «examples»     prints the predictions for the examples in a file

«head»
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

«classes»
«constants»

«hog»
«networks»
weights = load_file(Path(__file__).with_name(«weights»))
«load»


«predict»
@torch.no_grad()
def «function»(x):
    """Return the «predictions» (count, «n_out») for x (count, «n_in»)«or_images»."""
    return «prediction»


«functions»


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    «print»
'''

PREDICT = '''
@torch.no_grad()
def predict(x):
    """Return the label of each example (count,) for x (count, «n_in»)«or_images»."""
    return «label»
'''

HOG_MODULE = '''
class HOG(nn.Module):
    """Histograms of oriented gradients: how much edge there is in each of 8 directions, for each cell of a grid."""

    def __init__(self, height, width, cells, channels=1):
        super().__init__()
        self.n_out = channels * 8 * cells**2
        # The weights of the cells, which are no part of the state dict.
        self.register_buffer("ky", torch.tensor(gaussians(height, cells)), persistent=False)
        self.register_buffer("kx", torch.tensor(gaussians(width, cells)), persistent=False)

    def forward(self, x):
        if len(x) > 1000:  # blocks need less memory
            return torch.cat([self(block) for block in x.split(1000)])

        p = nn.functional.pad(x.reshape(-1, self.ky.shape[1], self.kx.shape[1]), (1, 1, 1, 1))
        gx, gy = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
        components = (
            *(gx - gy.abs(), -gx - gy.abs(), gy - gx.abs(), -gy - gx.abs()),  # east, west, south, north
            *(torch.minimum(gx, gy), torch.minimum(-gx, gy)),  # southeast, southwest
            *(torch.minimum(gx, -gy), torch.minimum(-gx, -gy)),  # northeast, northwest
        )
        h = torch.stack(components, dim=1).relu()
        return (self.ky @ (h @ self.kx.T) + «epsilon»).sqrt().reshape(-1, self.n_out)
'''.replace("«epsilon»", repr(HOG_EPSILON))

NETWORK = """
«network» = nn.Sequential(
    «layers»
)
"""

LOAD = """
for network, prefix in («prefixes»):
    network.load_state_dict({name: weights[prefix + name] for name in network.state_dict()})
    network.eval()
"""
LOAD_ONE = """
network.load_state_dict({name: weights[name] for name in network.state_dict()})
network.eval()
"""

OUTPUT_ACTIVATIONS = {"softmax": "{}.softmax(dim=1)", "sigmoid": "{}.sigmoid()", "identity": "{}", "exp": "{}.exp()"}

# Predictions p with the temperature T, by the output activation.
TEMPERED = {
    "softmax": f"({{p}}.clamp(min={TINY}).log() / {{T}}).softmax(dim=1)",
    "sigmoid": f"({{p}}.logit({EPSILON}) / {{T}}).sigmoid()",
}


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the script `name` that loads its weights."""
    names = network_names(graph, "network")

    def outputs(forward: Forward, x: str) -> str:
        z = f"{names[forward]}(torch.tensor({x}))"
        return z if forward.temperature == 1 else f"({z} / {forward.temperature!r})"

    def predictions(forward: Forward, x: str) -> str:
        return OUTPUT_ACTIVATIONS[graph.output_activation].format(outputs(forward, x))

    code = PythonCode(graph, predictions, TEMPERED)
    title, others = head(graph, "PyTorch")
    layers = {forward: "\n".join(f"{_layer_code(a)}," for a in forward.network.layers) for forward in graph.networks}
    networks = [render(NETWORK, {"network": name, "layers": layers[forward]}) for forward, name in names.items()]
    first = graph.networks[0]
    load = LOAD_ONE
    if len(names) > 1 or first.prefix:
        pairs = [f"({names[forward]}, {python_string(forward.prefix)})," for forward in graph.networks]
        load = render(LOAD, {"prefixes": "\n    " + "\n    ".join(pairs) + "\n"})
    values = common_values(graph, code, name) | {
        "title": title,
        "head": paragraphs(others),
        "hog": hog_module((forward.network for forward in graph.networks), HOG_MODULE),
        "networks": "".join(networks).removesuffix("\n"),
        "load": load.strip("\n"),
        "weights": python_string(graph.weights),
        "prediction": code.prediction,
        "label": label(graph, outputs(first, code.prepared), "long()", "dim"),
    }
    values |= classification(graph, render(PREDICT, values) + "\n")
    return render(TEMPLATE, values).encode()


def _layer_code(layer: Layer) -> str:
    """Code that creates a layer."""
    return hog_code(layer) if isinstance(layer, HOG) else layer_code(layer)


# ---- Training --------------------------------------------------------------------------------------------------------

TRAINING = '''
«head»

«import_math»
import sys

«import_numpy»
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

«import_deskew»
from handgrad.data import load

torch.manual_seed(«seed»)

«hog»
network = nn.Sequential(  # network = Network([
    «layers»
)  # ], loss=«handgrad_loss»)
«initialize»

optimizer = «optimizer»  # «handgrad_optimizer»
«weights»


def loss_of(z, t):  # «loss_name».value(z, t)
    return «loss»
«schedule»


def train(x, t, epochs=«epochs», batch_size=«batch_size»):  # trainer.fit(x, y, epochs=«epochs»)
    """Train on x (count, «n_in_network»), pixels in [0, 1], and targets t (count, «n_out»)."""
    network.train()
    batches = -(-len(x) // batch_size)  # batches = -(-len(x) // batch_size)
    for epoch in range(epochs):  # while epoch < epochs:
        loss_sum = 0.0  #     loss_sum = 0.0
        order = torch.randperm(len(x))  #     order = shuffling.permutation(len(x))
        for batch in range(batches):  #     for batch in range(batches):
            rows = order[batch * batch_size :][:batch_size]  #         rows = order[first : first + batch_size]
            «set_lr»
            z = network(x[rows])  #         z = network.forward(x[rows])
            loss = loss_of(z, t[rows])  #         dz = loss.backward(z, t[rows], 1 / len(rows))
            optimizer.zero_grad()  #         (backward overwrites dW and db)
            loss.backward()  #         network.backward(dz)
            «decay»
            optimizer.step()  #         optimizer.step(network, lr)
            loss_sum += loss.item() * len(rows)  #         loss_sum += loss.value(z, t[rows]) * len(rows)
        print(f"epoch {epoch + 1}/{epochs}  loss {loss_sum / len(x):.4f}")
    network.eval()


def to_floats(images):
    """Convert images (count, height, width), bytes, to floats (count, «n_in_network») in [0, 1]."""
    «deskew»
    return torch.tensor(images).reshape(len(images), -1) / 255  # as_floats(x)


def to_targets(labels):
    """Convert labels (count,) to targets (count, «n_out»)."""
    t = torch.eye(«n_out»)[torch.tensor(labels).long()]  # t = one_hot(y, n_out)
    return «smooth»


def evaluate(name, images, labels):
    """Print the number of correct predictions."""
    z = network(to_floats(images))  # z = network.outputs(x)
    correct = int((z.argmax(dim=1) == torch.tensor(labels)).sum())
    print(f"{name}: {correct} / {len(labels)} correct ({correct / len(labels):.2%})")


«main»
    save_file(network.state_dict(), "«trained».safetensors")
'''


def write_training(training: Training, name: str) -> bytes:
    """Return the content of the script `name` that trains the network."""
    optimizer, decay = training.optimizer, training.optimizer.weight_decay
    # The weight decay is a separate line, because PyTorch only has it in AdamW, for all parameters of a group.
    equivalent = TORCH_OPTIMIZERS[Adam if isinstance(optimizer, AdamW) else type(optimizer)]
    hog = hog_module([training.network], HOG_MODULE)
    values = training.values("PyTorch", name) | {
        "import_numpy": "import numpy as np" if hog else "",
        "hog": hog,
        "layers": "\n".join(f"{_layer_code(layer)},  #     {layer!r}," for layer in training.network.layers),
        "initialize": "\n".join(_initialization(training.network)),
        "optimizer": f"torch.optim.{equivalent.code(optimizer.config(), 'network.parameters()')}",
        "loss": loss_code(training.loss),
        "n_in_network": training.network.n_in,
        "set_lr": "",
        "weights": "",
        "decay": "",
    }
    if training.has_schedule or decay:
        values["set_lr"] = f"lr = {values['lr']}  #         lr = {values['lr']}"
    if training.has_schedule:
        values["set_lr"] += '\nfor group in optimizer.param_groups:\n    group["lr"] = lr'
    if decay:
        values["weights"] = "weights = [W for W in network.parameters() if W.ndim > 1]  # network.weights"
        values["decay"] = (
            "for W in weights:  #         for W, _ in network.weights:\n"
            f"    W.data *= 1 - lr * {decay!r}  #             W *= 1 - lr * weight_decay"
        )
    return align_comments(render(TRAINING, values)).encode()


def _initialization(network: Network) -> list[str]:
    """Code that initializes the Dense layers: a loop if all have the same initializer."""
    inits = {i: layer.init for i, layer in enumerate(network.layers) if isinstance(layer, Dense)}
    if len(set(inits.values())) == 1:
        loop = ["for layer in network:", "    if isinstance(layer, nn.Linear):"]
        return loop + [f"        {line}" for line in _initialize("layer", next(iter(inits.values())))]
    return [line for i, init in inits.items() for line in _initialize(f"network[{i}]", init)]


def _initialize(layer: str, init: str) -> list[str]:
    """Code that initializes one layer. The initializer "normal" draws the bias too; for all others it is 0."""
    return [
        f"{TORCH_INITIALIZERS[init].format(f'{layer}.weight')}  # initializers.{init}(W, b, rng)",
        f"nn.init.{'normal' if init == 'normal' else 'zeros'}_({layer}.bias)",
    ]
