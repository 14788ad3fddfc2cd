"""The errors that a user sees.

    ArtifactGenError            exit code 1
    ├── UsageError              exit code 2: found before any model work
    │   ├── ConfigError         an option is missing, unknown or contradicts another
    │   ├── DataError           the data set cannot be read as configured
    │   ├── CheckpointError     the checkpoint cannot be loaded or does not fit the model
    │   └── OutputError         the output directory cannot be used
    ├── RecordError             one record cannot be read; it becomes a `Failure`, the run goes on
    ├── UnsupportedError        a model cannot give this kind of artifact; the kind is skipped
    └── RunError                the run cannot be completed; it can be resumed

A message says what is wrong, where (file, record, key), why, and what to do about it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it, also to turn the direction of the text."""


class ArtifactGenError(Exception):
    """Root of every error that the program raises on purpose."""

    exit_code = 1


class UsageError(ArtifactGenError):
    """Wrong use, found before any model work."""

    exit_code = 2


class ConfigError(UsageError):
    """An option is missing, unknown, or contradicts another."""


class DataError(UsageError):
    """The data set cannot be read as configured."""


class CheckpointError(UsageError):
    """The checkpoint cannot be loaded, or does not fit the model."""


class OutputError(UsageError):
    """The output directory cannot be used."""


class RecordError(ArtifactGenError):
    """One record cannot be read. It becomes a `Failure`; the run goes on."""


class UnsupportedError(ArtifactGenError):
    """A model cannot give this kind of artifact. The kind is skipped, and every report says so."""


class RunError(ArtifactGenError):
    """The run cannot be completed. What is committed stays, and the run can be resumed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names what is nearest to `name` among `known`, or lists what there is.

    >>> did_you_mean("tset", ["train", "val", "test"])
    'Did you mean test?'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"Known: {', '.join(names[:12])}{more}."


def printable(text: str) -> str:
    r"""`text` on one line, with the control characters of a foreign file as `\x1b` or `\n`."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
