"""One Ray over all nodes of a job, as the first rank leads it; see `ray_member` for the others."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from artifactgen.errors import LostNodeError, LostWorkersError, RunError
from artifactgen.types import Accelerator, Receipt, Task
from distributed.runners.base import RunnerOptions, Workers
from distributed.runners.place import TRIES, Place, node_name
from distributed.runners.ports import free_ports
from distributed.runners.ray_environment import TOKEN, ray_environment, ray_variables
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_node import NodeOptions, last_words, ray_node
from distributed.runners.rendezvous import POLL_S, Head, Pulse, RankState
from distributed.runners.watch import Watch
from distributed.slurm.requeue import Life
from distributed.versions import versions

if TYPE_CHECKING:
    from artifactgen.job import Job

log = logging.getLogger(__name__)

_HEAD_S = 60.0
_LEAVE_S = 3.0
_WATCH_S = 2.0
_NOTICE_S = 10.0
"""In which a rank notices that its Ray has ended."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Ray that this process leads."""

    place: Place
    options: NodeOptions
    process: subprocess.Popen[bytes]

    @property
    def nodes(self) -> int:
        return self.place.allocation.ranks

    def run(self, job: Job, tasks: Sequence[Task], workers: Workers) -> Iterator[Receipt]:
        """Do every task on all nodes; see `Runner.run`."""
        files, notes = self.options.folder, self.place.rendezvous.folder / "shards"
        notes.mkdir()
        address = f"{self.options.address}:{self.options.ports.head}"
        with ray_environment(ray_variables(files, token=TOKEN, quiet=self.place.quiet)):
            from distributed.runners.ray_data import run_on_ray
            from distributed.runners.ray_session import joined_ray

            with joined_ray(address, files=files, notes=notes) as ray:
                left = {task.shard: task for task in tasks}
                while left:
                    self._await_nodes(job, workers)
                    restarts = self._restarts()
                    try:
                        gpu_each = self.options.gpus > 0
                        todo = list(left.values())
                        for receipt in run_on_ray(job, todo, workers.count, ray, gpu_each=gpu_each):
                            del left[receipt.shard]
                            yield receipt
                    except LostWorkersError as error:
                        if not self._has_restarted(restarts):
                            self._require_nodes(error)
                            raise
                        log.warning("Ray was lost on a node, and is back: going on.")

    def complaints(self) -> list[str]:
        """What is wrong with the head."""
        if self.process.poll() is None:
            return []
        return [f"Ray's head has ended on {self.options.address}.\n{last_words(self.options)}"]

    def _restarts(self) -> int:
        return sum(state.restarts for state in self.place.rendezvous.ranks())

    def _has_restarted(self, before: int) -> bool:
        """Whether a node's Ray was started again, by which Ray Data loses what was there."""
        deadline = time.monotonic() + _NOTICE_S
        while self._restarts() == before and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return self._restarts() > before

    def _await_nodes(self, job: Job, workers: Workers) -> None:
        """Wait until every rank has joined, with what it was meant to have."""
        from distributed.runners.ray_session import living_nodes

        deadline = time.monotonic() + self.place.join_s
        while absent := self._absent(living_nodes()):
            if time.monotonic() > deadline:
                hosts = ", ".join(self.place.allocation.hosts()[rank] for rank in absent)
                raise RunError(f"{hosts}: did not join within {self.place.join_s:.0f} s.")
            time.sleep(POLL_S)
        log.info("Ray: all %d nodes have joined", self.nodes)
        for state in self.place.rendezvous.ranks():
            self._require_same(state, job, workers)

    def _require_nodes(self, error: LostWorkersError) -> None:
        """`LostNodeError` where workers were lost with their node."""
        if gone := self.place.watch(*range(1, self.nodes)).gone():
            raise LostNodeError("\n".join(gone)) from error

    def _absent(self, names: Sequence[str]) -> list[int]:
        """The ranks whose node is not among those that live."""
        restarts = {state.rank: state.restarts for state in self.place.rendezvous.ranks()}
        ranks = range(self.nodes)
        return [rank for rank in ranks if node_name(rank, restarts.get(rank, 0)) not in names]

    def _require_same(self, state: RankState, job: Job, workers: Workers) -> None:
        each = workers.count // self.nodes
        if state.device != job.device:
            raise RunError(
                f"{state.host} has {state.device}, and the run was planned for {job.device}: they "
                "round differently. Ask for nodes of one kind: hydra.launcher.constraint, or "
                "--constraint of sbatch."
            )
        if state.workers != each:
            raise RunError(
                f"{state.host} has devices for {state.workers} workers, and the first node for "
                f"{each}. Ask for the same on all: hydra.launcher.gpus_per_node."
            )


@contextmanager
def lead(
    place: Place, runner: RunnerOptions, accelerator: Accelerator, life: Life
) -> Iterator[Cluster]:
    """Start the head, tell the other ranks of it, and in the end tell them to leave.

    Raises:
        RunError: the head did not start; or, in the block, something is wrong with a rank.
        LostNodeError: a rank has fallen silent.
    """
    place.rendezvous.open()
    state = RankState(0, socket.gethostname())
    with ExitStack() as stack:
        others = place.allocation.ranks - 1
        stack.callback(place.rendezvous.close, others=others, wait_s=_LEAVE_S)
        pulse = stack.enter_context(Pulse(place.rendezvous, state).beating())
        folder = stack.enter_context(private_folder())
        devices = runner.devices(accelerator)
        node = place.node(folder, TOKEN, runner, devices)
        node, process = _start_head(stack, place, node)
        pulse.update(device=devices.name, workers=node.workers)
        head = f"{node.address}:{node.ports.head}"
        place.rendezvous.publish(Head(head, TOKEN, versions()))
        stack.callback(place.rendezvous.tell_end)  # before this node's own Ray ends
        log.info("Ray: its head is %s; waiting for %d nodes", head, place.allocation.ranks)
        cluster = Cluster(place, node, process)
        with _interrupted_by_complaints(cluster, life):
            yield cluster


def _start_head(
    stack: ExitStack, place: Place, node: NodeOptions
) -> tuple[NodeOptions, subprocess.Popen[bytes]]:
    """Start it; where a port was taken in the last moment, with others again."""
    for turn in range(TRIES):
        with ExitStack() as held:
            ports = held.enter_context(free_ports(wish=place.wish() + turn))
            node = replace(node, ports=ports)
            process = held.enter_context(ray_node(node, head=None, quiet=place.quiet))
            if _answers(process, node.address, ports.head):
                stack.enter_context(held.pop_all())
                return node, process
    raise RunError(f"Ray's head does not start on {node.address}.\n{last_words(node)}")


def _answers(process: subprocess.Popen[bytes], address: str, port: int) -> bool:
    """Whether the head can be reached; False where it has ended, or takes too long."""
    deadline = time.monotonic() + _HEAD_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


@contextmanager
def _interrupted_by_complaints(cluster: Cluster, life: Life) -> Iterator[None]:
    """Let what is wrong with a rank or the head end the block, which may wait for it forever.

    Where SLURM has warned this job, or ends all of its ranks, that others end is no news.
    """
    watch = cluster.place.watch(*range(1, cluster.nodes))
    looking = _Looking(watch, cluster, thread=threading.get_ident())
    looking.start()
    try:
        yield
    except KeyboardInterrupt:
        looking.stop()
        if life.is_warned:
            raise
        looking.report()
        if gone := watch.complaints() or watch.gone():
            raise RunError("\n".join(gone)) from None
        raise
    finally:
        looking.stop()


class _Looking:
    """A thread that interrupts another one when something is wrong."""

    def __init__(self, watch: Watch, cluster: Cluster, *, thread: int) -> None:
        self._watch, self._cluster, self._interrupted = watch, cluster, thread
        self._found: list[str] = []
        self._head_ended = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; what it has found stays."""
        self._stop.set()
        self._thread.join()

    def report(self) -> None:
        """Raise what it has found."""
        if self._found:
            kind = LostNodeError if self._watch.is_any_silent() else RunError
            raise kind("\n".join(self._found)) from None

    def _look(self) -> None:
        while not self._stop.wait(_WATCH_S):
            self._found = self._watch.complaints() or self._of_head()
            if self._found:
                signal.pthread_kill(self._interrupted, signal.SIGTERM)
                return

    def _of_head(self) -> list[str]:
        """What is wrong with the head, when it has been so for a while: SLURM may end us all."""
        complaints = self._cluster.complaints()
        self._head_ended = self._head_ended + 1 if complaints else 0
        return complaints if self._head_ended * _WATCH_S >= _NOTICE_S else []
