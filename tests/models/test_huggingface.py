"""Models of Hugging Face: as saved by transformers itself, and as exact as those of timm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.exactness import (
    Reshape,
    channels_first,
    embeddings,
    images,
    require_same_cam,
    roughen,
    shown_attention,
    tokens,
    windowed_mean,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.folders import Processor, weights_in
from artifactgen.models.huggingface import HuggingFace
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.stated import read_stated
from artifactgen.types import Framing

SIZE = (64, 64)
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
NAMES = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
PAIR = {"vision_config": VIT, "text_config": TEXT, "projection_dim": 24}


@dataclass(frozen=True, kw_only=True)
class Case:
    kind: str
    """Of `transformers.AutoConfig`."""
    options: dict[str, Any]
    reshape: Reshape
    layer: str
    prefix: int | None
    attention: str | None = None
    """Module path of the last attention."""
    cls: str = "AutoModelForImageClassification"
    query: str = "class token"


def vit(prefix: int, layer: str, attention: str, kind: str, **more: Any) -> Case:
    options = {**VIT, **more.pop("options", {})}
    return Case(
        kind=kind,
        options=options,
        reshape=tokens((4, 4), prefix),
        layer=layer,
        prefix=prefix,
        attention=attention,
        **more,
    )


MEAN = "mean over patches"
CASES = {
    "ViT": vit(1, "vit.layers.1.layernorm_before", "vit.layers.1.attention", "vit"),
    "DeiT, distilled": vit(
        *(2, "deit.layers.1.layernorm_before", "deit.layers.1.attention", "deit"),
        cls="DeiTForImageClassificationWithTeacher",
    ),
    "BEiT": vit(
        *(1, "beit.layers.1.layernorm_before", "beit.layers.1.attention", "beit"), query=MEAN
    ),
    "DINOv2": vit(1, "dinov2.encoder.layer.1.norm1", "dinov2.encoder.layer.1.attention", "dinov2"),
    "DINOv2, registers": vit(
        5,
        "dinov2_with_registers.encoder.layer.1.norm1",
        "dinov2_with_registers.encoder.layer.1.attention",
        "dinov2_with_registers",
        options={"num_register_tokens": 4},
    ),
    "SigLIP": Case(
        kind="siglip",
        options=PAIR,
        reshape=tokens((4, 4)),
        layer="vision_model.encoder.layers.1.layer_norm1",
        prefix=0,
        attention="vision_model.encoder.layers.1.self_attn",
        query=MEAN,
    ),
    "CLIP": Case(
        kind="clip",
        options=PAIR,
        reshape=tokens((4, 4), 1),
        layer="vision_model.encoder.layers.1.layer_norm1",
        prefix=1,
        attention="vision_model.encoder.layers.1.self_attn",
        query=MEAN,
    ),
    "Swin": Case(
        kind="swin",
        options={
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 3,
            "image_size": 64,
        },
        reshape=tokens((8, 8)),
        layer="swin.encoder.layers.1.blocks.1.layernorm_before",
        prefix=0,
        query=MEAN,
    ),
    "ConvNeXt": Case(
        kind="convnext",
        options={"depths": [1, 1], "hidden_sizes": [12, 24], "num_stages": 2},
        reshape=channels_first,
        layer="convnext.encoder.stages.1",
        prefix=None,
    ),
    "ResNet": Case(
        kind="resnet",
        options={"depths": [1, 1], "hidden_sizes": [12, 24], "embedding_size": 8},
        reshape=channels_first,
        layer="resnet.encoder.stages.1",
        prefix=None,
    ),
}


def save(folder: Path, kind: str, options: dict[str, Any], cls: str) -> nn.Module:
    """A model as transformers saves it, its weights random; in eval mode."""
    torch.manual_seed(0)
    named = {"id2label": NAMES, "label2id": {name: k for k, name in NAMES.items()}}
    config = transformers.AutoConfig.for_model(kind, **options, **named)
    made = getattr(transformers, cls)
    model: nn.Module = (made.from_config if cls.startswith("Auto") else made._from_config)(config)
    roughen(model).eval().requires_grad_(False)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3})
    )
    return model


def load(folder: Path, **options: Any) -> LoadedModel:
    """As the program loads it: by names and shapes, audited."""
    family = HuggingFace(path=str(folder), **options)
    checkpoint = read_checkpoint(identify(weights_in(str(folder))))
    return load_model(family, checkpoint, stated=read_stated(checkpoint, family))


def eager(folder: Path, kind: str = "AutoModelForImageClassification") -> Any:
    """The same model, loaded by transformers, with attention written out."""
    cls = getattr(transformers, kind)
    return cls.from_pretrained(folder, attn_implementation="eager").eval()


def fed(model: Any, x_BCHW: Tensor, heads: tuple[str, ...]) -> Tensor:
    """What the model's own classifier is given."""
    arrived: list[Tensor] = []
    for head in heads:
        layer = model.get_submodule(head)
        layer.register_forward_pre_hook(lambda _m, inputs: arrived.append(inputs[0]))
    with torch.no_grad():
        model(x_BCHW)
    return torch.stack(arrived).mean(0).flatten(1)


@pytest.mark.parametrize(
    "name", [n if n in ("ViT", "ResNet") else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_a_classifier(name: str, tmp_path: Path) -> None:
    case, x_BCHW = CASES[name], images(SIZE)
    save(tmp_path, case.kind, case.options, case.cls)
    loaded = load(tmp_path)
    network = loaded.network
    assert loaded.has_head
    assert loaded.audit.fits
    assert loaded.stated.classes == tuple(NAMES.values())
    assert network.traits.prefix_tokens == case.prefix
    model = eager(tmp_path, case.cls)
    with torch.no_grad():
        output = model(x_BCHW)
    vectors, logits_BK = embeddings(network)
    torch.testing.assert_close(logits_BK, output.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        vectors, fed(model, x_BCHW, network.classifiers), rtol=0, atol=1e-5
    )
    cam = require_same_cam(network, case.reshape)
    assert cam.layer == case.layer
    if case.attention is None:
        return
    bound, found = shown_attention(network, (0, 1))
    assert (bound.sites[-1].path, bound.query) == (case.attention, case.query)
    with torch.no_grad():
        weights = torch.stack(model(x_BCHW, output_attentions=True).attentions, 1)
    prefix = case.prefix or 0
    rows = weights[..., prefix:, :].mean(-2) if case.query == MEAN else weights[..., 0, :]
    expected = rows[..., prefix:].unflatten(-1, (4, 4)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_attention_within_windows(tmp_path: Path) -> None:
    case = CASES["Swin"]
    save(tmp_path, case.kind, case.options, case.cls)
    network, model = load(tmp_path).network, eager(tmp_path)
    kept: list[Tensor] = []
    for path, layer in model.named_modules():
        if path.endswith(".attention"):
            layer.register_forward_hook(lambda _m, _i, output: kept.append(output[1]))
    with torch.no_grad():
        model(images(SIZE))
    for index, shift in enumerate((0, 1, 0, 1)):
        side = (16, 8)[index // 2]
        _, found = shown_attention(network, (index,))
        expected = windowed_mean(kept[index], side, 3, shift)
        np.testing.assert_allclose(found[:, 0], expected.numpy(), rtol=0, atol=1e-5)
