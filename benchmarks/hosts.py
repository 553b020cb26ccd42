"""Emulated hosts: network namespaces of Linux with their own host names and network cards, and a limited data rate.

    with Hosts(4, "1gbit") as hosts:
        hosts.mpiexec(4, [sys.executable, "-m", "benchmarks.ranks", jobs])

A host is a network namespace with one end of a virtual cable. The other ends are ports of a bridge, the switch. A token
bucket limits what a host sends. All hosts use the cores and the memory of this machine. Only root may make namespaces,
and the commands `ip` and `tc` (Debian: iproute2) and `unshare` (util-linux) must be installed. The `with` block removes
everything at its end; `python -m benchmarks.hosts --remove` removes what a killed program has left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NAME = "handgrad"
BRIDGE = "hgbridge"
NETWORK = "10.231.7"
MAX_HOSTS = 8
# MPICH starts the ranks of a host with `ssh HOST COMMAND`. This program takes the place of ssh.
REMOTE = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case "$1" in -o|-p|-l) shift;; esac; shift; done
host=$1; shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; cd '%(directory)s'; $*"
"""


class NotAvailableError(Exception):
    """Emulated hosts are not possible on this machine."""


class Hosts:
    """Emulated hosts that exist during a `with` block.

    Parameters
    ----------
    count : int
        Number of hosts.
    rate : str
        Data rate that each of them can send, in the notation of `tc`: "1gbit".

    Raises
    ------
    NotAvailableError
        When the `with` block begins, if the user is not root, or a command or a permission is missing.
    """

    def __init__(self, count: int, rate: str) -> None:
        if not 1 <= count <= MAX_HOSTS:
            raise ValueError(f"expected 1 to {MAX_HOSTS} hosts, got {count}")
        self.names = [f"{NAME}{i}" for i in range(1, count + 1)]
        self.rate = rate

    def __enter__(self) -> Hosts:
        if os.name != "posix" or os.geteuid() != 0:
            raise NotAvailableError("only root can make network namespaces")
        for command in ("ip", "tc", "unshare", "mpiexec"):
            if shutil.which(command, path=search_path()) is None:
                raise NotAvailableError(f"the command {command} is not installed")
        self.directory = Path(tempfile.mkdtemp())
        try:
            self._create()
        except subprocess.CalledProcessError as error:
            self._remove()
            raise NotAvailableError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _create(self) -> None:
        addresses = {name: f"{NETWORK}.{i}" for i, name in enumerate(self.names, 1)}
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        for i, (name, address) in enumerate(addresses.items(), 1):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"hgport{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"hgport{i}", "master", BRIDGE, "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            # What exceeds the rate waits, except for a burst. A large burst would let small messages pass unlimited.
            run("ip", "-n", name, "link", "set", "eth0", "gso_max_size", "16384")
            limit = f"root tbf rate {self.rate} burst 20kb latency 20ms"
            run("tc", "-n", name, "qdisc", "add", "dev", "eth0", *limit.split())
            names = Path("/etc/netns") / name / "hosts"  # `ip netns exec` shows it as /etc/hosts
            names.parent.mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
            names.write_text("\n".join(lines) + "\n")
        self.remote = self.directory / "remote"
        self.remote.write_text(REMOTE % {"directory": Path.cwd()})
        self.remote.chmod(0o755)

    def _remove(self) -> None:
        remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def mpiexec(self, count: int, command: Sequence[str], **options: Any) -> str:
        """Run a command with one rank on each of the first hosts, and return its output."""
        launch = ["mpiexec", "-launcher", "ssh", "-launcher-exec", str(self.remote), "-ppn", "1", "-n", str(count)]
        launch += ["-hosts", ",".join(self.names[:count]), *command]
        environment = {**os.environ, "PATH": search_path(), "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0"}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        first = ["ip", "netns", "exec", self.names[0], "unshare", "--uts", "sh", "-c"]
        first += ['hostname "$0"; exec "$@"', self.names[0]]
        done = subprocess.run(
            [*first, *launch], capture_output=True, text=True, check=False, env=environment, **options
        )
        if done.returncode:
            raise RuntimeError(f"mpiexec ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout


def search_path() -> str:
    """Return PATH with the directory of this Python first, where a wheel of MPI puts mpiexec."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def run(*command: str) -> None:
    """Run a command, and raise CalledProcessError if it fails."""
    environment = {**os.environ, "PATH": search_path()}
    subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def remove() -> None:
    """Remove all emulated hosts and the bridge."""
    environment = {**os.environ, "PATH": search_path()}
    for i in range(1, MAX_HOSTS + 1):
        if Path(f"/run/netns/{NAME}{i}").exists():
            subprocess.run(["ip", "netns", "delete", f"{NAME}{i}"], capture_output=True, check=False, env=environment)
        shutil.rmtree(f"/etc/netns/{NAME}{i}", ignore_errors=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False, env=environment)


if __name__ == "__main__":
    if sys.argv[1:] != ["--remove"]:
        sys.exit("python -m benchmarks.hosts --remove: remove the emulated hosts that a killed program has left")
    remove()
