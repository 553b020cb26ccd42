"""handgrad check, profile and show-augmentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from handgrad.diagnostics import plots


def test_check_prints_a_table_and_exits_with_0(tmp_path: Path, run) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 0
    header, *rows, last = done.stdout.splitlines()
    assert header.split() == ["gradient", "error"]
    assert all(row.endswith("ok") for row in rows)
    assert last == f"all {len(rows)} gradient checks passed (relative error <= 1e-6)"
    assert len(rows) > 100
    assert sum(row.startswith("HOG dx") for row in rows) == 3


@pytest.mark.parametrize(("recipe", "first"), [("post", "0 Dense forward"), ("minute", "0 HOG forward")])
def test_profile_leaves_out_hog_if_a_training_computes_it_once(invoke, recipe, first) -> None:
    options = ("--recipe", recipe, "--hog", "3", "--hidden", "9", "--batch-size", "4", "--seconds", "0", "--json")
    code, output, errors = invoke("profile", *options)
    assert (code, errors) == (0, "")
    assert json.loads(output.splitlines()[0])["name"] == first


def test_check_exits_with_1_at_the_first_wrong_gradient(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from handgrad.layers import Tanh\n"
        "from handgrad.cli import handgrad\n"
        "correct = Tanh.backward\n"
        "Tanh.backward = lambda self, da: correct(self, da) * 1.001\n"
        "handgrad(['check'])\n"
    )
    done = subprocess.run(
        [sys.executable, "wrong.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("WRONG")
    assert re.fullmatch(
        r"handgrad: the gradient Tanh dx, batch 1 is wrong: relative error 1\.0e-03 > 1e-6\n", done.stderr
    )


def test_profile_prints_a_table_of_the_parts_of_a_step(tmp_path: Path, run) -> None:
    settings = ("--hidden", "8,6", "--activation", "relu,tanh", "--loss", "cross_entropy")
    settings += ("--init", "lecun", "--optimizer", "adam", "--batch-size", 7, "--seconds", 0)
    done = run("profile", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    network, training, others, header, *rows, total, between, step, rate = done.stdout.splitlines()
    assert "[784, 8, 6, 10]" in network
    assert "batch size 7" in training
    assert others == "also: init lecun"
    assert re.split(r"\s{2,}", header) == ["part", "time us", "% of step", "floor us", "time/floor"]
    assert [row[:32].strip() for row in rows] == [
        *("0 Dense forward", "1 ReLU forward", "2 Dense forward", "3 Tanh forward", "4 Dense forward"),
        *("CrossEntropy backward", "4 Dense backward", "3 Tanh backward", "2 Dense backward"),
        *("1 ReLU backward", "0 Dense backward", "Adam update"),
    ]
    assert total.startswith("sum of the parts")
    assert between.startswith("between the parts (Python)")
    assert step.split()[:2] == ["complete", "step"]
    assert step.endswith("100.0%")
    assert "examples/s" in rate
    assert not list(tmp_path.iterdir())


def test_profile_with_json_prints_only_json(tmp_path: Path, run) -> None:
    done = run("profile", "--seconds", 0, "--json", cwd=tmp_path)
    *parts, step = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(parts) == 8
    assert sum(part["floor"] for part in parts) == pytest.approx(step["floor"])
    assert step["flops_per_second"] * step["step"] == pytest.approx(sum(part["flops"] for part in parts))


def test_show_augmentation_names_the_settings_and_says_whether_the_images_are_deskewed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    titles = []
    monkeypatch.setattr(plots, "augmentation_grid", lambda *_, title: titles.append(title))
    arguments = ("show-augmentation", "--data", data, "--rotation", 20, "--shift", 0, "--out", tmp_path / "grid.png")
    assert invoke(*arguments, "--no-deskew")[0] == 0
    assert invoke(*arguments, "--deskew")[0] == 0
    assert ["deskewed" in title for title in titles] == [False, True]
    assert all("minute: rotation 20, scale 0.1, elastic 1.2" in title for title in titles)


def test_show_augmentation_plots_the_augmentation_of_a_recipe(data: Path, tmp_path: Path, invoke) -> None:
    out = tmp_path / "augmented.png"
    arguments = ("show-augmentation", "--recipe", "post", "--rotation", 20, "--elastic", 1, "--data", data)
    code, output, errors = invoke(*arguments, "--digits", 3, "--out", out)
    assert code == 0, errors
    assert output == f"3 images of {data.name}, each with 11 augmented versions of recipe post: {out}\n"
    first = out.read_bytes()
    with Image.open(out) as plot:
        assert len(plot.convert("L").getcolors(1 << 16) or []) > 20
    assert invoke(*arguments, "--digits", 3, "--out", out)[0] == 0
    assert out.read_bytes() == first
    assert invoke(*arguments, "--digits", 3, "--seed", 1, "--out", out)[0] == 0
    assert out.read_bytes() != first
    assert invoke(*arguments, "--deskew", "--shrink", 2, "--out", out)[0] == 0
    code, _, errors = invoke(*arguments, "--out", tmp_path / "missing" / "augmented.png")
    assert (code, errors.count("\n")) == (2, 1)
