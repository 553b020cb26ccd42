"""handgrad data."""

from __future__ import annotations

from pathlib import Path


def test_data_lists_the_locations_without_mnist(tmp_path: Path, run) -> None:
    done = run("data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'cache/handgrad/MNIST/raw'}: not found\n" in done.stdout
    assert all(line.endswith(": not found") for line in done.stdout.splitlines())


def test_verify_exits_with_1_without_mnist(tmp_path: Path, run) -> None:
    done = run("data", "verify", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "handgrad: no complete copy of MNIST was found: run handgrad data fetch\n"


def test_verify_names_the_copy_with_matching_checksums(mnist: Path, tmp_path: Path, run) -> None:
    done = run("data", "verify", cwd=tmp_path, HANDGRAD_DATA=str(mnist))
    assert (done.returncode, done.stdout) == (0, f"{mnist}: OK, SHA-256 checksums match\n"), done.stderr


def test_fetch_copies_mnist_from_a_directory_into_the_cache(mnist: Path, tmp_path: Path, run) -> None:
    done = run("data", "fetch", "--from", mnist, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run("data", "verify", cwd=tmp_path).stdout.startswith(str(tmp_path / "cache"))
