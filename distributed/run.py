"""What a run is: its settings, what goes into it, and its plan. This file needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from artifactgen.clock import Clock
from artifactgen.errors import ConfigError, OutputError
from artifactgen.plan import Scope, plan_records, plan_splits
from artifactgen.store.atomic import read_json
from artifactgen.store.layout import REPORTS, Layout
from artifactgen.store.ledger import recorded
from artifactgen.store.output import difference_to, refuse_other_settings
from artifactgen.store.results import merged
from artifactgen.types import Receipt
from distributed.inputs import CONTENT, Inputs, plain
from distributed.request import Request
from distributed.runners.base import Runner
from distributed.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """One command, and everything that is known of it without a model."""

    settings: Settings
    inputs: Inputs
    runner: Runner
    request: Request
    scopes: tuple[Scope, ...]
    clock: Clock

    @property
    def layout(self) -> Layout:
        return Layout(self.settings.output_dir.absolute())

    def result(self, scope: str) -> dict[str, Any] | None:
        """What a scope was merged to with these settings; None where that is still to be done."""
        return merged(self.layout, scope, fingerprint=self.inputs.fingerprint)

    def is_open(self, scope: str) -> bool:
        """Whether a scope is still to be done, or has failures that are to be done again."""
        result = self.result(scope)
        return result is None or (self.settings.retry_failures and result["failures"] > 0)

    def open_scopes(self) -> list[Scope]:
        """What is still to be merged."""
        return [scope for scope in self.scopes if self.is_open(scope.name)]

    def is_mended(self) -> bool:
        """Whether the same records hold other bytes now, which `retry_failures` is there for.

        Not where shards were never done: they would be read from the new bytes, and one directory
        would hold artifacts of both. A retry that was interrupted leaves none such.
        """
        if not any(map(_is_of_content, difference_to(self.layout, self.inputs.deciding))):
            return False
        return self.settings.retry_failures and not self._undone() and self._has_failures()

    def recorded(self, scope: Scope) -> Iterator[Receipt]:
        """The receipts of the shards that were done, whatever became of their files."""
        return recorded(self.layout, scope.name, scope.shards, fingerprint=self.inputs.fingerprint)

    def _undone(self) -> int:
        """How many shards were never done."""
        return sum(len(s.shards) - sum(1 for _ in self.recorded(s)) for s in self.scopes)

    def _has_failures(self) -> bool:
        return any(receipt.failures for s in self.scopes for receipt in self.recorded(s))

    def changes(self) -> list[str]:
        """How the settings differ from those that made what is there, where it may be replaced.

        Raises:
            OutputError: they differ, and it may not.
        """
        changes = difference_to(self.layout, self.inputs.deciding)
        if any(map(_is_of_content, changes)):
            changes = [line for line in changes if not _is_of_content(line)]
            if not self.is_mended():
                changes.append(self._other_content())
        if changes and not self.settings.overwrite:
            refuse_other_settings(self.layout, changes)
        if changes and self.settings.record_id:
            raise OutputError(
                "overwrite=true with record_id would remove the artifacts of all other records. "
                "Give another output_dir."
            )
        return changes

    def _other_content(self) -> str:
        advice = ""
        if undone := self._undone():
            left = "1 shard is" if undone == 1 else f"{undone} shards are"
            advice = f", and {left} still to be done: they would be read from these bytes"
        elif self._has_failures():
            advice = " (retry_failures=true does those again that failed)"
        return f"{CONTENT}: the files hold other bytes for the same records{advice}"

    def page_options(self) -> dict[str, Any]:
        """What the pages are drawn with, in plain types."""
        pages = self.settings.pages.items()
        return {name: {"_target_": page.target, **plain(page.options)} for name, page in pages}

    def pages_changed(self) -> bool:
        """Whether the pages that are there were drawn with other options."""
        try:
            return bool(read_json(self.layout.pages) != self.page_options())
        except (FileNotFoundError, ValueError):
            return True

    def is_complete(self) -> bool:
        """Whether everything is there that was asked for, made with these settings."""
        if self.settings.record_id:
            results = [self.result(scope.name) for scope in self.scopes]
            return all(result is not None and not result["failures"] for result in results)
        reports = (self.layout.root / name for name in REPORTS)
        if any(self.is_open(scope.name) for scope in self.scopes):
            return False
        if not all(report.exists() for report in reports):
            return False
        if self.pages_changed() or (self.settings.strict and self._was_doubted()):
            return False
        return not any(
            page.is_due(self.layout, scope.name)
            for page in self.inputs.pages.values()
            for scope in self.scopes
        )

    def _was_doubted(self) -> bool:
        """Whether the reports warn of the set-up."""
        try:
            return bool(read_json(self.layout.root / "run.json")["warnings"])
        except (ValueError, KeyError):
            return True


def _is_of_content(change: str) -> bool:
    return change.startswith(f"{CONTENT}: ")


def require_sharable(settings: Settings) -> None:
    """`ConfigError` for what several jobs cannot share; known without a model."""
    if settings.record_id:
        raise ConfigError(
            "record_id: single records are no work for several jobs. Set cluster.jobs=1."
        )
    if settings.retry_failures:
        raise ConfigError(
            "retry_failures=true: what failed is done again by one job, which sees all of it. "
            "Set cluster.jobs=1."
        )


def plan(settings: Settings, inputs: Inputs) -> tuple[Scope, ...]:
    """The scopes of a run: the splits, or the records that were asked for by id."""
    splits, batch_size = inputs.catalog.splits, settings.data.batch_size
    scopes = plan_splits(splits, batch_size=batch_size, limit=settings.limit)
    if settings.record_id:
        return (plan_records(scopes, splits, settings.record_id, batch_size=batch_size),)
    return tuple(scopes)
