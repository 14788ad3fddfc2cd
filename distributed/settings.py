"""The configuration as typed, validated values.

Hydra composes; this file checks. Nothing below `distributed/build.py` sees a `DictConfig`, and
nothing in the program sees an option that was not checked. It needs neither torch nor a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.hub import checkpoint_of
from artifactgen.types import Accelerator, CanvasChoice, CropMode, Interpolation, Precision

Split = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _size(value: Any) -> Any:
    """One number means a square."""
    return (value, value) if isinstance(value, int) else value


def _ids(value: Any) -> Any:
    """One id or a list; ids that look like whole numbers arrive as numbers."""
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError("this reads as a number or a list; write an id in quotes, '\"1e5\"'")
    return tuple(str(item) for item in items)


def _channels(value: Any) -> Any:
    """One number stands for all channels."""
    return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def texts(value: Any) -> Any:
    """Names that look like whole numbers arrive as numbers."""
    if not isinstance(value, list):
        return value
    return [str(item) if type(item) is int else item for item in value]


def _names(value: Any) -> Any:
    """One name or a list, without doubles."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return items
    return list(dict.fromkeys(items))


Size = Annotated[
    tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], BeforeValidator(_size)
]


Mean = Annotated[tuple[float, ...], Field(min_length=1), BeforeValidator(_channels)]
Std = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_channels)
]

SECTIONS = ("data", "model", "cluster")
"""Sections of the root that name a class and are no kind of artifact."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class _OpenSection(BaseModel):
    """A section that names a class; what is not listed here are options of that class."""

    model_config = ConfigDict(extra="allow", frozen=True)

    target: str = Field(alias="_target_")

    @property
    def options(self) -> dict[str, Any]:
        """The options of the class."""
        return dict(self.model_extra or {})


class ModelSettings(_OpenSection):
    """`model`: what every family has in common."""

    num_classes: Annotated[int, Field(ge=0)] | None = None
    in_chans: Annotated[int, Field(gt=0)] = 3
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(texts)] = None
    mean: Mean | None = None
    std: Std | None = None
    compile: bool = False


class DataSettings(_OpenSection):
    """`data`: what every source has in common."""

    batch_size: Annotated[int, Field(gt=0)]
    num_workers: Annotated[int, Field(gt=0)]
    image_size: Size | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    crop_mode: CropMode | None = None
    interpolation: Interpolation | None = None
    mean: Mean | None = None
    std: Std | None = None
    max_value: Annotated[int, Field(gt=0)] | None = None


class ClassSettings(_OpenSection):
    """A section that has nothing in common with others: `cluster`, each of `pages`."""


class Settings(_Section):
    """The root of the configuration, without the kinds of artifact."""

    experiment_name: str
    ckpt_path: Path
    trust_checkpoint: bool = False
    output_dir: Path
    splits: Annotated[list[Split], Field(min_length=1), BeforeValidator(_names)]
    record_id: Annotated[tuple[str, ...], BeforeValidator(_ids)] = ()
    target_classes: Any = None
    canvas: CanvasChoice = "model"
    canvas_px: Annotated[int, Field(gt=0)] = 4096
    pooling: str = "auto"
    save_maps: bool = False
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.01
    retry_failures: bool = False
    strict: bool = False
    check_space: bool = True
    seed: int = 2022
    limit: Annotated[int, Field(gt=0)] | None = None
    overwrite: bool = False
    debug: bool = False
    dry_run: bool = False
    wait: bool = True
    data: DataSettings
    model: ModelSettings
    paths: dict[str, Any] = {}
    cluster: ClassSettings
    pages: dict[str, ClassSettings] = {}


class ArtifactSettings(_Section):
    """A kind of artifact: whether it is wanted, its class, and the options of that class."""

    wanted: bool
    target: str
    options: dict[str, Any]


def parse(config: Mapping[str, Any]) -> tuple[Settings, dict[str, ArtifactSettings]]:
    """Check a composed configuration.

    Args:
        config: plain containers, interpolations resolved.

    Returns:
        The settings, and the kinds of artifact by name. A kind is any root section that names a
        class under `_target_`, save those of `SECTIONS`; `generate_<name>` switches it.

    Raises:
        ConfigError: one line for each option that is missing, unknown or out of range.
    """
    if config.get("ckpt_path") is None:
        config = {**config, "ckpt_path": _weights_of_model(config)}
    config = {**config, "model": _with_path(config["model"], config["ckpt_path"])}
    names = [
        key
        for key, value in config.items()
        if isinstance(value, Mapping) and "_target_" in value and key not in SECTIONS
    ]
    kinds = {name: _artifact(name, config) for name in names}
    of_kinds = {*names, *(f"generate_{name}" for name in names)}
    rest = {key: value for key, value in config.items() if key not in of_kinds}
    return validate(Settings, rest), kinds


def _with_path(model: Any, ckpt_path: Any) -> Any:
    """A model that lies in a folder is that of the checkpoint, where it is not named."""
    if not isinstance(model, Mapping) or model.get("path", "") is not None:
        return model
    return {**model, "path": str(ckpt_path)} if Path(str(ckpt_path)).is_dir() else model


def _weights_of_model(config: Mapping[str, Any]) -> str:
    """The checkpoint in the folder that a model is described by; else it has to be said."""
    path = (config.get("model") or {}).get("path")
    if not isinstance(path, str):
        raise ConfigError(
            "ckpt_path is not set: which trained model?\n"
            "Add ckpt_path=path/to/model.ckpt (Lightning .ckpt, .pth, .pt, .safetensors, or a "
            "folder with model.safetensors)."
        )
    return str(checkpoint_of(path))


def _artifact(name: str, config: Mapping[str, Any]) -> ArtifactSettings:
    options = dict(config[name])
    target = options.pop("_target_")
    switch = f"generate_{name}"
    fields = {"wanted": config.get(switch, True), "target": target, "options": options}
    try:
        return ArtifactSettings.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(explain(error).replace("wanted", switch, 1)) from error


def validate(model: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Validate values as a pydantic model; `ConfigError` with one line for each problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, model=model)) from error


def explain(
    error: ValidationError, *, model: type[BaseModel] | None = None, prefix: str = ""
) -> str:
    """One line for each problem that pydantic found: `data.batch_size=-1: should be …`."""
    return "\n".join(_problem(dict(problem), model, prefix) for problem in error.errors())


def _problem(problem: dict[str, Any], model: type[BaseModel] | None, prefix: str) -> str:
    places = [str(part) for part in problem["loc"] if not str(part).startswith("function-")]
    key = prefix + ".".join(places)
    if problem["type"] == "extra_forbidden" and model is not None:
        return unknown_option(key, _options(model, places[:-1]))
    if problem["type"] == "missing":
        return f"{key} is not set."
    return f"{key}={problem['input']}: {problem['msg'][:1].lower()}{problem['msg'][1:]}."


def _options(model: Any, sections: Sequence[str]) -> Iterable[str]:
    """Names of the fields of a section of a model."""
    for section in sections:
        model = model.model_fields[section].annotation
    return list(model.model_fields)


def unknown_option(key: str, known: Iterable[str]) -> str:
    """A line for an option that there is not; `known` are the names that it could have had."""
    return f"{key}: there is no such option. {did_you_mean(key.rpartition('.')[2], known)}"
