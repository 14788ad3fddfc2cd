"""What the program prints: its own lines, on standard error, with the time in front."""

from __future__ import annotations

import logging
import re
import sys
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, highlighter=None)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(_escape_controls)
    return handler


def _escape_controls(record: logging.LogRecord) -> bool:
    """Show control characters, which names in a checkpoint or ids may hold, as escapes.

    A terminal would obey them: clear the screen, hide a line, ring.
    """
    record.msg, record.args = _CONTROLS.sub(_escaped, record.getMessage()), ()
    return True


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode("ascii")


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
