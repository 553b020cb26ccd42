"""Tables of the benchmarks: computed correctly from results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import steps, tables
from benchmarks.peers import Case

MEASURED = {"threads": 1, "form": "", "examples_of_an_epoch": 60_000}


def test_table_aligns_columns() -> None:
    assert tables.table(("a", "b"), [("xyz", "1"), ("x", "10")]).splitlines() == [
        "| a   |  b |",
        "| --- | -: |",
        "| xyz |  1 |",
        "| x   | 10 |",
    ]


def test_between_replaces_only_the_marked_part() -> None:
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter"
    assert tables.between(text, {"a": "new"}) == "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nafter"
    with pytest.raises(ValueError, match="no place for b"):
        tables.between(text, {"b": "new"})


def test_flop_counts_the_products_of_a_step() -> None:
    # 784 x 30: forward and dW; 30 x 10: forward, dW and dx; a multiplication and an addition for each of 10 examples
    assert Case((784, 30, 10), 10, 1).flop == 2 * 10 * (2 * 784 * 30 + 3 * 30 * 10)


def test_ratios_compare_times_of_the_same_round() -> None:
    """The median of the ratios is 2, whereas the ratio of the medians is 1."""
    result = {
        "batch": 10,
        "flop_of_a_step": 1e6,
        "peak_flops": [1e9, 1e9, 1e9],
        "target_share": 0.5,
        "targets": {"torch": 3},
        "peers": {
            "handgrad": {**MEASURED, "step_seconds": [1e-3, 2e-3, 4e-3], "epoch_seconds": [1.0]},
            "torch": {**MEASURED, "step_seconds": [2e-3, 4e-3, 2e-3], "epoch_seconds": [3.0]},
        },
    }
    ours, theirs = ([*row] for row in steps.rows(result))
    assert ours[:5] == ["handgrad", "1", "2,000.0", "0.5", "50%"]
    assert ours[7:9] == ["50% of peak", "yes"]
    assert theirs[2] == "2,000.0"
    assert theirs[5:] == ["2.00", "0.80-2.00", "3", "no", "3", "3.00", "3.00-3.00"]


def test_chart_leaves_out_the_tasks_without_handgrad(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    torch = {**MEASURED, "step_seconds": [2e-3], "epoch_seconds": [3.0]}
    without = {"case": "784-30-10/10", "optimizer": "sgd", "peers": {"torch": torch}}
    steps.chart({"races": [without]}, tmp_path / "none.png")
    steps.chart({"races": [without, without | {"peers": {"handgrad": torch, "torch": torch}}]}, tmp_path / "one.png")
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
