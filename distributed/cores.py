"""How many CPU cores there are for us: one thread too many makes a run twice as long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def allowed_cores(cgroup: Path = _CGROUP) -> int:
    """CPU cores that this process may use: by its affinity, and by the quota of its container.

    A scheduler limits a job by affinity, a container by the time that it gets: `cpu.max` of
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu, or its two older files. Where SLURM
    binds nothing, it still says how many are meant for a task.
    """
    limits = [len(os.sched_getaffinity(0)), _quota(cgroup), _of_task(os.environ)]
    return max(1, int(min(limit for limit in limits if limit is not None)))


def _of_task(environment: Mapping[str, str]) -> int | None:
    """Cores of a task of SLURM; None outside of one, and where none were asked for."""
    cores = environment.get("SLURM_CPUS_PER_TASK", "")
    return int(cores) if "SLURM_PROCID" in environment and cores.isdecimal() else None


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that a control group gets; None where it has no limit."""
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text("ascii").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text("ascii").strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text("ascii")
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def threads_for(workers: int) -> int:
    """Threads of each of so many workers here: the allowed cores shared evenly.

    `OMP_NUM_THREADS` is a limit for each process that the user or a scheduler has set.
    """
    shared = max(1, allowed_cores() // workers)
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # may be a list, by nesting
    return min(shared, int(limit)) if limit.isdecimal() and int(limit) else shared
