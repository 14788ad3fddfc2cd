"""What the program prints: its own lines, on standard error, with the time in front."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler

_OURS = ("artifactgen", "distributed")
_log = logging.getLogger("distributed")


def log_to_stderr() -> None:
    """Send our own lines to standard error; other libraries keep to their warnings."""
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers = [_handler()]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    sys.excepthook = _last_words


def _handler() -> logging.Handler:
    console = Console(stderr=True)
    if console.is_terminal:
        return RichHandler(console=console, show_path=False, show_level=False, highlighter=None)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def show_tracebacks() -> None:
    """From now on errors come with their traceback."""
    _log.setLevel(logging.DEBUG)


def log_error(message: str) -> None:
    """Print an error; with the traceback of the exception at hand where that was asked for."""
    _log.error(message, exc_info=_log.isEnabledFor(logging.DEBUG))


def _last_words(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """For what nobody expected: one line, and how to see more."""
    if _log.isEnabledFor(logging.DEBUG):
        sys.__excepthook__(kind, error, traceback)
    else:
        _log.error(
            "%s: %s\nWhat is done stays done; the same command resumes. "
            "Add debug=true for the traceback.",
            kind.__name__,
            error,
        )
