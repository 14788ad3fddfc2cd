"""The environment that Ray's processes need.

It must be set before Ray is imported, since Ray reads it then; so this file does not import Ray.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from distributed.runners.ray_janitor import MARK

TOKEN = secrets.token_hex(32)
"""One for each process: Ray reads it once. Without it, Ray writes one into the user's home."""


def ray_files(folder: Path) -> Path:
    """Where Ray is to keep its files: it opens that folder, and all in it, to every user.

    Nobody gets there through `folder`, which stays closed.
    """
    return folder / "r"


def ray_variables(folder: Path, *, token: str, quiet: bool) -> dict[str, str | None]:
    """The environment that Ray's processes need; None = what of the user's they must not see."""
    return {
        MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ADDRESS": None,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        # Else a call that comes after the end starts a Ray by itself.
        "RAY_ENABLE_AUTO_CONNECT": "0",
        # It looks at all of the node's memory, of which other jobs have their share.
        "RAY_memory_monitor_refresh_ms": "0",
        # How long a node goes on without its head.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        **({"RAY_BACKEND_LOG_LEVEL": "fatal"} if quiet else {}),
    }


@contextmanager
def ray_environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or take them out, for a block; what Ray adds goes with it."""
    before = _of_ray(os.environ)
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    for name in (name for name, value in variables.items() if value is None):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in _of_ray(os.environ):
            del os.environ[name]
        os.environ.update(before)


def _of_ray(environment: Mapping[str, str]) -> dict[str, str]:
    names = ("RAY_", MARK, "PYTHONBREAKPOINT")
    return {name: value for name, value in environment.items() if name.startswith(names)}
