"""`data=auto`: what a path is, and the command that reads it; answered before Hydra composes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NoReturn

from artifactgen.errors import ConfigError, DataError
from distributed.usage import PROGRAM

_PLACES = ("data.path=", "data.root=")
_NEEDED = {"experiment": "<name>", "ckpt_path": "<file>"}


def tell_data(arguments: Sequence[str]) -> NoReturn:
    """Say what the data is.

    It needs no experiment and no checkpoint, which the command that it names does.

    Raises:
        ConfigError: always: it is an answer, and no run.
        DataError: there is nothing at the path.
    """
    from artifactgen.data.auto import answer  # needs pyarrow, and others do not need it

    paths = [a.partition("=")[2].strip("'\"") for a in arguments if a.startswith(_PLACES)]
    if not paths:
        raise ConfigError("data=auto looks at data.path=…, a file or a folder; it is not set.")
    try:
        text = answer(paths[-1], _command(arguments))
    except OSError as error:
        raise DataError(f"{error.filename or paths[-1]}: {error.strerror or error}.") from error
    raise ConfigError(text)


def _command(arguments: Sequence[str]) -> str:
    """What was typed, without the data, and with what a run needs besides."""
    rest = [a for a in arguments if a != "data=auto" and not a.startswith(_PLACES)]
    given = {argument.partition("=")[0] for argument in rest}
    needed = [f"{key}={value}" for key, value in _NEEDED.items() if key not in given]
    return " ".join([PROGRAM, *map(shlex.quote, rest), *needed])
