"""The fixtures of SLURM, for the tests of this folder."""

from __future__ import annotations

from helpers.jobs import submit
from helpers.linux_user import other_user
from helpers.site import site
from helpers.slurm import slurm, slurm_is_installed

__all__ = ["other_user", "site", "slurm", "slurm_is_installed", "submit"]
