"""Ports for the processes of a Ray: a block that nobody else on the machine has.

Ray's own defaults are the same for every Ray (https://github.com/ray-project/ray/issues/65444), and
what the kernel hands out at random it may hand out twice, between the question and the use.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifactgen.errors import RunError

_BLOCK = 200
_LOWEST, _LOWEST_OF_ALL = 10_000, 2_000
_FEW = 10
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class RayPorts:
    """Every port of one node of a Ray."""

    block: range
    """The first one is kept by us, as the lock of the block."""

    @property
    def head(self) -> int:
        """Where other nodes and the driver find the head."""
        return self.block[1]

    def flags(self, *, head: bool, client: bool) -> Iterator[str]:
        """The flags of `ray start`, each port named.

        Args:
            head: whether this node is the head.
            client: whether Ray has its client here, which listens as well.
        """
        names = ["node-manager", "object-manager", "dashboard-agent-listen", "dashboard-agent-grpc"]
        names += ["metrics-export", "runtime-env-agent"]
        names += ["ray-client-server"] if client else []
        names += ["dashboard"] if head else []
        yield from (f"--{n}-port={port}" for n, port in zip(names, self.block[2:], strict=False))
        yield f"--min-worker-port={self.block[10]}"
        yield f"--max-worker-port={self.block[-1]}"
        if head:
            yield f"--port={self.head}"


@contextmanager
def free_ports(*, wish: int) -> Iterator[RayPorts]:
    """Hold a block of ports for a while, below those that the kernel hands out.

    Args:
        wish: where to look first. Jobs and ranks wish for different blocks, so that two seldom try
            the same; where they do, binding the block's first port decides.

    Raises:
        RunError: all blocks are taken.
    """
    highest = int(_EPHEMERAL.read_text().split()[0])
    # Some sites let the kernel's own ports begin low; then those of services are near.
    lowest = _LOWEST if highest >= _LOWEST + _FEW * _BLOCK else _LOWEST_OF_ALL
    blocks = max((highest - lowest) // _BLOCK, 1)
    for turn in range(blocks):
        start = lowest + (wish + turn) % blocks * _BLOCK
        with ExitStack() as held:
            if _take(held, range(start, start + _BLOCK)):
                yield RayPorts(range(start, start + _BLOCK))
                return
    raise RunError(
        f"Ray needs {_BLOCK} free ports on {socket.gethostname()}, and between {lowest} and "
        f"{highest} there is no such block left. Are processes of former jobs still running?"
    )


def _take(held: ExitStack, block: range) -> bool:
    """Bind the first port for good, and see whether the others could be bound."""
    try:
        held.enter_context(_bound(block[0]))
        with ExitStack() as tried:
            for port in block[1:]:
                tried.enter_context(_bound(port))
    except OSError:
        return False
    return True


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("", port))
    except OSError:
        bound.close()
        raise
    return bound
