"""`--help` names every option of every group, as a command line takes it."""

from __future__ import annotations

import re

import pytest

from distributed.cli import _options as every_option
from distributed.usage import config_dir, usage

TEXT = usage()
LISTED = set(re.findall(r"^ *([\w.]+):(?: |$)", TEXT, re.M))


def test_every_option_is_listed() -> None:
    missing = {
        option
        for option in every_option()
        if not re.match(r"(hydra\.(?!launcher\.)|paths\.|experiment_name$)", option)
        # What is below a mapping is its value.
        and not any(option.startswith(f"{listed}.") for listed in LISTED)
    } - LISTED
    assert missing == set()


@pytest.mark.parametrize(
    "group", ["data", "model", "artifact", "page", "cluster", "hydra/launcher", "debug"]
)
def test_every_choice_of_a_group_is_named_with_what_it_is(group: str) -> None:
    files = list((config_dir() / group.removeprefix("hydra/")).glob("*.yaml"))
    assert files
    for file in files:
        assert re.search(rf"^{group}={file.stem}: [A-Z]", TEXT, re.M), file


def test_settings_of_a_job_are_listed_as_they_are_written() -> None:
    assert {"hydra.launcher.nodes", "hydra.launcher.timeout_min"} <= LISTED


def test_nothing_else_is_called_an_option() -> None:
    assert set(every_option()) >= LISTED


def test_lines_fit_a_wide_terminal() -> None:
    assert max(map(len, TEXT.splitlines())) <= 125
