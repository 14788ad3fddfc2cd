"""Blocks of ports: nobody else's, below the kernel's own, and free again afterwards."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from artifactgen.errors import RunError
from distributed.runners import ports
from distributed.runners.ports import free_ports

WISH = 11
HOLD = """
import sys
from distributed.runners.ports import free_ports
with free_ports(wish=int(sys.argv[1])) as ports:
    print(ports.block.start, flush=True)
    sys.stdin.read()
"""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


@contextmanager
def other_process(wish: int) -> Iterator[int]:
    """Another process that holds a block: its first port."""
    command = [sys.executable, "-c", HOLD, str(wish)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate(timeout=30)


@pytest.fixture
def only_two_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where the kernel's own range begins early; away from the blocks of running jobs."""
    with free_ports(wish=WISH) as found, free_ports(wish=WISH + 1) as next_one:
        start = found.block.start
        assert next_one.block.start == start + len(found.block), "neighbours, or choose another"
    (tmp_path / "range").write_text(f"{start + 2 * len(found.block)}\t60999\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    monkeypatch.setattr(ports, "_LOWEST", start)
    monkeypatch.setattr(ports, "_FEW", 1)


def test_a_block_lies_below_what_the_kernel_hands_out() -> None:
    lowest_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for wish in (0, 1, 2**32):
        with free_ports(wish=wish) as found:
            assert found.block.start > 1024
            assert found.block.stop <= lowest_of_kernel
            assert found.head in found.block


def test_the_first_port_is_the_lock_of_its_block() -> None:
    with free_ports(wish=WISH) as found:
        assert not is_free(found.block[0])
        assert all(map(is_free, found.block[1:]))
    assert is_free(found.block[0])


def test_an_error_frees_it_as_well() -> None:
    with pytest.raises(KeyError), free_ports(wish=WISH) as found:
        raise KeyError
    assert is_free(found.block[0])


def test_two_processes_with_the_same_wish_get_different_blocks() -> None:
    with other_process(WISH) as first, other_process(WISH) as second, free_ports(wish=WISH) as own:
        assert len({first, second, own.block.start}) == 3
        assert not {first, second} & set(own.block)


def test_a_block_is_passed_over_where_one_of_its_ports_is_in_use(only_two_blocks: None) -> None:
    with free_ports(wish=0) as first:
        pass
    with socket.socket() as others:
        others.bind(("", first.block[77]))
        with free_ports(wish=0) as second:
            assert second.block.start == first.block.stop


def test_where_all_blocks_are_taken_it_is_said(only_two_blocks: None) -> None:
    with ExitStack() as held:
        starts = {held.enter_context(free_ports(wish=9)).block.start for _ in range(2)}
        assert len(starts) == 2
        with pytest.raises(RunError, match=r"Ray needs 200 free ports on .*no such block left"):
            held.enter_context(free_ports(wish=9))


def test_where_the_kernels_own_ports_begin_low_blocks_lie_below_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("9000\t65500\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    with free_ports(wish=0) as first, free_ports(wish=0) as second:
        assert first.block.start != second.block.start
        assert max(first.block[-1], second.block[-1]) < 9000
