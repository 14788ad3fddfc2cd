"""What may pass, such as a file server that does not answer, is tried again after a while."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from artifactgen.errors import RunError

log = logging.getLogger(__name__)
Done = TypeVar("Done")

PAUSES_S = (3.0, 12.0)
"""Before each further try."""
_OF_THE_FILE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ELOOP"),
        *("ENAMETOOLONG", "EINVAL", "ENXIO", "EOVERFLOW", "EILSEQ"),
    )
)
"""Errors that are of one file, for good. All others are of the machine, its disks and its network,
and pass: ESTALE, EIO, ETIMEDOUT, EMFILE, ENOMEM, ECONNRESET, EHOSTDOWN and what else there is."""
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
"""What stays until somebody acts. ENOENT is not of them: what is missing may be mounted yet."""
_SHORTAGES = ("out of memory", "allocate memory", "start new thread")
"""What torch and Python call a shortage, in a `RuntimeError`."""


def patiently(do: Callable[[], Done], *, what: str) -> Done:
    """Do something, three times at most, with pauses.

    Args:
        do: what leaves nothing behind that its repetition would stumble over.
        what: what it is about, for messages: `Shard test-000001`.

    Raises:
        RunError: it failed as often as it is tried.
        Exception: what no repetition mends, at once; see `may_pass`.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return do()
        except (MemoryError, OSError, RuntimeError) as error:
            if not may_pass(error):
                raise
            reason = f"{what}: {type(error).__name__}: {error}".rstrip(": ")
            if pause_s is None:
                raise RunError(f"{reason}\nIt was tried {len(PAUSES_S) + 1} times.") from error
            log.warning("%s. Trying again in %g s.", reason, pause_s)
            time.sleep(pause_s)
    raise AssertionError


def may_pass(error: Exception) -> bool:
    """Whether an error is of the machine, its memory, its disks and its network, and for a while.

    A full disk or a missing right stay until somebody acts. A `RuntimeError` is a mistake in code
    or a broken device, which the same code meets again, unless it tells of a shortage.
    """
    if isinstance(error, RuntimeError):
        return any(shortage in str(error) for shortage in _SHORTAGES)
    return not (isinstance(error, OSError) and error.errno in _FINAL)


def is_of_the_machine(error: OSError) -> bool:
    """Whether the system refused to read a file for a reason that is not the file's own.

    Without a number an error is what a library says of the content.
    """
    return error.errno is not None and error.errno not in _OF_THE_FILE
