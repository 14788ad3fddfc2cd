"""Networks of transformers, built from a configuration, and the names of their weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModel, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.text_vectors import TextClassifier

CLASSIFIER = "ForImageClassification"


class Encoder(nn.Module):
    """A model of transformers without a classifier, and one behind its pooled output."""

    def __init__(self, encoder: nn.Module, config: Any) -> None:
        super().__init__()
        self.encoder = encoder
        sizes = getattr(config, "hidden_sizes", None)
        self.classifier = nn.Linear(sizes[-1] if sizes else config.hidden_size, 2)

    def forward(self, pixel_values: Tensor, **arguments: Any) -> Tensor:
        """Logits (B, K)."""
        output = self.encoder(pixel_values, **arguments)
        pooled = getattr(output, "pooler_output", None)
        pooled_BD = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
        logits_BK: Tensor = self.classifier(pooled_BD)
        return logits_BK


class Tower(nn.Module):
    """The tower for images of CLIP or SigLIP; its embedding is what compares with texts."""

    def __init__(self, config: Any, text_KD: Tensor | None) -> None:
        super().__init__()
        self.vision_model = AutoModel.from_config(config.vision_config, trust_remote_code=False)
        width = config.vision_config.hidden_size
        projected = config.projection_dim if config.model_type == "clip" else width
        self.visual_projection = (
            nn.Linear(width, projected, bias=False) if config.model_type == "clip" else None
        )
        self.classifier: nn.Module = nn.Linear(projected, 2)
        if text_KD is None:
            return
        if text_KD.shape[1] != projected:
            raise ConfigError(
                f"model.text_features: vectors of {text_KD.shape[1]} numbers, and images have "
                f"{projected}. Take those of get_text_features of the same model."
            )
        self.classifier = TextClassifier(text_KD)
        is_siglip = config.model_type == "siglip"
        self.logit_scale = nn.Parameter(torch.zeros(1) if is_siglip else torch.tensor(0.0))
        self.logit_bias = nn.Parameter(torch.zeros(1)) if is_siglip else None

    def forward(self, pixel_values: Tensor, **arguments: Any) -> Tensor:
        """Logits (B, K)."""
        embedding_BD = self.vision_model(pixel_values, **arguments).pooler_output
        if self.visual_projection is not None:
            embedding_BD = self.visual_projection(embedding_BD)
        more = (self.logit_scale, self.logit_bias) if hasattr(self, "logit_scale") else ()
        logits_BK: Tensor = self.classifier(embedding_BD, *more)
        return logits_BK


def make_classifier(config: Any, kind: str) -> nn.Module:
    """A model with a classifier of its own."""
    listed = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    classes = {c.__name__: c for c in (listed if isinstance(listed, tuple) else (listed,)) if c}
    if CLASSIFIER in kind and kind not in classes:
        hint = did_you_mean(kind, classes) if classes else ""
        raise ConfigError(f"model.architecture: a {config.model_type} is no {kind}. {hint}")
    cls = classes.get(kind) or next(iter(classes.values()))
    vision = getattr(config, "vision_config", None)
    if vision is not None and getattr(vision, "vision_use_head", False):
        vision.vision_use_head = False  # a pooling that the classifier does not use
    module: nn.Module = cls._from_config(config)
    return module


def resampling(module: nn.Module, config: Any, size: tuple[int, int]) -> dict[str, Any]:
    """The argument by which a model takes images of another size than it was trained on."""
    own = getattr(getattr(config, "vision_config", config), "image_size", None)
    own = (own, own) if isinstance(own, int) else own and tuple(own)
    inner = {Encoder: "encoder", Tower: "vision_model"}.get(type(module))
    asked = getattr(module, inner) if inner else module
    takes = "interpolate_pos_encoding" in inspect.signature(asked.forward).parameters
    return {"interpolate_pos_encoding": True} if takes and own not in (None, size) else {}


def layouts(module: nn.Module) -> dict[str, dict[str, str]]:
    """Names under which transformers and its users save the same weights: to the module's own."""
    found: dict[str, dict[str, str]] = {}
    own = {name: name for name in module.state_dict()}
    saved = dict(_saved_names(module))
    for title, names in (("transformers", own), ("transformers, as saved", saved)):
        if names != own:
            found[title] = names
        for root in _roots(module):
            inner = {k.removeprefix(root): v for k, v in names.items() if k.startswith(root)}
            if inner:
                found[f"{title}, {root.rstrip('.')} alone"] = inner
    return found


def _roots(module: nn.Module) -> Iterator[str]:
    """Prefixes of the encoder, which may be saved alone."""
    for name in (getattr(module, "base_model_prefix", ""), "vision_model", "encoder"):
        if name and isinstance(getattr(module, name, None), nn.Module):
            yield f"{name}."


def _saved_names(module: nn.Module) -> Iterator[tuple[str, str]]:
    """What `save_pretrained` calls the weights, and files of before version 5 do."""
    whole = ((p, m) for p, m in module.named_modules() if isinstance(m, PreTrainedModel))
    path, part = next(whole)
    prefix, own = f"{path}." if path else "", part.state_dict()
    by_place = {tensor.data_ptr(): name for name, tensor in own.items()}
    for name, tensor in revert_weight_conversion(part, dict(own)).items():
        if tensor.data_ptr() in by_place:
            yield prefix + name, prefix + by_place[tensor.data_ptr()]
    yield from ((name, name) for name in module.state_dict() if not name.startswith(prefix))
