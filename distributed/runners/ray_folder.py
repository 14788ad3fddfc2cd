"""A folder for the files of a Ray, which goes away with the run, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artifactgen.errors import RunError
from distributed.runners import ray_janitor

_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
"""On this machine, and short: a socket's path has 107 bytes, of which Ray needs 64 for itself.
`TMPDIR` may be neither."""
_PREFIX = "artifactgen-ray-"
_JANITOR_S = 15.0


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder of this user alone; at the end Ray's processes are ended and it is removed.

    Where the run is killed, a janitor does so. Where the janitor is killed as well, the next run
    on this machine removes the folder.

    Raises:
        RunError: there is no place for it.
    """
    _remove_stale()
    folder, handle = _make()
    janitor = subprocess.Popen(
        [sys.executable, "-I", "-S", ray_janitor.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=(handle,),  # as long as it works the folder is not taken for a stale one
        start_new_session=True,  # a signal to the run's group must not end it
    )
    try:
        yield folder
    finally:
        assert janitor.stdin is not None
        janitor.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            janitor.wait(_JANITOR_S)
        os.close(handle)


def _make() -> tuple[Path, int]:
    """A folder, and a handle that locks it as long as this process lives."""
    for place in _PLACES:
        with suppress(OSError):
            while True:
                folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
                handle = os.open(folder, os.O_RDONLY)
                fcntl.flock(handle, fcntl.LOCK_EX)
                if folder.exists():  # else another run took it for a stale one
                    return folder, handle
                os.close(handle)
    raise RunError(
        f"Ray needs a folder on this machine, and none can be made in {', '.join(_PLACES)}.\n"
        "Make one of them writable, or set cluster=inline, which needs none."
    )


def _remove_stale() -> None:
    """Remove folders that no living process has locked."""
    for folder in (path for place in _PLACES for path in Path(place).glob(f"{_PREFIX}*")):
        with suppress(OSError):  # another user's, in use, or just gone
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)
