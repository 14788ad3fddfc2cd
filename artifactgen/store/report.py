"""What a run leaves for people and programs to read: the reports at the top of the output."""

from __future__ import annotations

import csv
import io
import platform
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifactgen.store.atomic import write_bytes, write_json
from artifactgen.store.layout import Layout
from artifactgen.store.manifest import concatenate
from artifactgen.store.text import storable
from artifactgen.types import Failure

_PACKAGES = (
    "artifactgen",
    "torch",
    "timm",
    "numpy",
    "h5py",
    "ray",
    "hydra-core",
    "opencv-python-headless",
)
_RETRY = "Once they are mended, the same command with `retry_failures=true` does them again."
_TOTALS = "records", "failures", "pictures", "picture_bytes", "halved_batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What was run, with what, and how long it took; plain types."""

    command: str
    configuration: Mapping[str, Any]
    settings: Mapping[str, Any]
    fingerprint: str
    checkpoint: Mapping[str, Any]
    """Path, sha256 and the audit of the load."""
    artifacts: Mapping[str, Mapping[str, Any]]
    """Kind to status and what was resolved: layer, classes, blocks."""
    first_look: Mapping[str, str]
    """Pixels and accuracy of some records, in words."""
    accuracy: Mapping[str, Mapping[str, Any]]
    """Split to right and all records, in all and by class, and a summary in words."""
    warnings: Sequence[str]
    """What looks wrong with the set-up."""
    empty_maps: Sequence[str]
    """Which maps are empty for every record, in words."""
    workers: int
    started: datetime
    seconds: Mapping[str, float]
    """Of the run by phase."""


def write_reports(
    layout: Layout,
    results: Mapping[str, Mapping[str, Any]],
    failures: Sequence[Failure],
    facts: RunFacts,
    *,
    classes: Sequence[str],
) -> None:
    """Write every report of a run whose splits are merged; `results` has one entry for each."""
    temp_dir = layout.temp
    write_json(layout.root / "classes.json", dict(enumerate_classes(classes)), temp_dir=temp_dir)
    concatenate(
        layout.manifest, [layout.scope(name).manifest for name in results], temp_dir=temp_dir
    )
    write_bytes(layout.root / "failures.csv", failures_csv(failures), temp_dir=temp_dir)
    report = run_report(results, facts)
    write_json(layout.root / "run.json", report, temp_dir=temp_dir)
    text = summary(report, failures)
    write_bytes(layout.root / "summary.md", storable(text).encode(), temp_dir=temp_dir)


def enumerate_classes(classes: Sequence[str]) -> Iterable[tuple[str, str]]:
    """(index, name) of each class, as JSON has them."""
    return ((str(index), name) for index, name in enumerate(classes))


def failures_csv(failures: Iterable[Failure]) -> bytes:
    """record_id, split, stage, error; UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["record_id", "split", "stage", "error"])
    writer.writerows([f.record_id, f.split, f.stage, f.reason] for f in failures)
    return storable(text.getvalue()).encode()


def run_report(results: Mapping[str, Mapping[str, Any]], facts: RunFacts) -> dict[str, Any]:
    """Everything of a run, in plain types."""
    totals = Counter(dict.fromkeys(_TOTALS, 0))
    stages: Counter[str] = Counter()
    for result in results.values():
        totals.update({key: result[key] for key in totals})
        stages.update(result["seconds"])
    computed_by = _computed_by(results)
    return {
        "command": facts.command,
        "started": facts.started.isoformat(timespec="seconds"),
        "seconds": dict(facts.seconds),
        "worker_seconds": {stage: round(seconds, 3) for stage, seconds in stages.items()},
        "counts": {**totals, "by_split": {k: _counts(v) for k, v in results.items()}},
        "artifacts": {name: dict(fact) for name, fact in facts.artifacts.items()},
        "accuracy": dict(facts.accuracy),
        "warnings": list(facts.warnings),
        "empty_maps": list(facts.empty_maps),
        "first_look": dict(facts.first_look),
        "checkpoint": dict(facts.checkpoint),
        "device": ", ".join(sorted({share["device"] for share in computed_by})),
        "computed_by": computed_by,
        "workers": facts.workers,
        "versions": {"python": platform.python_version(), **_versions()},
        "git_commit": _git_commit(),
        "fingerprint": facts.fingerprint,
        "settings": dict(facts.settings),
        "configuration": dict(facts.configuration),
    }


def _computed_by(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Device, host, shards and records, over all splits."""
    shares: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for share in (share for result in results.values() for share in result["computed_by"]):
        amounts = {"shards": share["shards"], "records": share["records"]}
        shares[share["device"], share["host"]].update(amounts)
    return [
        {"device": device, "host": host, **shares[device, host]} for device, host in sorted(shares)
    ]


def _counts(result: Mapping[str, Any]) -> dict[str, int]:
    return {key: result[key] for key in ("records", "failures", "pictures")}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Commit of the program's checkout, with `-dirty` where it was changed; None if installed."""
    git = shutil.which("git")
    home = Path(__file__).parents[2]
    if git is None or not (home / ".git").exists():
        return None
    command = [
        git,
        "-C",
        str(home),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def summary(report: Mapping[str, Any], failures: Sequence[Failure]) -> str:
    """The report for a person, as Markdown."""
    counts, checkpoint = report["counts"], report["checkpoint"]
    lines = [
        "# Artifacts",
        "",
        f"{counts['records']} records, {counts['failures']} failed, {counts['pictures']} pictures "
        f"({counts['picture_bytes'] / 1e6:.1f} MB), {report['seconds']['total']:.1f} s on "
        f"{report['device']} with {report['workers']} worker(s).",
        "",
        f"    {report['command']}",
        "",
        "| split | records | failed | pictures |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {split} | {row['records']} | {row['failures']} | {row['pictures']} |"
            for split, row in counts["by_split"].items()
        ),
        *_memory_line(counts["halved_batches"]),
        *_accuracy(report["accuracy"]),
        *_warnings((*report["warnings"], *report["empty_maps"])),
        "",
        "| device | host | shards | records |",
        "| --- | --- | ---: | ---: |",
        *(
            f"| {row['device']} | {row['host']} | {row['shards']} | {row['records']} |"
            for row in report["computed_by"]
        ),
        "",
        "| artifact | status | |",
        "| --- | --- | --- |",
        *(_artifact_line(name, fact) for name, fact in report["artifacts"].items()),
        "",
        f"Checkpoint `{checkpoint['path']}`, sha256 `{checkpoint['sha256']}`: "
        f"{checkpoint['summary']}",
        "",
        f"Pixels: {report['first_look']['pixels']}",
        "",
        "| stage | seconds of the workers |",
        "| --- | ---: |",
        *(f"| {stage} | {seconds:.1f} |" for stage, seconds in report["worker_seconds"].items()),
        "",
    ]
    if failures:
        lines += ["## Failed records", "", _RETRY, "", *(_failure_line(f) for f in failures[:50])]
        lines += [f"… and {len(failures) - 50} more, see failures.csv"] if failures[50:] else []
        lines.append("")
    return "\n".join(lines)


def _memory_line(halved_batches: int) -> list[str]:
    if not halved_batches:
        return []
    return ["", f"{halved_batches} batches were halved because memory on the device ran out."]


def _accuracy(accuracy: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"- {split}: {fact['summary']}" for split, fact in accuracy.items()]
    return ["", "Accuracy:", "", *lines] if lines else []


def _warnings(warnings: Sequence[str]) -> list[str]:
    if not warnings:
        return []
    return ["", "**Warnings**", "", *(f"- {warning.replace(chr(10), ' ')}" for warning in warnings)]


def _artifact_line(name: str, fact: Mapping[str, Any]) -> str:
    details = ", ".join(f"{key} {value}" for key, value in fact.items() if key != "status")
    return f"| {name} | {fact['status']} | {details} |"


def _failure_line(failure: Failure) -> str:
    return f"- `{failure.record_id}` ({failure.split}, {failure.stage}): {failure.reason}"
