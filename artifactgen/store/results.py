"""What merged scopes came to."""

from __future__ import annotations

from typing import Any

from artifactgen.store.atomic import read_json
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import has_size
from artifactgen.types import CommittedFile, Failure


def merged(layout: Layout, scope: str, *, fingerprint: str) -> dict[str, Any] | None:
    """The result of a scope that is merged with these settings, its files in place; else None.

    Sizes are compared and not checksums: asking whether a run is complete takes no time, whatever
    its size. The checksums stand in the result.
    """
    try:
        result: dict[str, Any] = read_json(layout.scope(scope).result)
        files = [CommittedFile(*file) for file in result["files"]]
        same = result["fingerprint"] == fingerprint
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    in_place = all(has_size(layout.root / file.path, file.size_bytes) for file in files)
    return result if same and in_place else None


def recorded_failures(layout: Layout, scope: str) -> list[Failure]:
    """The failed records of a scope that is merged, in the data set's order."""
    return [Failure(**failure) for failure in read_json(layout.scope(scope).failures)]
