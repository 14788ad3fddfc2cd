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

OWNED_DIRS = ("embeddings", "gradcam", "attention_maps", "maps", ".artifactgen")
OWNED_PATTERNS = (
    "embeddings/*_embeddings.pt",
    "embeddings/*_embedding.pt",
    "gradcam/*/class_*.png",
    "attention_maps/*_attention.png",
    "maps/*/*.h5",
    "overview_*.png",
)
"""What the program makes beside its reports, and in those of its folders that users look into."""

OWNED_FILES = (
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
        return self.root / ".artifactgen"

    @property
    def temp(self) -> Path:
        """Files on their way; emptied at the start of a run."""
        return self.state / "tmp"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def settings(self) -> Path:
        """The settings that decide the bytes of the artifacts, see `fingerprint`."""
        return self.state / "settings.json"

    @property
    def settled(self) -> Path:
        """What the first preflight settled of the settings that were left open."""
        return self.state / "settled.json"

    @property
    def success(self) -> Path:
        return self.root / "_SUCCESS.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    def overview(self, split: str) -> Path:
        """The contact sheet of a split."""
        return self.root / f"overview_{safe_name(split)}.png"

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


def gradcam_file(record_id: str, class_index: int) -> str:
    """Path of a GradCAM picture, relative to the output directory."""
    return f"gradcam/{safe_name(record_id)}/class_{class_index}.png"


def attention_file(record_id: str) -> str:
    """Path of an attention figure, relative to the output directory."""
    return f"attention_maps/{safe_name(record_id)}_attention.png"
