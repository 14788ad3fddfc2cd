"""Every port of a node of Ray is chosen by us; two nodes on one machine share none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ray.scripts.scripts import start

from distributed.runners import ray_node
from distributed.runners.ports import RayPorts, free_ports
from distributed.runners.ray_environment import ray_variables
from distributed.runners.ray_node import NodeOptions, _environment, _flags, last_words

NODE = NodeOptions(
    folder=Path("/tmp/node"),
    name="0.0",
    address="192.0.2.7",
    token="secret",
    workers=3,
    gpus=2,
    memory_mb=1000,
    ports=RayPorts(range(10_000, 10_200)),
)
HEAD = "192.0.2.7:10001"
LEFT_OUT = {"--worker-port-list", "--redis-shard-ports"}
"""In place of the first and last worker port; of a Redis, which there is none of."""
OF_THE_HEAD = {"--port", "--dashboard-port"}


def given(options: NodeOptions, head: str | None) -> dict[str, str]:
    """The flags of a node, with what they are set to."""
    flags = [flag.partition("=") for flag in _flags(options, head)]
    names = [name for name, _, _ in flags]
    assert len(set(names)) == len(names)
    return {name: value for name, _, value in flags}


def known() -> set[str]:
    """The flags of `ray start`, also those that its `--help` hides."""
    return {flag for option in start.params for flag in option.opts}


def ports_of(flags: dict[str, str]) -> list[int]:
    """What a node listens on."""
    single = [int(v) for k, v in flags.items() if k.endswith("port") and "worker-port" not in k]
    workers = range(int(flags["--min-worker-port"]), int(flags["--max-worker-port"]) + 1)
    return [*single, *workers]


@pytest.mark.parametrize("head", [None, HEAD], ids=["head", "other"])
def test_every_port_that_this_ray_knows_is_chosen(
    monkeypatch: pytest.MonkeyPatch, head: str | None
) -> None:
    monkeypatch.setattr(ray_node, "_has_client", lambda: True)
    of_ports = {flag for flag in known() if "-port" in flag}
    assert "--node-manager-port" in of_ports
    expected = of_ports - LEFT_OUT - (OF_THE_HEAD if head else set())
    assert {flag for flag in given(NODE, head) if "-port" in flag} == expected


@pytest.mark.parametrize("head", [None, HEAD], ids=["head", "other"])
def test_this_ray_knows_every_flag(head: str | None) -> None:
    switches = {flag for option in start.params for flag in option.secondary_opts}
    assert set(given(NODE, head)) <= known() | switches


@pytest.mark.parametrize("head", [None, HEAD], ids=["head", "other"])
def test_ports_are_of_the_block_and_each_has_one_use(head: str | None) -> None:
    used = ports_of(given(NODE, head))
    assert len(set(used)) == len(used)
    assert set(used) < set(NODE.ports.block)
    assert NODE.ports.block[0] not in used, "the lock of the block"
    assert len(used) > 100, "workers are started anew, each with a port"


def test_two_nodes_on_one_machine_share_no_port() -> None:
    with free_ports(wish=3) as first, free_ports(wish=3) as second:
        used = ports_of(given(replace(NODE, ports=first), None))
        others = ports_of(given(replace(NODE, ports=second), HEAD))
    assert not set(used) & set(others)


def test_only_the_head_listens_for_others() -> None:
    head, other = given(NODE, None), given(NODE, HEAD)
    assert head["--port"] == str(NODE.ports.head)
    assert "--head" in head
    assert other["--address"] == HEAD
    assert not {"--head", "--port"} & set(other)


def test_a_ray_without_its_client_is_not_given_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "_has_client", lambda: False)
    assert "--ray-client-server-port" not in given(NODE, None)


def test_resources_are_those_of_the_allocation() -> None:
    flags = given(NODE, None)
    assert (flags["--num-cpus"], flags["--num-gpus"]) == ("3", "2")
    assert flags["--memory"] == str(1000 * 1024**2)
    assert "--memory" not in given(replace(NODE, memory_mb=None), None)


def test_the_secret_is_no_argument_and_the_users_ray_is_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arguments of a process can be read by every user of the machine."""
    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.7:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert not [flag for flag in _flags(NODE, None) if NODE.token in flag]
    environment = _environment(ray_variables(NODE.folder, token=NODE.token, quiet=True))
    assert environment["RAY_AUTH_TOKEN"] == NODE.token
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "RAY_ADDRESS" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_the_last_words_of_a_node(tmp_path: Path) -> None:
    node = replace(NODE, folder=tmp_path)
    assert last_words(node) == ""
    node.output.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(9)))
    assert last_words(node).splitlines() == [f"line {number} \ufffd" for number in range(4, 9)]
