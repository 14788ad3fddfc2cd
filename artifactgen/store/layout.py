"""Where everything of a run lies below `output_dir`; the only file that spells paths."""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path

from artifactgen.types import Shard

_PLAIN = frozenset(string.ascii_letters + string.digits + "._=-")
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)
_MAX_BYTES = 200

STATE_DIR = ".artifactgen"

MERGED_FILES = ("embeddings/*_embeddings.pt", "embeddings/*_embedding.pt", "maps/*/*.h5")
"""What every run may make, as patterns. Kinds of artifact and pages say what theirs are called."""

REPORTS = (
    "classes.json",
    "manifest.parquet",
    "failures.csv",
    "run.json",
    "summary.md",
    "_SUCCESS.json",
)


def safe_name(record_id: str) -> str:
    """A file name for any record id: distinct ids get distinct names, plain ids keep theirs.

    Bytes outside `A-Za-z0-9._=-` are percent-encoded, as are a leading or trailing dot and the
    first letter of a DOS device name. What is longer than 200 bytes is cut and ends in `~` and a
    digest; `~` occurs in no other name.
    """
    name = "".join(c if c in _PLAIN else _percent(c) for c in record_id) or "%"
    if name.split(".")[0].lower() in _DEVICE_NAMES or name[0] == ".":
        name = _percent(name[0]) + name[1:]
    if name[-1] == ".":
        name = name[:-1] + _percent(".")
    if len(name) <= _MAX_BYTES:
        return name
    digest = hashlib.sha256(record_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{name[: _MAX_BYTES - 25]}~{digest}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one output directory."""

    root: Path

    @property
    def state(self) -> Path:
        """What the program keeps for resuming; not for users."""
        return self.root / STATE_DIR

    @property
    def temp(self) -> Path:
        """Files on their way; emptied at the start of a run."""
        return self.state / "tmp"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def jobs(self) -> Path:
        """Which jobs of a cluster were submitted for this directory; outlives `overwrite=true`."""
        return self.state / "jobs"

    @property
    def settings(self) -> Path:
        """The settings that decide the bytes of the artifacts, see `fingerprint`."""
        return self.state / "settings.json"

    @property
    def calibrated(self) -> Path:
        """What of the settings was left open, and is decided since, see `calibrated`."""
        return self.state / "calibrated.json"

    def listing(self, split: str) -> Path:
        """The records of a split and where they lie, of sources that list them."""
        return self.state / "listings" / f"{safe_name(split)}.arrow"

    @property
    def owned(self) -> Path:
        """What the files of the kinds and pages that were made here are called."""
        return self.state / "owned.json"

    @property
    def pages(self) -> Path:
        """The options with which the pages that are there were drawn."""
        return self.state / "pages.json"

    @property
    def success(self) -> Path:
        return self.root / "_SUCCESS.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    def embeddings(self, split: str) -> Path:
        return self.root / "embeddings" / f"{safe_name(split)}_embeddings.pt"

    def record_embedding(self, record_id: str) -> Path:
        return self.root / "embeddings" / f"{safe_name(record_id)}_embedding.pt"

    def maps(self, scope: str, shard: Shard) -> Path:
        return self.root / "maps" / safe_name(scope) / f"{safe_name(shard.name)}.h5"

    def scope(self, name: str) -> ScopeLayout:
        """The state of one scope: a split, or a request for single records."""
        return ScopeLayout(self.state / "scopes" / safe_name(name))


@dataclass(frozen=True, slots=True)
class ScopeLayout:
    """Paths of what is planned, committed and merged together."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def result(self) -> Path:
        """Written when the scope is merged; counts and digests."""
        return self.root / "result.json"

    @property
    def manifest(self) -> Path:
        """This scope's rows of the run's manifest."""
        return self.root / "manifest.parquet"

    @property
    def failures(self) -> Path:
        """This scope's failed records."""
        return self.root / "failures.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def entry(self, shard: Shard) -> Path:
        """The ledger entry of a shard; its existence is what makes the shard done."""
        return self.ledger / f"{safe_name(shard.name)}.json"

    def shard(self, shard: Shard) -> Path:
        return self.shards / f"{safe_name(shard.name)}.h5"
