"""Listings of records as files of the run, so that a job is light whatever their length."""

from __future__ import annotations

from dataclasses import replace

from artifactgen.data.base import SplitIndex
from artifactgen.data.listing import Listing
from artifactgen.job import Job
from artifactgen.store.atomic import write_bytes


def keep_listings(job: Job) -> Job:
    """The job with its listings in files below the output directory; call with the lock held."""
    splits = {name: _kept(job, name, index) for name, index in job.catalog.splits.items()}
    return replace(job, catalog=replace(job.catalog, splits=splits))


def _kept(job: Job, split: str, index: SplitIndex) -> SplitIndex:
    if not isinstance(index, Listing):
        return index
    path = job.layout.listing(split)
    write_bytes(path, index.content, temp_dir=job.layout.temp)
    return index.kept_at(path)
