"""What goes into a run, as far as it is known without a model: this file needs no torch.

So a wrong option, a missing file or a finished run is answered at once, and a run says what it is
about before it imports what takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from artifactgen.data.base import Catalog, Source
from artifactgen.data.reading import scan_source
from artifactgen.errors import ConfigError, DataError, did_you_mean
from artifactgen.models.file import CheckpointFile, check, identify
from artifactgen.models.named_files import NamedFiles, by_content, named_files
from artifactgen.pages.base import Page
from artifactgen.store.fingerprint import fingerprint
from distributed.instantiate import instantiate
from distributed.runners.base import RunnerOptions
from distributed.settings import ArtifactSettings, ClassSettings, Settings, texts

_PLACES = ("root", "path", "train", "val", "test")
"""Options of sources that say where the data lies, not what it is."""
_LIMITS = ("max_pixels",)
"""Those that say which records fail; a failure is on record, and may be done again."""
CONTENT = "data.content"
"""What of the settings may be another one for `retry_failures`: the records were mended."""
_FILLED_IN = ("keep_stored", "framing")
"""Fields that follow from the rest."""
_FRAMING = ("crop_pct", "crop_mode", "interpolation")
_USUAL_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Data set, checkpoint and pages, and what decides the bytes of the artifacts."""

    source: Source
    catalog: Catalog
    """With the splits that were asked for."""
    checkpoint: CheckpointFile
    model_files: tuple[NamedFiles, ...]
    """What options of the model name."""
    pages: Mapping[str, Page]
    kinds: Mapping[str, ArtifactSettings]
    """The kinds of artifact that are wanted."""
    switched_off: tuple[str, ...]
    """The kinds that are not."""
    deciding: Mapping[str, Any]
    """What decides the bytes of the artifacts, as it was asked for."""
    fingerprint: str
    """Of these, but for what the records hold: shards without failures outlive their mending."""
    all_splits: tuple[str, ...]
    """Every split of the data set, train, val and test first."""
    absent_splits: tuple[str, ...]
    """Usual splits that were asked for and that the data set does not have."""


def read_inputs(settings: Settings, kinds: Mapping[str, ArtifactSettings]) -> Inputs:
    """Check and identify everything that goes into a run; no record is read.

    Raises:
        UsageError: the first thing that is not usable.
    """
    wanted = _wanted(kinds)
    pages = {name: _make_page(name, page) for name, page in settings.pages.items()}
    check(settings.ckpt_path)
    source = build_source(settings)
    checkpoint = identify(settings.ckpt_path, trusted=settings.trust_checkpoint).absolute()
    catalog = scan_source(source)
    splits, absent = choose_splits(settings.splits, catalog)
    _check_channels(settings, catalog)
    files = named_files(settings.model.options)
    deciding = deciding_settings(settings, wanted, source, catalog, checkpoint, files)
    return Inputs(
        source=source,
        catalog=replace(catalog, splits={name: catalog.splits[name] for name in splits}),
        checkpoint=checkpoint,
        model_files=files,
        pages=pages,
        kinds=wanted,
        switched_off=tuple(name for name in kinds if name not in wanted),
        deciding=deciding,
        fingerprint=fingerprint(_without_content(deciding)),
        all_splits=usual_order(catalog),
        absent_splits=absent,
    )


def build_runner(settings: Settings) -> RunnerOptions:
    """Who does the work, checked."""
    cluster = settings.cluster
    return instantiate(cluster.target, cluster.options, section="cluster", base=RunnerOptions)  # type: ignore[type-abstract]


def _wanted(kinds: Mapping[str, ArtifactSettings]) -> dict[str, ArtifactSettings]:
    wanted = {name: kind for name, kind in kinds.items() if kind.wanted}
    if not wanted:
        switches = ", ".join(f"generate_{name}=true" for name in kinds)
        raise ConfigError(f"Nothing to generate: every kind is off. Switch one on: {switches}.")
    return wanted


def _make_page(name: str, page: ClassSettings) -> Page:
    return instantiate(page.target, page.options, section=f"pages.{name}", base=Page)  # type: ignore[type-abstract]


def build_source(settings: Settings) -> Source:
    """The data set's options, checked."""
    options = {**settings.data.options, "image_size": settings.data.image_size}
    if "classes" in options:
        options["classes"] = texts(options["classes"])
    source = instantiate(settings.data.target, options, section="data", base=Source)  # type: ignore[type-abstract]
    if asked := asked_framing(settings):
        _require_framing(source, asked)
    if settings.canvas == "source":
        _require_stored(source)
    return source


def asked_framing(settings: Settings) -> dict[str, Any]:
    """What the user has set of how pictures become the model's input."""
    asked = {name: getattr(settings.data, name) for name in _FRAMING}
    return {name: value for name, value in asked.items() if value is not None}


def _require_framing(source: Source, asked: Mapping[str, Any]) -> None:
    if not hasattr(source, "framing"):
        name = next(iter(asked))
        raise ConfigError(
            f"data.{name}: {type(source).__name__} resizes whole images to data.image_size, and "
            f"does not crop. Leave out data.{name}."
        )


def _require_stored(source: Source) -> None:
    if not hasattr(source, "keep_stored"):
        raise ConfigError(
            f"canvas=source: {type(source).__name__} does not tell what of its pictures the model "
            "saw. Leave out canvas=source, or let it bring Sample.stored where its field "
            "keep_stored is true."
        )


def choose_splits(wanted: list[str], catalog: Catalog) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits to do, and those of the usual three that the data set lacks.

    Raises:
        DataError: a split that there is not, or none at all.
    """
    unknown = [name for name in wanted if name not in (*catalog.splits, *_USUAL_SPLITS)]
    if unknown:
        raise DataError(
            f"splits: the data set has no {unknown[0]}. {did_you_mean(unknown[0], catalog.splits)}"
        )
    present = tuple(name for name in wanted if name in catalog.splits)
    if not present:
        there = ", ".join(catalog.splits) or "none"
        raise DataError(f"splits={wanted}: the data set has none of them. It has: {there}.")
    return present, tuple(name for name in wanted if name not in catalog.splits)


def usual_order(catalog: Catalog) -> tuple[str, ...]:
    """The splits of the data set: train, val and test before others."""
    usual = (name for name in _USUAL_SPLITS if name in catalog.splits)
    return tuple(dict.fromkeys((*usual, *catalog.splits)))


def _check_channels(settings: Settings, catalog: Catalog) -> None:
    if catalog.channels not in (1, settings.model.in_chans):
        raise ConfigError(
            f"The images have {catalog.channels} channels and the model takes "
            f"{settings.model.in_chans}.\n"
            f"Set model.in_chans={catalog.channels} if the checkpoint was trained so."
        )


def deciding_settings(
    settings: Settings,
    kinds: Mapping[str, ArtifactSettings],
    source: Source,
    catalog: Catalog,
    checkpoint: CheckpointFile,
    files: tuple[NamedFiles, ...],
) -> dict[str, Any]:
    """Everything that decides the bytes of the artifacts, in plain types, as it was asked for.

    What `auto` and null come to follows from these, from the checkpoint and the data set; or, as
    the precision, is decided once for a directory, see `artifactgen.store.calibrated`.
    """
    data = settings.data
    beside = (*_PLACES, *_LIMITS, *_FILLED_IN)
    options = {k: v for k, v in plain(source).items() if k not in beside}
    return {
        "data": {
            "source": data.target,
            **options,
            **asked_framing(settings),
            "identity": catalog.identity,
            "content": catalog.content,
            "batch_size": data.batch_size,
            "mean": plain(data.mean),
            "std": plain(data.std),
            "max_value": data.max_value,
        },
        "model": by_content(plain(settings.model.model_dump(by_alias=True)), files),
        "checkpoint_sha256": checkpoint.sha256,
        "precision": settings.precision,
        "canvas": settings.canvas,
        "canvas_px": settings.canvas_px if settings.canvas == "source" else None,
        "limit": settings.limit,
        "save_maps": settings.save_maps,
        "artifacts": {
            name: {"_target_": kind.target, **plain(kind.options)} for name, kind in kinds.items()
        },
    }


def with_data(deciding: Mapping[str, Any], **changes: str) -> dict[str, Any]:
    """The same settings, with other facts of the data set."""
    return {**deciding, "data": {**deciding["data"], **changes}}


def _without_content(deciding: Mapping[str, Any]) -> dict[str, Any]:
    section, _, key = CONTENT.partition(".")
    return {**deciding, section: {k: v for k, v in deciding[section].items() if k != key}}


def plain(value: Any) -> Any:
    """A dataclass as JSON has it: dicts, lists, numbers, strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
