"""Any image classifier or image encoder of Hugging Face's transformers, from a folder.

Only `config.json` decides what is built: no code that lies in a folder is run, and the network is
never asked. https://huggingface.co/docs/transformers/model_doc/auto
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
)

from artifactgen.errors import ConfigError
from artifactgen.models.base import Family, Network, per_channel
from artifactgen.models.foreign import RAISED, reason
from artifactgen.models.hooked import HookedFamily, HookedNetwork, hook_up
from artifactgen.models.hub import (
    CONFIG,
    PROCESSOR,
    Processor,
    folder_of,
    read_json,
    read_processor,
)
from artifactgen.models.text_vectors import TextVectors, read_text_vectors
from artifactgen.models.transformers_nets import (
    CLASSIFIER,
    Encoder,
    Tower,
    layouts,
    make_classifier,
    resampling,
)
from artifactgen.types import Framing

if TYPE_CHECKING:
    from artifactgen.models.audit import LoadAudit
    from artifactgen.models.checkpoint import Checkpoint
    from artifactgen.models.claims import Claim
    from artifactgen.models.naming import NamedWeights
    from artifactgen.models.stated import Stated

_TOWERS = ("clip", "siglip")
"""Models of images and texts whose tower for images is used alone."""
_BESIDE = ("pooler", "head", "embeddings.mask_token")
"""Parts of an encoder that a checkpoint may have and its classifier does not use."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(HookedFamily):
    """A model of transformers."""

    path: str | None = None
    """Folder that `save_pretrained` wrote, or id of the hub that is in the cache."""
    architecture: str | None = None
    """Class of transformers, such as `CLIPForImageClassification`; None = as `config.json` says."""
    text_features: str | None = None
    """File of text vectors that classify, one for each class; see `text_vectors.py`."""

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2] if self.path else "huggingface"

    def build(self) -> HookedNetwork:
        size = self.input_size()
        config = self._config()
        try:
            module = self._module(config)
        except RAISED as error:
            raise ConfigError(
                f"model.path={self.path}: transformers cannot build it ({reason(error)})."
            ) from error
        sized = replace(self, image_size=size)
        named = ("classifier",) if isinstance(module, Encoder | Tower) else ()
        text = self._text()
        asked = replace(sized, num_classes=None) if text else sized
        arguments = resampling(module, config, size)
        network = hook_up(asked, module, classifiers=named, arguments=arguments)
        return replace(network, family=self._absolute(), layouts=layouts(module))

    def input_size(self) -> tuple[int, int]:
        size = self.image_size or self._processor().size() or _size_of(self._stated())
        if size is None:
            raise ConfigError(
                f"data.image_size is not set, and {self.path} does not say which images it takes."
            )
        return size

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """As `preprocessor_config.json` says; ImageNet's without one."""
        stated = self._processor().normalization()
        if stated is None:
            return Family.normalization(self)
        mean, std = stated
        return per_channel(mean, self.in_chans), per_channel(std, self.in_chans)

    def doubt_of_normalization(self) -> str:
        if self._processor().normalization() is not None:
            return ""
        return (
            f"{self.path}: no {PROCESSOR} in it says how images are made ready, so ImageNet's mean "
            "and std are used. Put that of its training there, or set data.mean and data.std."
        )

    def framing(self) -> Framing:
        """As `preprocessor_config.json` says."""
        return self._processor().framing()

    def claims(self, stated: Stated) -> tuple[Claim, ...]:
        """What the checkpoint itself states: what is beside it is read here."""
        return tuple(c for c in Family.claims(self, stated) if not c.where.startswith(CONFIG))

    def is_described_by(self, config: Stated, own: Stated) -> bool:
        """Whether it lies in the folder: names of classes are taken from there."""
        return True

    def decide(self, draft: Network, weights: NamedWeights) -> Self:
        text = self._text()
        if text is not None:
            return replace(self, num_classes=len(text.vectors_KD))
        return HookedFamily.decide(self, draft, weights)

    def own_head(self) -> str:
        return f"of the text vectors in {self.text_features}" if self.text_features else ""

    def class_names(self) -> tuple[str, ...]:
        text = self._text()
        return text.classes if text else ()

    def beside_encoder(self, network: Network) -> frozenset[str]:
        prefix = getattr(network.module, "base_model_prefix", "")
        roots = {f"{prefix}.", "vision_model.", "encoder."} if prefix else {"encoder."}
        parts = {f"{root}{part}" for root in roots for part in _BESIDE}
        return HookedFamily.beside_encoder(self, network) | parts

    def hint(self, audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> str:
        """Another folder, or another class."""
        kind = type(network.module).__name__
        return (
            f"{self.path} describes a {kind}. Set model.path to the folder whose {CONFIG} the "
            "weights were trained with, or model.architecture to another class of transformers."
        )

    def _absolute(self) -> Self:
        """The same from whatever folder it is looked at: workers may begin in another."""
        folder, vectors = self.path and Path(self.path).expanduser(), self.text_features
        return replace(
            self,
            path=str(folder.absolute()) if folder and folder.is_dir() else self.path,
            text_features=str(Path(vectors).expanduser().absolute()) if vectors else None,
        )

    def _folder(self) -> Path:
        if not self.path:
            raise ConfigError(
                "model.path is not set: which model? Add model.path=path/to/folder, or an id of "
                "the hub that is in the cache."
            )
        return folder_of(self.path)

    def _stated(self) -> Mapping[str, Any]:
        return read_json(self._folder() / CONFIG)

    def _processor(self) -> Processor:
        return read_processor(self._folder())

    def _text(self) -> TextVectors | None:
        if self.text_features is None:
            return None
        return read_text_vectors(Path(self.text_features).expanduser())

    def _config(self) -> Any:
        """The configuration of transformers, in float32."""
        stated = self._stated()
        if "auto_map" in stated and stated.get("model_type") not in CONFIG_MAPPING:
            raise ConfigError(
                f"model.path={self.path}: its {CONFIG} names code in the folder (auto_map), and no "
                "code of a folder is run here. Install it as a package of yours, and set "
                "model=module and model.target to its class."
            )
        if "model_type" not in stated or stated["model_type"] == "timm_wrapper":
            raise ConfigError(
                f"model.path={self.path}: its {CONFIG} names no model of transformers. Of a model "
                "of timm, set model=timm, model.backbone, and ckpt_path to its weights."
            )
        try:
            config = AutoConfig.from_pretrained(
                self._folder(), local_files_only=True, trust_remote_code=False
            )
        except RAISED as error:
            raise ConfigError(
                f"model.path={self.path}: {CONFIG} cannot be read ({reason(error)})."
            ) from error
        # Else a configuration could name code of the hub, or a kernel that is not seen into.
        config._attn_implementation = None
        for part in (config, getattr(config, "vision_config", None)):
            if part is not None:
                part.dtype = torch.float32
                if self.in_chans != 3:
                    part.num_channels = self.in_chans
        return config

    def _module(self, config: Any) -> nn.Module:
        kind = self.architecture or next(iter(config.architectures or ()), "")
        classifies = CLASSIFIER in kind
        if self.text_features or (config.model_type in _TOWERS and not classifies):
            return self._tower(config)
        if classifies or type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            return make_classifier(config, kind)
        encoder = AutoModel.from_config(config, trust_remote_code=False)
        return Encoder(encoder, config)

    def _tower(self, config: Any) -> nn.Module:
        text = self._text()
        if config.model_type not in _TOWERS:
            raise ConfigError(
                f"model.text_features: {self.path} is a {config.model_type}, whose images do not "
                f"compare with texts; those of {' and '.join(_TOWERS)} do."
            )
        return Tower(config, None if text is None else text.vectors_KD)


def _size_of(stated: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) of a `config.json`."""
    vision = stated.get("vision_config")
    for part in (stated, vision if isinstance(vision, Mapping) else {}):
        size = part.get("image_size")
        if isinstance(size, int):
            return size, size
        if isinstance(size, list) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None
