"""Code of others, such as a user's network: what it raises where an option does not fit it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifactgen.errors import ConfigError, printable, where_raised

RAISED = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    NameError,
    ImportError,
    SyntaxError,
    OSError,
)
"""What the code of others raises where an option does not fit it."""


def reason(error: Exception) -> str:
    """An error of the code of others in one line, with the place in it."""
    text = printable(str(error).partition("\n")[0][:300])
    frames = traceback.extract_tb(error.__traceback__)
    is_ours = frames and Path(frames[-1].filename).parent == Path(__file__).parent
    place = "" if is_ours or not frames else f", {where_raised(error)}"
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def attempt(doing: Callable[[], Any], refuse: Callable[[Exception], ConfigError]) -> Any:
    """Run code of others, its errors as one of ours."""
    try:
        return doing()
    except RAISED as error:
        raise refuse(error) from error
