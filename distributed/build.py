"""From what goes into a run to the objects that do the work: the model, and a `Job` for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from artifactgen.artifacts.base import Artifact
from artifactgen.data.base import Catalog
from artifactgen.device import Devices, resolve_precision
from artifactgen.errors import ConfigError, DataError
from artifactgen.job import Job
from artifactgen.labels import Labels, match_labels
from artifactgen.models.base import Family
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.named_files import by_content
from artifactgen.models.stated import Stated, read_stated
from artifactgen.store.calibrated import Calibrated
from distributed.inputs import Inputs, plain
from distributed.instantiate import instantiate
from distributed.preprocessing import build_normalization, prepared
from distributed.run import Run
from distributed.settings import Settings

_NORMALIZING = ("mean", "std", "of_floats", "max_value")


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
    checkpoint = read_checkpoint(inputs.checkpoint)
    stated = read_stated(checkpoint, family)
    if _has_more_classes(settings, inputs.catalog, stated):
        family = replace(family, num_classes=None)
    loaded = load_model(family, checkpoint, stated=stated)
    model = loaded.network.family
    normalization = build_normalization(settings, model, loaded.stated, inputs.checkpoint.path)
    classes, labels, loaded = name_classes(settings, inputs.catalog, loaded)
    job = Job(
        source=prepared(inputs.source, settings, loaded),
        catalog=inputs.catalog,
        model=model,
        checkpoint=inputs.checkpoint,
        model_files=inputs.model_files,
        classes=classes,
        labels=labels,
        normalization=normalization,
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
        canvas_px=settings.canvas_px if settings.canvas == "source" else None,
        import_from=run.request.import_from,
    )
    return Built(job, loaded, asked)


def resolved(built: Built) -> dict[str, Any]:
    """What the settings came to, in plain types, with all that they leave to defaults."""
    normalization = built.job.normalization
    return {
        "model": by_content(plain(built.job.model), built.job.model_files),
        "normalization": {name: plain(getattr(normalization, name)) for name in _NORMALIZING},
        "framing": plain(getattr(built.job.source, "framing", None)),
        "classes": list(built.job.classes),
        "labels": list(built.job.labels.order),
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
    options = {
        **model.options,
        "num_classes": _wanted_classes(settings, catalog),
        "in_chans": model.in_chans,
        "image_size": settings.data.image_size,
    }
    return instantiate(model.target, options, section="model", base=Family)  # type: ignore[type-abstract]


def _wanted_classes(settings: Settings, catalog: Catalog) -> int | None:
    """How many the classifier should have; None = as many as it has.

    Labels without names do not tell: the highest class may be missing from the data set.
    """
    if settings.model.num_classes is not None:
        return settings.model.num_classes
    if settings.model.classes is not None:
        return len(settings.model.classes)
    return len(catalog.classes) if catalog.classes and catalog.highest_label is None else None


def _has_more_classes(settings: Settings, catalog: Catalog, stated: Stated) -> bool:
    """Whether the data set has only some of the classes that the checkpoint names."""
    if settings.model.num_classes is not None or settings.model.classes is not None:
        return False
    return catalog.highest_label is None and set(catalog.classes) < set(stated.classes)


def name_classes(
    settings: Settings, catalog: Catalog, loaded: LoadedModel
) -> tuple[tuple[str, ...], Labels, LoadedModel]:
    """Names of the outputs, how labels stand to them, and the model with their source audited.

    Raises:
        UsageError: labels or names that the classifier has no output for.
    """
    outputs = loaded.network.family.num_classes or 0
    _require_known(catalog, outputs)
    named = output_names(settings, loaded.stated, outputs)
    classes = named or class_names(outputs, catalog)
    labels = match_labels(
        catalog.classes,
        classes,
        are_named=catalog.highest_label is None,
        outputs_are_named=bool(named),
    )
    if named and settings.model.classes is None:
        of_classes = f"names of classes ({loaded.stated.source['classes']})"
        audit = replace(loaded.audit, taken=(*loaded.audit.taken, of_classes))
        loaded = replace(loaded, audit=audit)
    return classes, labels, loaded


def _require_known(catalog: Catalog, outputs: int) -> None:
    """`DataError` for labels without names that the classifier has no output for."""
    if catalog.highest_label is None or not outputs:
        return
    record_id, label = catalog.highest_label
    if label >= outputs:
        advice = "" if label > outputs else "If they count from 1, subtract 1 in the data set. "
        raise DataError(
            f"{record_id} has the label {label}, and the model has {outputs} classes (0 to "
            f"{outputs - 1}). {advice}If the labels are of other classes than the model's, name "
            f"them all by data.classes, and set model.num_classes={outputs}."
        )


def class_names(outputs: int, catalog: Catalog) -> tuple[str, ...]:
    """Names of the classifier's outputs: the data set's where they are as many, else indices."""
    numbers = tuple(str(index) for index in range(outputs))
    # Names that are its numbers in another order say which of them a label means.
    is_named = len(catalog.classes) == outputs and set(catalog.classes) != set(numbers)
    return catalog.classes if is_named else numbers


def output_names(settings: Settings, stated: Stated, outputs: int) -> tuple[str, ...]:
    """What the settings, else the checkpoint, call the outputs; empty where neither says it.

    Raises:
        ConfigError: the settings name more or fewer of them.
    """
    names = settings.model.classes or ()
    if names and len(names) != outputs:
        raise ConfigError(
            f"model.classes names {len(names)} classes, and the classifier has {outputs}."
        )
    return names or (stated.classes if len(stated.classes) == outputs else ())
