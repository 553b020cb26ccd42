"""A layer of one's own, its derivative checked before it is used: Swish, a = z σ(βz), with a β that is learnt.

    python examples/own_layer.py

A layer needs `forward` and `backward`; `shapes` names its parameters, and the network gives it views of its vectors:
self.beta to read, self.dbeta to write. Ramachandran et al. (2017).
"""

import numpy as np

from handgrad import Adam, Dense, HandgradError, Layer, Network, Trainer, check_gradient


class Swish(Layer):
    """a = z σ(βz); one β for all units."""

    def __init__(self):
        self.parameter_shapes = {"beta": (1,)}

    def initialize(self, streams):
        self.beta[...] = 1

    def forward(self, z):
        self.z = z
        self.s = 1 / (1 + np.exp(-self.beta * z))
        return z * self.s

    def backward(self, da):
        slope = self.z * self.s * (1 - self.s)  # z dσ/d(βz)
        self.dbeta[...] = np.sum(da * slope * self.z)  # da/dβ = z · z σ (1 - σ)
        return da * (self.s + self.beta * slope)  # da/dz = σ + β z σ (1 - σ)


class Wrong(Swish):
    """The same, the factor β forgotten."""

    def backward(self, da):
        super().backward(da)
        return da * (self.s + self.z * self.s * (1 - self.s))


rng = np.random.default_rng(0)
for check in check_gradient(Swish(), rng.standard_normal((5, 7))):
    print(f"{check.name}: off by {check.error:.0e}")
try:
    check_gradient(Wrong(), rng.standard_normal((5, 7)))
except HandgradError as error:
    print(error)

x = rng.standard_normal((1000, 2)).astype(np.float32)
y = (np.hypot(*x.T) > 1.2).astype(int)  # inside or outside a circle
swish = Swish()
network = Network([Dense(2, 16), swish, Dense(16, 2)], loss="cross_entropy", rng=0)
Trainer(network, Adam(lr=0.02), batch_size=50, rng=0).fit(x, y, epochs=30)
print(f"{network.evaluate(x, y).accuracy:.0%} on the right side of the circle, β = {swish.beta[0]:.2f}")
