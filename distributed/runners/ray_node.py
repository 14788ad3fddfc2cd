"""One node of a Ray in an allocation: `ray start` as a child that is watched."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distributed.runners.ports import RayPorts
from distributed.runners.ray_environment import ray_files, ray_variables

OBJECT_STORE_BYTES = 200 * 1024**2
"""Descriptors and receipts are all that passes through it."""
_QUIET_ABOUT_SIGNALS = 'trap "" USR1 USR2; exec "$@"'
"""SLURM's warning of the time limit goes to every process of a step, and would end Ray's."""
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a node gives to the cluster, and where it listens."""

    folder: Path
    """For its files: private, on this machine, and short."""
    name: str
    address: str
    """Of this node, without a port."""
    token: str
    workers: int
    """Logical cores: each worker takes one, so that workers are spread as they are meant to be."""
    gpus: int
    memory_mb: int | None
    ports: RayPorts = field(default_factory=lambda: RayPorts(range(0)))
    """They are found when it is started."""

    @property
    def output(self) -> Path:
        """What `ray start` prints."""
        return self.folder / "ray_start.log"


@contextmanager
def ray_node(
    options: NodeOptions, *, head: str | None, quiet: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node; it is ended with the block.

    Args:
        options: of the node.
        head: `host:port` of the head to join; None = to be the head.
        quiet: whether Ray's own log is cut to what is fatal.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    environment = _environment(ray_variables(options.folder, token=options.token, quiet=quiet))
    with options.output.open("ab") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _QUIET_ABOUT_SIGNALS, "sh", *command, *_flags(options, head)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )
    try:
        yield process
    finally:
        process.kill()  # its own children are ended with the folder, by their mark
        process.wait()


def last_words(options: NodeOptions) -> str:
    """The end of what `ray start` has printed."""
    try:
        lines = options.output.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_LINES:])


def _flags(options: NodeOptions, head: str | None) -> Iterator[str]:
    yield from (f"--address={head}",) if head else ("--head", "--include-dashboard=false")
    yield f"--node-ip-address={options.address}"
    yield f"--node-name={options.name}"
    yield from options.ports.flags(head=head is None, client=_has_client())
    yield f"--temp-dir={ray_files(options.folder)}"
    yield f"--num-cpus={options.workers}"
    yield f"--num-gpus={options.gpus}"
    yield f"--object-store-memory={OBJECT_STORE_BYTES}"
    if options.memory_mb:
        yield f"--memory={options.memory_mb * 1024**2}"
    yield "--disable-usage-stats"


def _has_client() -> bool:
    """Whether Ray's client is installed: without, `ray start` refuses its port."""
    return importlib.util.find_spec("grpc") is not None


def _environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
