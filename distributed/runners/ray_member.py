"""Every rank but the first: it lends its node to the Ray that the first one leads."""

from __future__ import annotations

import logging
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType

from artifactgen.errors import ArtifactGenError, RunError
from artifactgen.types import Accelerator
from distributed.runners.base import RunnerOptions
from distributed.runners.place import TRIES, Place, node_name
from distributed.runners.ports import free_ports
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_node import NodeOptions, last_words, ray_node
from distributed.runners.rendezvous import POLL_S, Head, Pulse, RankState
from distributed.runners.watch import Watch
from distributed.versions import differences, versions

log = logging.getLogger(__name__)

_PATIENCE_S = 15.0
"""After SIGTERM, for the first rank to end in order, which a node without its Ray would disturb."""


def serve(place: Place, runner: RunnerOptions, accelerator: Accelerator) -> None:
    """Join the head with this node, until the first rank tells the end.

    Raises:
        RunError: the first rank did not come or is gone, or Ray does not stay up here.
    """
    watch, rank = place.watch(0), place.allocation.rank
    _let_the_first_rank_decide(watch)
    while not _is_over(place, watch) and place.rendezvous.head() is None:
        time.sleep(POLL_S)
    head = place.rendezvous.head()
    if head is None:
        return
    state = RankState(rank, socket.gethostname())
    with Pulse(place.rendezvous, state).beating() as pulse:
        try:
            _require_versions(head)
            with private_folder() as folder:
                devices = runner.devices(accelerator)
                node = place.node(folder, head.token, runner, devices)
                pulse.update(device=devices.name, workers=node.workers)
                _stay(place, node, head, watch, pulse)
        except (ArtifactGenError, OSError) as error:
            pulse.update(error=str(error))
            raise
        finally:
            if watch.gone():
                place.rendezvous.remove_without(0, rank)
        pulse.leave()


def _stay(place: Place, node: NodeOptions, head: Head, watch: Watch, pulse: Pulse) -> None:
    """Keep this node's Ray up; one that ends is started again, some times."""
    rank = place.allocation.rank
    for turn in range(TRIES):
        with free_ports(wish=place.wish() + turn) as ports, ExitStack() as stack:
            node = replace(node, ports=ports, name=node_name(rank, turn))
            process = stack.enter_context(ray_node(node, head=head.address, quiet=place.quiet))
            pulse.update(restarts=turn)
            while not _is_over(place, watch):
                # After SIGTERM, which SLURM sends to Ray as well, only the end is waited for.
                if process.poll() is not None and not watch.is_leaving:
                    break
                time.sleep(POLL_S)
            else:
                return
        log.warning("Ray has ended on this node (exit code %d).", process.returncode)
    raise RunError(f"Ray ended {TRIES} times on this node.\n{last_words(node)}")


def _let_the_first_rank_decide(watch: Watch) -> None:
    """Only its exit code counts: SLURM ends all ranks as soon as one leaves with another than 0."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        watch.leave_by = min(watch.leave_by, time.monotonic() + _PATIENCE_S)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _is_over(place: Place, watch: Watch) -> bool:
    """Whether the first rank has told the end; `RunError` where it is gone without a word."""
    if time.monotonic() > watch.leave_by:
        return True
    if place.rendezvous.is_done() or (watch.has_begun(0) and not place.rendezvous.is_there()):
        return True
    if complaints := watch.complaints():
        raise RunError(f"{complaints[0]} This rank leaves.")
    return False


def _require_versions(head: Head) -> None:
    found = differences(head.versions, versions())
    if found:
        raise RunError(
            f"This node has other versions than the first one: {', '.join(found)}. All nodes need "
            "the same environment: install it on a file system that they share."
        )
