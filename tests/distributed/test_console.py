from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import pytest

from distributed.console import log_to_stderr


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    """What reaches the terminal."""
    logger = logging.getLogger("distributed")
    handlers = logger.handlers
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        log_to_stderr()
        yield stream
    logger.handlers = handlers


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("bell\a and back\b", r"bell\x07 and back\x08"),
        ("over\rwritten", r"over\rwritten"),
        ("C1 \x9b2J", r"C1 \x9b2J"),
        ("two\nlines, a\ttab, é", "two\nlines, a\ttab, é"),
    ],
)
def test_control_characters_of_names_do_not_reach_the_terminal(
    told: io.StringIO, name: str, shown: str
) -> None:
    logging.getLogger("distributed").info("Missing: %s", name)
    assert told.getvalue().endswith(f"Missing: {shown}\n")
