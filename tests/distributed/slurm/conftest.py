from __future__ import annotations

import os
import shutil

import pytest
from helpers.jobs import submit

__all__ = ["slurm", "submit"]


@pytest.fixture(scope="session")
def slurm() -> None:
    """A SLURM of two nodes. To be replaced by the one that the tests start themselves."""
    assert "SLURM_CONF" in os.environ
    assert shutil.which("sbatch")
