"""The fixtures of SLURM, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from helpers.jobs import submit
from helpers.linux_user import other_user
from helpers.site import site
from helpers.slurm import slurm, slurm_is_installed

__all__ = ["other_user", "site", "slurm", "slurm_is_installed", "submit"]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Whatever uses a SLURM has its marker: jobs of two sessions would wait for each other."""
    for item in items:
        if isinstance(item, pytest.Function) and "slurm_is_installed" in item.fixturenames:
            item.add_marker(pytest.mark.slurm)
