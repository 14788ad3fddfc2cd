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
        ├── NoProgressError     it would not get further the next time
        ├── LostWorkersError    workers died, more often than they are retried
        └── LostNodeError       a machine of the run does not answer any more

    KeyboardInterrupt
    └── RequeuedError           exit code 75: a scheduler will start the run again

A message says what is wrong, where (file, record, key), why, and what to do about it.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


class NoProgressError(RunError):
    """The run cannot be completed as it is: the same command again would not get further."""


class LostWorkersError(RunError):
    """Workers were lost with what they were at; where their machine is back, others go on."""


class LostNodeError(RunError):
    """A machine of the run does not answer any more."""


class RequeuedError(KeyboardInterrupt):
    """A scheduler will start the run again: this process is to end, and nobody has to act."""


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


@contextmanager
def forbid_exit(who: str, doing: str, raised: type[ArtifactGenError]) -> Iterator[None]:
    """Make an error of a `sys.exit` in the block, which would end the run as if it were complete.

    Around code that is not ours, and never around a `yield`, where `GeneratorExit` is in order.

    Args:
        who: whose code it is.
        doing: what it does here: `reading rows 4 to 6 of test`.
        raised: the error.
    """
    try:
        yield
    except (SystemExit, GeneratorExit) as ending:
        code = ending.code if isinstance(ending, SystemExit) else None
        what = f"called sys.exit({'' if code is None else repr(code)})"
        if isinstance(ending, GeneratorExit):
            what = "raised GeneratorExit"
        raise raised(f"{who} {what} while {doing} ({where_raised(ending)}).") from ending


def where_raised(error: BaseException, *, module: str | None = None) -> str:
    """File and line that an error comes from: `my_source.py, line 12`.

    Args:
        error: as it was caught.
        module: file to look for first; the line that called what failed is more telling there.
    """
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if f.filename == module), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"
