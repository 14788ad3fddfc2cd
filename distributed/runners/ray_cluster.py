"""One Ray over all nodes of a job: the first rank leads, the others lend it their node."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from artifactgen.errors import ArtifactGenError, RunError
from artifactgen.types import Accelerator, Receipt, Task
from distributed.runners.base import RunnerOptions, Workers
from distributed.runners.ports import free_ports
from distributed.runners.ray_environment import TOKEN, ray_environment, ray_variables
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_node import NodeOptions, last_words, ray_node
from distributed.runners.rendezvous import POLL_S, Head, Pulse, RankState, Rendezvous, Watch
from distributed.slurm.allocation import Allocation
from distributed.versions import differences, versions

if TYPE_CHECKING:
    from artifactgen.device import Devices
    from artifactgen.job import Job

log = logging.getLogger(__name__)

_TRIES = 3
"""Starts of a node's Ray, before it is given up."""
_HEAD_S = 60.0
_LEAVE_S = 3.0
_PATIENCE_S = 15.0
"""After SIGTERM, for the first rank to end in order, which a node without its Ray would disturb."""
_WATCH_S = 2.0
_NOTICE_S = 10.0
"""In which a rank notices that its Ray has ended."""
_PORTS_APART = 7
"""Between the wishes of neighbouring jobs, so that their ranks seldom meet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank stands: its job, and the files by which the ranks find each other."""

    allocation: Allocation
    rendezvous: Rendezvous
    join_s: float
    quiet: bool

    @classmethod
    def of(cls, allocation: Allocation, log_dir: Path, *, join_s: float) -> Place:
        """The place of this process."""
        rendezvous = Rendezvous.of_step(log_dir, allocation.step)
        return cls(allocation, rendezvous, join_s, not log.isEnabledFor(logging.DEBUG))

    def watch(self, *ranks: int) -> Watch:
        """Watch some of the ranks."""
        names = self.allocation.hosts()
        hosts = {rank: names[rank] for rank in ranks}
        return Watch(self.rendezvous, hosts, start_s=self.join_s)

    def wish(self) -> int:
        """Which block of ports to try first."""
        job = zlib.crc32(self.allocation.step.encode())
        return job * _PORTS_APART + self.allocation.rank


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
                    except RunError:
                        if not self._has_restarted(restarts):
                            raise
                        log.warning("Ray was lost on a node, and is back: going on.")

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
            if self.process.poll() is not None:
                raise RunError(f"Ray's head has ended.\n{last_words(self.options)}")
            if time.monotonic() > deadline:
                hosts = ", ".join(self.place.allocation.hosts()[rank] for rank in absent)
                raise RunError(f"{hosts}: did not join within {self.place.join_s:.0f} s.")
            time.sleep(POLL_S)
        log.info("Ray: all %d nodes have joined", self.nodes)
        for state in self.place.rendezvous.ranks():
            self._require_same(state, job, workers)

    def _absent(self, names: Sequence[str]) -> list[int]:
        """The ranks whose node is not among those that live."""
        restarts = {state.rank: state.restarts for state in self.place.rendezvous.ranks()}
        ranks = range(self.nodes)
        return [rank for rank in ranks if _node_name(rank, restarts.get(rank, 0)) not in names]

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
def lead(place: Place, runner: RunnerOptions, accelerator: Accelerator) -> Iterator[Cluster]:
    """Start the head, tell the other ranks of it, and in the end tell them to leave.

    Raises:
        RunError: the head did not start; or, in the block, something is wrong with a rank.
    """
    place.rendezvous.open()
    state = RankState(0, socket.gethostname())
    with ExitStack() as stack:
        stack.callback(place.rendezvous.close, wait_s=_LEAVE_S)
        pulse = stack.enter_context(Pulse(place.rendezvous, state).beating())
        folder = stack.enter_context(private_folder())
        devices = runner.devices(accelerator)
        node = _node_options(place, folder, TOKEN, runner, devices)
        node, process = _start_head(stack, place, node)
        pulse.update(device=devices.name, workers=node.workers)
        head = f"{node.address}:{node.ports.head}"
        place.rendezvous.publish(Head(head, TOKEN, versions()))
        log.info("Ray: its head is %s; waiting for %d nodes", head, place.allocation.ranks)
        with _interrupted_by_complaints(place.watch(*range(1, place.allocation.ranks))):
            yield Cluster(place, node, process)


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
    with Pulse(place.rendezvous, state).beating() as pulse, private_folder() as folder:
        try:
            _require_versions(head)
            devices = runner.devices(accelerator)
            node = _node_options(place, folder, head.token, runner, devices)
            pulse.update(device=devices.name, workers=node.workers)
            _stay(place, node, head, watch, pulse)
        except ArtifactGenError as error:
            pulse.update(error=str(error))
            raise
        finally:
            if watch.gone():
                place.rendezvous.remove_without(0, rank)
        pulse.leave()


def _stay(place: Place, node: NodeOptions, head: Head, watch: Watch, pulse: Pulse) -> None:
    """Keep this node's Ray up; one that ends is started again, some times."""
    rank = place.allocation.rank
    for turn in range(_TRIES):
        with free_ports(wish=place.wish() + turn) as ports, ExitStack() as stack:
            node = replace(node, ports=ports, name=_node_name(rank, turn))
            process = stack.enter_context(ray_node(node, head=head.address, quiet=place.quiet))
            pulse.update(restarts=turn)
            while process.poll() is None:
                if _is_over(place, watch):
                    return
                time.sleep(POLL_S)
        if _is_over(place, watch):
            return
        log.warning("Ray ended on this node (exit code %d). Starting it again.", process.returncode)
    raise RunError(f"Ray ended {_TRIES} times on this node.\n{last_words(node)}")


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


def _start_head(
    stack: ExitStack, place: Place, node: NodeOptions
) -> tuple[NodeOptions, subprocess.Popen[bytes]]:
    """Start it; where a port was taken in the last moment, with others again."""
    for turn in range(_TRIES):
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


def _node_options(
    place: Place, folder: Path, token: str, runner: RunnerOptions, devices: Devices
) -> NodeOptions:
    allocation = place.allocation
    return NodeOptions(
        folder=folder,
        name=_node_name(allocation.rank, 0),
        address=allocation.address(),
        token=token,
        workers=runner.count(devices),
        gpus=devices.gpus,
        memory_mb=allocation.memory_mb,
    )


def _node_name(rank: int, restarts: int) -> str:
    """The name of a node in Ray, which knows a dead one for a while."""
    return f"{rank}.{restarts}"


def _require_versions(head: Head) -> None:
    found = differences(head.versions, versions())
    if found:
        raise RunError(
            f"This node has other versions than the first one: {', '.join(found)}. All nodes need "
            "the same environment: install it on a file system that they share."
        )


@contextmanager
def _interrupted_by_complaints(watch: Watch) -> Iterator[None]:
    """Let what is wrong with other ranks end the block, which may wait for them forever."""
    found: list[str] = []
    stop, this_thread = threading.Event(), threading.get_ident()

    def look() -> None:
        while not stop.wait(_WATCH_S):
            found.extend(watch.complaints())
            if found:
                signal.pthread_kill(this_thread, signal.SIGTERM)
                return

    thread = threading.Thread(target=look, name="watch", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        # Where a rank ends with an error, SLURM may end this one at once.
        found = found or watch.complaints() or watch.gone()
        if found:
            raise RunError("\n".join(found)) from None
        raise
    finally:
        stop.set()
        thread.join()
