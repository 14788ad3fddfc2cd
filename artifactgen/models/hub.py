"""A model as Hugging Face keeps it: a folder, or what is in the cache. Never the network.

This file needs neither torch nor transformers.
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifactgen.errors import ConfigError
from artifactgen.models.base import crop_pct_of
from artifactgen.models.folder import weights_in
from artifactgen.types import CropMode, Framing, Interpolation

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WITH_TEXT = "processor_config.json"
"""Since version 5, what a processor of images and texts is saved as; where both are, it counts."""
_FILTERS: Mapping[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of them, which configurations keep."""
_WARPED_FROM = 384
"""Pixels from which ConvNeXt's processor cuts nothing off."""
_USUAL_PCT = 224 / 256
"""Of ConvNeXt's processor where it says nothing else, and of LeViT's."""
_OTHERWISE = ("Donut", "ImageGPT", "PPLCNet", "Perceiver", "Siglip2", "TextNet")
"""Those that do more than to resize, crop and normalise."""


def folder_of(path: str) -> Path:
    """The folder of a model: as named, or of a hub id in the cache.

    Raises:
        ConfigError: there is neither.
    """
    local = Path(path).expanduser()
    folder = local if local.is_dir() else _cached(path)
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"model.path={path}: there is no {CONFIG} in {folder}. Name the folder that "
            "save_pretrained has written."
        )
    return folder


def described_in(path: str) -> tuple[Path, ...]:
    """The files that say what a model is and how images are made ready; none without a folder."""
    try:
        folder = folder_of(path)
    except ConfigError:
        return ()
    return tuple(
        file for name in (CONFIG, PROCESSOR, WITH_TEXT) if (file := folder / name).is_file()
    )


def checkpoint_of(path: str) -> Path:
    """The checkpoint in a model's folder: its file, or the index of several.

    Raises:
        ConfigError: it has none.
    """
    folder = folder_of(path)
    if (found := weights_in(folder)) is not None:
        return found
    raise ConfigError(
        f"model.path={path}: {folder} has no weights (model.safetensors, pytorch_model.bin, or an "
        f"index of several). Add ckpt_path, or download all of it: {_download(path)}."
    )


def _cached(path: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, CONFIG)
    except HFValidationError:
        found = None
    if isinstance(found, str):
        return Path(found).parent
    is_id = path.count("/") <= 1 and not path.startswith((".", "/", "~"))
    advice = (
        f"If it is an id of the hub, download it first, where there is a network: {_download(path)}"
        if is_id
        else "Give a folder that save_pretrained has written, or an id of the hub"
    )
    raise ConfigError(
        f"model.path={path}: no such folder, and no such model in the cache of Hugging Face. "
        f"Nothing is downloaded here.\n{advice}."
    )


def _download(path: str) -> str:
    return f"hf download {path}"


def read_json(file: Path) -> dict[str, Any]:
    """What a configuration says; nothing, where there is none.

    Raises:
        ConfigError: it is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: is no JSON ({error}). Copy or save it again.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: is no configuration. Copy or save it again.")
    return content


@dataclass(frozen=True, slots=True)
class Processor:
    """How images are made ready, as a `preprocessor_config.json` says it."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def size(self) -> tuple[int, int] | None:
        """(H, W) in pixels that come out; None where it is not said."""
        if self._crops():
            return _pair(self.values.get("crop_size")) or _pair(self.values.get("size"))
        return _pair(self.values.get("size"))

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std) for pixels in [0, 1]; None where nothing is said."""
        if self.values.get("do_normalize") is False:
            return (0.0,), (1.0,)
        mean, std = (_numbers(self.values.get(name)) for name in ("image_mean", "image_std"))
        if mean is None or std is None:
            return None
        if self.values.get("rescale_offset"):
            mean = tuple(v + 1 for v in mean)
        if self.values.get("include_top"):  # EfficientNet's divides once more
            std = tuple(v * v for v in std)
        white = self._white()
        return tuple(v / white for v in mean), tuple(v / white for v in std)

    def _white(self) -> float:
        """What white pixels become before they are normalised: not 1 in every configuration."""
        if self.values.get("do_rescale") is False:
            return 255.0
        white = 255 * float(self.values.get("rescale_factor") or 1 / 255)
        return 1.0 if math.isclose(white, 1) else white

    def framing(self) -> Framing:
        """Resize and crop."""
        how = _FILTERS.get(self.values.get("resample", 2), "bilinear")
        size, values = self.size(), self.values
        if size is None:
            return Framing(interpolation=how)
        if self._is_convnext():
            pct = float(values.get("crop_pct") or _USUAL_PCT)
            if size[0] >= _WARPED_FROM:
                return Framing(crop_mode="squash", interpolation=how)
            share = crop_pct_of(size[0], int(size[0] / pct))
            return Framing(share, "center", how, rounds_down=True)
        resized = _pair(values.get("size"))
        if not self._crops() or resized is None:
            return Framing(crop_mode="squash", interpolation=how)
        mode: CropMode = "squash" if self._warps() else "center"
        is_levit = self._kind.startswith("Levit") and mode == "center"
        share = crop_pct_of(size[0], int(resized[0] / _USUAL_PCT) if is_levit else resized[0])
        return Framing(share, mode, how, rounds_down=True)

    def unknown(self) -> str:
        """What of it is not done here; else empty."""
        if self.values.get("do_flip_channel_order"):
            return (
                "do_flip_channel_order: the model takes BGR, and gets RGB here. If it was trained "
                "on RGB, say false there; else set model=module, to a class that flips channels."
            )
        if self._kind.startswith(_OTHERWISE):
            return f"images are not made ready here as {self._kind} does it."
        return ""

    def _warps(self) -> bool:
        """Whether both sides are resized before the crop, rather than the shorter one."""
        size = self.values.get("size")
        if isinstance(size, int):
            return self._kind.startswith("DeiT")
        return isinstance(size, list) or "shortest_edge" not in (size or {})

    def _crops(self) -> bool:
        stated = self.values.get("do_center_crop")
        return bool("crop_size" in self.values if stated is None else stated)

    def _is_convnext(self) -> bool:
        return "crop_pct" in self.values or self._kind.startswith("ConvNext")

    @property
    def _kind(self) -> str:
        """Name of the processor's class."""
        kind = self.values.get("image_processor_type", self.values.get("feature_extractor_type"))
        return str(kind)


def read_processor(folder: Path) -> Processor:
    """What a folder says of how images are made ready; may be nothing.

    Raises:
        ConfigError: what cannot be done here.
    """
    nested = read_json(folder / WITH_TEXT).get("image_processor")
    file = folder / (WITH_TEXT if isinstance(nested, Mapping) else PROCESSOR)
    processor = Processor(nested if isinstance(nested, Mapping) else read_json(file))
    if reason := processor.unknown():
        raise ConfigError(f"{file}: {reason}")
    return processor


def _pair(value: Any) -> tuple[int, int] | None:
    """(H, W) of a size: a number, `height` and `width`, or `shortest_edge`."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, list) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, Mapping):
        if {"height", "width"} <= value.keys():
            return int(value["height"]), int(value["width"])
        return _pair(value.get("shortest_edge"))
    return None


def _numbers(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, int | float):
        return (float(value),)
    return tuple(map(float, value)) if isinstance(value, list) and value else None
