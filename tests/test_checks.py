"""What `handgrad check` runs: every part of the library is in it, and passes."""

import pytest

from handgrad.gradcheck import check_all
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES


def test_the_whole_library_passes():
    checks = list(check_all())
    wrong = [check for check in checks if not check.passed]
    assert wrong == []
    for part in [
        *LOSSES,
        *ACTIVATIONS,
        "temperature 4",
        "Dense dW",
        "Dense db",
        "Dense dx",
        "Dropout dx",
        "[784, 30, 10]",
    ]:
        assert any(part in check.name or part in check.name.lower().replace(" ", "_") for check in checks)


def test_every_activation_passes_alone_by_its_own_name():
    names = {check.name.split(",")[0] for check in check_all()}
    assert {f"{activation.__name__} dx" for activation in ACTIVATIONS.values()} <= names


def test_every_activation_is_checked_with_every_loss_and_one_output_alone():
    names = {check.name.split(":")[0] for check in check_all()}
    assert {f"{activation} + {loss}" for activation in ACTIVATIONS for loss in LOSSES} <= names
    assert {"one output + quadratic", "one output + binary_cross_entropy"} <= names


@pytest.mark.parametrize("loss", LOSSES)
def test_a_wrong_loss_is_told_of_wherever_it_stands(loss, monkeypatch):
    right = LOSSES[loss].backward
    monkeypatch.setattr(LOSSES[loss], "backward", lambda self, z, t, weight: 1.01 * right(self, z, t, weight))
    wrong = [check.name for check in check_all() if not check.passed]
    assert any(name.startswith(f"{loss} dz, batch 7") for name in wrong)
    assert any(name.startswith(f"tanh + {loss}: layer 0") for name in wrong)
    assert not any(f"+ {other}:" in name for name in wrong for other in LOSSES if other != loss)


def test_batch_norm_is_checked_alone_and_in_networks():
    names = [check.name for check in check_all()]
    for batch in (1, 2, 7):
        assert f"BatchNorm dx, batch {batch}" in names
    whole = [name for name in names if "batch norm" in name]
    assert any("layer 0 BatchNorm dg" in name for name in whole)
    assert any("layer 2 BatchNorm dg" in name for name in whole)
    assert any("layer 9 BatchNorm db" in name for name in whole)
