"""The files of examples/cluster: the program runs, the others are checked for syntax only."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from handgrad import load
from handgrad.cli import handgrad

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"


def check_command(words):
    """Parse the arguments after `handgrad`."""
    arguments = list(words[words.index("handgrad") + 1 :])
    context = click.Context(handgrad, info_name="handgrad", **handgrad.context_settings)
    name, command, arguments = handgrad.resolve_command(context, arguments)
    command.parse_args(click.Context(command, info_name=name, parent=context), list(arguments))


@pytest.mark.mpi
def test_the_program_trains_a_model(mpiexec, mnist, tmp_path):
    program = (CLUSTER / "train.py", "--epochs", 1, "--examples", 1000)
    done = mpiexec(2, "-m", "mpi4py", *program, cwd=tmp_path, HANDGRAD_DATA=str(mnist))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"2 processes: test accuracy \d\d\.\d\d%\n", done.stdout)
    assert load(tmp_path / "model.safetensors").n_out == 10
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_the_script_for_slurm_is_valid():
    text = (CLUSTER / "slurm.sh").read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    commands = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("srun")]
    assert len(commands) == 2
    for words in commands:
        check_command(words)


def test_the_job_for_kubernetes_is_valid():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    replicas = job["spec"]["mpiReplicaSpecs"]
    pods = {name: replica["template"]["spec"] for name, replica in replicas.items()}
    words = pods["Launcher"]["containers"][0]["command"]
    assert int(words[words.index("-n") + 1]) == replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"]
    check_command(words)
    for pod in pods.values():
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
