"""From what goes into a run to the objects that do the work: the model, and a `Job` for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from artifactgen.artifacts.base import Artifact
from artifactgen.data.base import Catalog
from artifactgen.device import Devices, resolve_precision
from artifactgen.engine import Normalization
from artifactgen.errors import ConfigError
from artifactgen.job import Job
from artifactgen.models.base import Family
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.store.calibrated import Calibrated
from distributed.inputs import Inputs, plain
from distributed.instantiate import instantiate
from distributed.run import Run
from distributed.settings import Settings


@dataclass(frozen=True, slots=True)
class Built:
    """A job ready for its preflight."""

    job: Job
    loaded: LoadedModel
    asked: dict[str, Artifact]
    """The options of the artifacts as they were asked for; those of the job are calibrated."""


def build(run: Run, devices: Devices, *, threads_each: int, calibrated: Calibrated | None) -> Built:
    """Load the model, and specify the job.

    Args:
        run: what is to be done.
        devices: that will compute.
        threads_each: CPU threads of each worker.
        calibrated: what was decided before for the output directory.

    Raises:
        UsageError: the first thing that is not usable.
    """
    settings, inputs = run.settings, run.inputs
    asked = build_artifacts(inputs)
    precision = resolve_precision(calibrated_precision(settings, calibrated), devices)
    family = build_family(settings, inputs.catalog)
    loaded = load_model(family, read_checkpoint(inputs.checkpoint))
    model = loaded.network.family
    source: Any = inputs.source
    job = Job(
        source=replace(source, image_size=model.image_size),
        catalog=inputs.catalog,
        model=model,
        checkpoint=inputs.checkpoint,
        classes=class_names(model.num_classes or 0, inputs.catalog),
        normalization=build_normalization(settings, family),
        artifacts=asked if calibrated is None else calibrated.options(asked),
        output_dir=run.layout.root,
        fingerprint=inputs.fingerprint,
        batch_size=settings.data.batch_size,
        reader_threads=settings.data.num_workers,
        accelerator="gpu" if devices.kind == "cuda" else "cpu",
        device=devices.name,
        precision=precision,
        compute_threads=threads_each,
        compiled=settings.model.compile,
        save_maps=settings.save_maps,
        import_from=run.import_from,
    )
    return Built(job, loaded, asked)


def resolved(built: Built) -> dict[str, Any]:
    """What the settings came to, in plain types, with all that they leave to defaults."""
    return {
        "model": plain(built.job.model),
        "normalization": plain(built.job.normalization),
        "artifacts": {name: plain(options) for name, options in built.asked.items()},
    }


def build_artifacts(inputs: Inputs) -> dict[str, Artifact]:
    """The options of the kinds that are wanted, checked."""
    return {
        name: instantiate(kind.target, kind.options, section=name, base=Artifact)  # type: ignore[type-abstract]
        for name, kind in inputs.kinds.items()
    }


def calibrated_precision(settings: Settings, calibrated: Calibrated | None) -> Any:
    """What was asked for; of `auto`, what it came to when the directory was begun."""
    if calibrated is None or settings.precision != "auto":
        return settings.precision
    return calibrated.precision


def build_family(settings: Settings, catalog: Catalog) -> Family:
    """The model to build, as far as the settings and the data set tell."""
    model = settings.model
    classes = model.num_classes
    options = {
        **model.options,
        "num_classes": (len(catalog.classes) or None) if classes is None else classes,
        "in_chans": model.in_chans,
        "image_size": settings.data.image_size,
    }
    family = instantiate(model.target, options, section="model", base=Family)  # type: ignore[type-abstract]
    return replace(family, image_size=family.input_size())


def class_names(outputs: int, catalog: Catalog) -> tuple[str, ...]:
    """Names of the classifier's outputs: the data set's where they are as many, else indices."""
    if outputs == len(catalog.classes):
        return catalog.classes
    return tuple(str(index) for index in range(outputs))


def build_normalization(settings: Settings, family: Family) -> Normalization:
    """Mean and std: what is asked for with the data, else the model's own, else its family's."""
    data, model = settings.data, settings.model
    own_mean, own_std = family.normalization()
    asked = data.mean is not None or data.std is not None
    mean, std = data.mean or model.mean or own_mean, data.std or model.std or own_std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, family.in_chans):
            raise ConfigError(
                f"data.{name} has {len(values)} values; give one, or one for each of "
                f"{family.in_chans} channels."
            )
    return Normalization(mean, std, of_floats=asked)
