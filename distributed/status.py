"""`python -m distributed.status OUTPUT_DIR`: how far a run is, and its jobs on SLURM."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactgen.errors import ArtifactGenError, OutputError
from artifactgen.store.atomic import read_json
from artifactgen.store.layout import Layout, ScopeLayout
from artifactgen.store.lock import owner
from distributed.progress import duration
from distributed.slurm.overview import Overview, look


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one scope is."""

    name: str
    shards: int
    shards_done: int
    records: int
    records_done: int
    failures: int
    merged: bool
    first_commit: float
    """Seconds since the epoch."""
    last_commit: float

    def line(self) -> str:
        """`train: 12 of 64 shards, 3,072 of 16,384 records, 2 failed, 310.0 records/s, …`."""
        if self.merged:
            return f"{self.name}: complete, {self.records_done:,} records, {self.failures:,} failed"
        text = (
            f"{self.name}: {self.shards_done:,} of {self.shards:,} shards, "
            f"{self.records_done:,} of {self.records:,} records, {self.failures:,} failed"
        )
        seconds = self.last_commit - self.first_commit
        if self.shards_done < 2 or seconds <= 0:
            return text
        # The first commit starts the clock: what it took itself is not known.
        per_second = self.records_done * (1 - 1 / self.shards_done) / seconds
        left = (self.records - self.records_done) / per_second
        return f"{text}, {per_second:.1f} records/s, {duration(left)} left"


def read_progress(output_dir: Path) -> Iterator[Progress]:
    """Progress of every scope below an output directory.

    Raises:
        OutputError: the directory is not one of ours.
    """
    layout = Layout(output_dir)
    if not layout.state.is_dir():
        raise OutputError(f"{output_dir} is not an output directory of this program.")
    for plan in sorted((layout.state / "scopes").glob("*/plan.json")):
        yield _scope_progress(plan.parent.name, ScopeLayout(plan.parent))


def _scope_progress(name: str, scope: ScopeLayout) -> Progress:
    planned = read_json(scope.plan)
    entries = list(scope.ledger.glob("*.json"))
    done = [entry for entry in map(_read_entry, entries) if entry]
    times = [entry.stat().st_mtime for entry in entries] or [0.0]
    failures = sum(len(entry["failures"]) for entry in done)
    return Progress(
        name=name,
        shards=planned["shards"],
        shards_done=len(done),
        records=planned["records"],
        records_done=sum(entry["records"] for entry in done) + failures,
        failures=failures,
        merged=scope.result.exists(),
        first_commit=min(times),
        last_commit=max(times),
    )


def _read_entry(path: Path) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = read_json(path)
    except json.JSONDecodeError:
        return None
    return entry


def report(output_dir: Path) -> Iterator[str]:
    """What the command prints."""
    layout = Layout(output_dir)
    scopes = list(read_progress(output_dir))
    for scope in scopes:
        yield scope.line()
    only_records = bool(scopes) and all(scope.merged and "=" in scope.name for scope in scopes)
    complete = layout.success.exists() or only_records
    jobs = look(layout, complete=complete)
    yield from jobs.lines
    running = owner(layout.lock)
    if running:
        yield f"Running: {running}"
    elif complete:
        yield "Complete."
    else:
        yield _what_to_do(jobs)


def _what_to_do(jobs: Overview) -> str:
    if jobs.in_queue:
        who = f"job{'s' if jobs.in_queue[1:] else ''} {', '.join(jobs.in_queue)}"
        what = "are" if jobs.in_queue[1:] else "is"
        cancel = f"scancel {' '.join(jobs.in_queue)}"
        return f"Not complete: {who} {what} in the queue. To cancel: {cancel}"
    if not jobs.is_certain:
        return "Not complete. Unless a job is in the queue: run the same command again to resume."
    return "Not running, not complete: run the same command again to resume."


def main() -> None:
    """Print how far a run is."""
    parser = argparse.ArgumentParser(prog="python -m distributed.status", description=__doc__)
    parser.add_argument("output_dir", type=Path, help="output_dir of the run")
    try:
        sys.stdout.writelines(f"{line}\n" for line in report(parser.parse_args().output_dir))
    except ArtifactGenError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
