"""The scaling model: formulas on cases computed by hand, fits on synthetic measurements."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks import ranks
from benchmarks import scaling_model as model
from benchmarks.hosts import Hosts, NotAvailableError
from benchmarks.scaling_model import Link, Step

LINK = Link("test", alpha=1.0, beta=0.1, gamma=0.01)
STEP = Step(fixed=1.0, row=1.0, update=1.0)


@pytest.mark.parametrize(
    ("size", "nodes", "seconds"),
    [
        (1000, 1, 0.0),
        (10, 2, 1 + 1 + 0.1),  # recursive doubling: L (α + n β + n γ)
        (1000, 2, 2 + 100 + 5),  # Rabenseifner: 2 L α + (p - 1)/p n (2 β + γ)
        (10, 4, 2 * 2.1),
        (1000, 4, 4 + 0.75 * 210),
        (1000, 3, 4 + 140),
        (10, 1024, 10 * 2.1),
    ],
)
def test_allreduce_takes_the_time_of_the_fastest_algorithm(size: int, nodes: int, seconds: float) -> None:
    assert LINK.allreduce(size, nodes) == pytest.approx(seconds)


def test_efficiencies_of_a_step_computed_by_hand() -> None:
    latency_only = Link("test", alpha=1.0, beta=0.0, gamma=0.0)
    assert STEP.seconds(6) == 8
    assert model.step_seconds(STEP, latency_only, 4, 6, 2) == 5 + 1  # 3 examples per node, and 1 for Allreduce
    assert model.strong_efficiency(STEP, latency_only, 4, 6, 2) == pytest.approx(8 / (2 * 6))
    assert model.weak_efficiency(STEP, latency_only, 4, 6, 2) == pytest.approx(8 / 9)
    assert model.weak_efficiency(STEP, latency_only, 4, 6, 2, sync_every=2) == pytest.approx(8 / 8.5)
    assert model.strong_efficiency(STEP, LINK, 1000, 6, 1) == model.weak_efficiency(STEP, LINK, 1000, 6, 1) == 1


def test_rows_for_gives_the_batch_of_an_efficiency() -> None:
    rows = model.rows_for(0.8, STEP, LINK, 1000, 64)
    assert model.weak_efficiency(STEP, LINK, 1000, rows, 64) == pytest.approx(0.8)  # type: ignore[arg-type]


def test_the_critical_batch_needs_twice_the_steps_of_a_very_large_batch() -> None:
    assert model.steps_to_target(160, critical=160) == 2
    assert model.steps_to_target(1e9, critical=160) == pytest.approx(1)


def test_the_networks_have_the_number_of_parameters_in_their_names() -> None:
    assert [model.parameters(sizes) for sizes in model.NETWORKS.values()] == [23_860, 669_706, 11_972_510]


def test_fit_step_finds_the_parts_of_a_step() -> None:
    true = Step(fixed=20e-6, row=1.5e-6, update=7e-6)
    batches = [8, 64, 512]
    fitted = model.fit_step(batches, [true.seconds(b) for b in batches], true.update)
    assert fitted.fixed == pytest.approx(true.fixed)
    assert fitted.row == pytest.approx(true.row)


def samples(link: Link, nodes: tuple[int, ...], noise: float = 0.0) -> list[tuple[float, int, float]]:
    rng = np.random.default_rng(0)
    sizes = [4.0 * 10**power for power in range(8)]
    return [(n, p, link.allreduce(n, p) * (1 + noise * rng.standard_normal())) for p in nodes for n in sizes]


ETHERNET = Link("test", alpha=30e-6, beta=0.87e-9, gamma=0.1e-9)


def test_fit_link_finds_latency_rate_and_addition() -> None:
    fitted = model.fit_link("test", samples(ETHERNET, (2, 4, 8)))
    assert (fitted.alpha, fitted.beta, fitted.gamma) == pytest.approx((30e-6, 0.87e-9, 0.1e-9), rel=1e-6)


def test_fit_link_needs_only_two_nodes_if_the_time_of_an_addition_is_known() -> None:
    fitted = model.fit_link("test", samples(ETHERNET, (2,)), gamma=0.1e-9)
    assert (fitted.alpha, fitted.beta, fitted.gamma) == pytest.approx((30e-6, 0.87e-9, 0.1e-9), rel=1e-6)


def test_fit_link_tolerates_noise_and_gives_no_negative_times() -> None:
    fitted = model.fit_link("test", samples(ETHERNET, (2, 4), noise=0.03), gamma=0.1e-9)
    assert (fitted.alpha, fitted.beta) == pytest.approx((30e-6, 0.87e-9), rel=0.05)
    falling = model.fit_link("test", [(4.0, 2, 1e-3), (4e6, 2, 1e-3), (4e7, 2, 5e-4)])
    assert min(falling.alpha, falling.beta, falling.gamma) >= 0


def test_ranks_that_share_a_core_are_predicted_to_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "cores", lambda: 2)
    known = {"steps": {"24k": STEP}, "links": {"machine": Link("test", 0.0, 0.0, 0.0)}}
    entry = {name: {"quiet": 8.0} for name in ("step", "compute", "exchange")}

    def rounds(ranks: int) -> list[list[dict[str, object]]]:
        return [[{"job": model.training("24k", 128, ranks), "result": entry}]]

    measured = {"machine": {str(ranks): rounds(ranks) for ranks in (1, 2, 4)}, "hosts": {}}
    predicted = {row["ranks"]: row["predicted"] for row in model.checks(measured, known)}
    assert predicted == {1: STEP.seconds(128), 2: STEP.seconds(64), 4: 2 * STEP.seconds(32)}


@pytest.mark.filterwarnings("ignore::handgrad.errors.HandgradWarning")  # random labels
def test_a_training_of_one_process_is_timed_without_exchange() -> None:
    result = ranks.train(ranks.Alone(), [8, 4, 2], batch=4, steps=8)
    assert result["exchange"] == {"min": 0, "quiet": 0, "median": 0}
    assert min(result[part]["min"] for part in ("step", "compute", "update")) > 0


@pytest.mark.skipif(os.name != "posix", reason="network namespaces of Linux")
def test_emulated_hosts_are_refused_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotAvailableError, match="only root"), Hosts(2, "1gbit"):
        pass
