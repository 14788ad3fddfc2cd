"""From the checked settings to the objects that do the work: a `Job`, ready for a preflight."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from artifactgen.artifacts.base import Artifact
from artifactgen.data.base import Catalog, Source
from artifactgen.device import resolve_device, resolve_precision
from artifactgen.engine import Normalization
from artifactgen.errors import ConfigError, DataError, did_you_mean
from artifactgen.job import Job
from artifactgen.models.checkpoint import Checkpoint, read_checkpoint
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.timm import ModelSpec, input_size, normalization
from artifactgen.store.fingerprint import fingerprint
from distributed.settings import ArtifactSettings, Settings, explain, unknown_option

_PLACES = ("root", "path")
"""Options of sources that say where the data lies, not what it is."""
_USUAL_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Built:
    """The job, and what building it found out."""

    job: Job
    loaded: LoadedModel
    settings: Mapping[str, Any]
    """What decides the bytes of the artifacts; the fingerprint is of this."""
    all_splits: tuple[str, ...]
    """Every split of the data set, train, val and test first.

    The job's catalog has those that were asked for."""
    absent_splits: tuple[str, ...]
    """Usual splits that were asked for and that the data set does not have."""
    switched_off: tuple[str, ...]
    """Kinds of artifact that are not wanted."""


def build(settings: Settings, kinds: Mapping[str, ArtifactSettings]) -> Built:
    """Check and load everything but the records.

    Raises:
        UsageError: the first thing that does not do.
    """
    artifacts = build_artifacts(kinds)
    device = resolve_device(settings.accelerator)
    precision = resolve_precision(settings.precision, device)
    source = build_source(settings)
    checkpoint = read_checkpoint(settings.ckpt_path)
    catalog = source.scan()
    splits, absent = choose_splits(settings.splits, catalog)
    spec = model_spec(settings, catalog)
    source = replace_image_size(source, spec)
    loaded = load_model(spec, checkpoint)
    classes = class_names(loaded.spec.num_classes or 0, catalog)
    normalize = build_normalization(settings, spec)
    deciding = deciding_settings(
        settings, source, catalog, checkpoint, loaded.spec, normalize, precision, artifacts
    )
    job = Job(
        source=source,
        catalog=replace(catalog, splits={name: catalog.splits[name] for name in splits}),
        model=loaded.spec,
        checkpoint=settings.ckpt_path.absolute(),
        checkpoint_sha256=checkpoint.sha256,
        classes=classes,
        normalization=normalize,
        artifacts=artifacts,
        output_dir=settings.output_dir.absolute(),
        fingerprint=fingerprint(deciding),
        batch_size=settings.data.batch_size,
        reader_threads=settings.data.num_workers,
        accelerator=settings.accelerator,
        precision=precision,
        compiled=settings.model.compile,
        save_maps=settings.save_maps,
    )
    off = tuple(name for name, kind in kinds.items() if not kind.wanted)
    return Built(job, loaded, deciding, usual_order(catalog), absent, off)


def build_artifacts(kinds: Mapping[str, ArtifactSettings]) -> dict[str, Artifact]:
    """The options of the kinds that are wanted."""
    wanted = {
        name: instantiate(kind.target, kind.options, section=name)
        for name, kind in kinds.items()
        if kind.wanted
    }
    if not wanted:
        switches = ", ".join(f"generate_{name}=true" for name in kinds)
        raise ConfigError(f"Nothing to generate: every kind is off. Switch one on: {switches}.")
    return wanted


def build_source(settings: Settings) -> Source:
    """The data set's options, checked."""
    options = dict(settings.data.source_options)
    options["image_size"] = settings.data.image_size
    source: Source = instantiate(settings.data.target, options, section="data")
    return source


def instantiate(target: str, options: Mapping[str, Any], *, section: str) -> Any:
    """Make an object of a class that the configuration names, its options checked by type.

    Raises:
        ConfigError: there is no such class, or an option does not fit it.
    """
    cls = _find_class(target, section)
    names = [field.name for field in fields(cls)]
    unknown = [name for name in options if name not in names]  # pydantic drops them in silence
    if unknown:
        raise ConfigError(unknown_option(f"{section}.{unknown[0]}", names))
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        raise ConfigError(explain(error, prefix=f"{section}.")) from error


def _find_class(target: str, section: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{section}._target_={target}: cannot be imported ({error}).") from error
    if not is_dataclass(cls):
        raise ConfigError(f"{section}._target_={target}: is not a dataclass of options.")
    return cls


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


def model_spec(settings: Settings, catalog: Catalog) -> ModelSpec:
    """The model to build, as far as the settings and the data set tell."""
    model = settings.model
    if catalog.channels not in (1, model.in_chans):
        raise ConfigError(
            f"The images have {catalog.channels} channels and the model takes {model.in_chans}.\n"
            f"Set model.in_chans={catalog.channels} if the checkpoint was trained so."
        )
    spec = ModelSpec(
        backbone=model.backbone,
        num_classes=(len(catalog.classes) or None)
        if model.num_classes is None
        else model.num_classes,
        in_chans=model.in_chans,
        image_size=settings.data.image_size,
        global_pool=model.global_pool,
        options=model.options,
    )
    return replace(spec, image_size=input_size(spec))


def replace_image_size(source: Any, spec: ModelSpec) -> Source:
    """The source, giving images of the size that the model takes."""
    changed: Source = replace(source, image_size=spec.image_size)
    return changed


def class_names(outputs: int, catalog: Catalog) -> tuple[str, ...]:
    """Names of the classifier's outputs: the data set's where they are as many, else indices."""
    if outputs == len(catalog.classes):
        return catalog.classes
    return tuple(str(index) for index in range(outputs))


def build_normalization(settings: Settings, spec: ModelSpec) -> Normalization:
    """Mean and std: what is asked for with the data, else the model's own, else timm's."""
    data, model = settings.data, settings.model
    timm_mean, timm_std = normalization(spec)
    asked = data.mean is not None or data.std is not None
    mean, std = data.mean or model.mean or timm_mean, data.std or model.std or timm_std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, spec.in_chans):
            raise ConfigError(
                f"data.{name} has {len(values)} values; give one, or one for each of "
                f"{spec.in_chans} channels."
            )
    return Normalization(mean, std, of_floats=asked)


def deciding_settings(
    settings: Settings,
    source: Source,
    catalog: Catalog,
    checkpoint: Checkpoint,
    spec: ModelSpec,
    normalize: Normalization,
    precision: str,
    artifacts: Mapping[str, Artifact],
) -> dict[str, Any]:
    """Everything that decides the bytes of the artifacts, in plain types."""
    options = {k: v for k, v in plain(source).items() if k not in _PLACES}
    return {
        "data": {
            "source": settings.data.target,
            **options,
            "identity": catalog.identity,
            "batch_size": settings.data.batch_size,
            "normalization": plain(normalize),
        },
        "model": {**plain(spec), "compile": settings.model.compile},
        "checkpoint_sha256": checkpoint.sha256,
        "precision": precision,
        "limit": settings.limit,
        "save_maps": settings.save_maps,
        "artifacts": {name: plain(artifact) for name, artifact in artifacts.items()},
    }


def plain(value: Any) -> Any:
    """A dataclass as JSON has it: dicts, lists, numbers, strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
