"""The reducer: a scope's shards become the files that users load, and a result that says so.

Nothing takes its final name before it was read back. Memory does not grow with the embeddings;
only ids and labels are held.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifactgen.embeddings import EmbeddingsFile
from artifactgen.plan import Scope
from artifactgen.store.atomic import write_json
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import committed_file
from artifactgen.store.manifest import manifest_row, write_manifest
from artifactgen.store.rows import Row, read_rows
from artifactgen.types import CommittedFile, Receipt


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the merged files say besides their rows."""

    embedding_shape: tuple[int, ...] | None
    """Of one record; None where no embeddings are made."""
    classes: tuple[str, ...]
    """Names of the labels."""
    meta: Mapping[str, Any]
    """`meta` of the `.pt` files, in plain types."""
    status: Mapping[str, str]
    """Kind of artifact to its status for a record without failure."""
    fingerprint: str


def merge(layout: Layout, scope: Scope, receipts: Sequence[Receipt], recipe: Recipe) -> None:
    """Write the `.pt` files and the manifest of a scope, and its result last.

    Raises:
        RunError: a shard file is not what its ledger entry says.
    """
    assert tuple(receipt.shard for receipt in receipts) == scope.shards
    files = _merge_records if scope.record_ids else _merge_split
    state = layout.scope(scope.name)
    failures = [asdict(failure) for receipt in receipts for failure in receipt.failures]
    write_json(state.failures, failures, temp_dir=layout.temp)
    written = [committed_file(layout.root, state.failures)]
    written += files(layout, scope, receipts, recipe)
    result = {
        "fingerprint": recipe.fingerprint,
        "records": sum(receipt.records for receipt in receipts),
        "failures": len(failures),
        "pictures": sum(receipt.pictures for receipt in receipts),
        "picture_bytes": sum(receipt.picture_bytes for receipt in receipts),
        "halved_batches": sum(receipt.halved_batches for receipt in receipts),
        "empty_maps": dict(sum((Counter(receipt.empty_maps) for receipt in receipts), Counter())),
        "seconds": dict(sum((Counter(receipt.seconds) for receipt in receipts), Counter())),
        "computed_by": _computed_by(receipts),
        "files": [[file.path, file.size_bytes, file.sha256] for file in written],
    }
    write_json(state.result, result, temp_dir=layout.temp)
    if not failures:  # else those of the good shards serve `retry_failures`
        shutil.rmtree(state.shards, ignore_errors=True)  # their rows are in the merged files now


def _computed_by(receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Which devices of which machines computed it, and how much each."""
    shares: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for receipt in receipts:
        share = {"shards": 1, "records": receipt.records + len(receipt.failures)}
        shares[receipt.device, receipt.host].update(share)
    return [
        {"device": device, "host": host, **shares[device, host]} for device, host in sorted(shares)
    ]


def _merge_split(
    layout: Layout, scope: Scope, receipts: Sequence[Receipt], recipe: Recipe
) -> list[CommittedFile]:
    target = _open_embeddings(layout, receipts, recipe)
    state = layout.scope(scope.name)
    write_manifest(
        state.manifest,
        _fill(target, read_rows(layout, receipts), recipe.status),
        kinds=list(recipe.status),
        temp_dir=layout.temp,
    )
    paths = [state.manifest]
    if target is not None:
        paths.append(layout.embeddings(scope.name))
        target.save(paths[-1], classes=recipe.classes, meta=recipe.meta, temp_dir=layout.temp)
    return [committed_file(layout.root, path) for path in paths]


def _open_embeddings(
    layout: Layout, receipts: Iterable[Receipt], recipe: Recipe
) -> EmbeddingsFile | None:
    if recipe.embedding_shape is None:
        return None
    records = sum(receipt.records for receipt in receipts)
    return EmbeddingsFile(layout.temp / "rows", records=records, shape=recipe.embedding_shape)


def _fill(
    target: EmbeddingsFile | None, rows: Iterable[Row], status: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Pass rows on to the embeddings; give their lines of the manifest."""
    pt_row = 0
    for row in rows:
        has_row = target is not None and row.embedding is not None
        if target is not None and row.embedding is not None:
            target.append(row.record_id, row.embedding, row.label)
        yield manifest_row(row, pt_row=pt_row if has_row else None, status=dict(status))
        pt_row += has_row


def _merge_records(
    layout: Layout, scope: Scope, receipts: Sequence[Receipt], recipe: Recipe
) -> list[CommittedFile]:
    """Single records get a file each; the files of their splits are left alone."""
    written: list[Path] = []
    for row in read_rows(layout, receipts):
        if row.failure is not None:  # it may have been good when it was done before
            layout.record_embedding(row.record_id).unlink(missing_ok=True)
        if row.embedding is None:
            continue
        target = EmbeddingsFile(layout.temp / "rows", records=1, shape=row.embedding.shape)
        target.append(row.record_id, row.embedding, row.label)
        written.append(layout.record_embedding(row.record_id))
        target.save(written[-1], classes=recipe.classes, meta=recipe.meta, temp_dir=layout.temp)
    return [committed_file(layout.root, path) for path in written]
