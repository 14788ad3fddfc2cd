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
from artifactgen.models.hub import Processor, checkpoint_of
from artifactgen.models.huggingface import HuggingFace
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.stated import read_stated
from artifactgen.models.text_vectors import read_text_vectors
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
    checkpoint = read_checkpoint(identify(checkpoint_of(str(folder))))
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
    "name",
    [n if n in ("ViT", "ResNet") else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
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
    torch.testing.assert_close(vectors, fed(model, x_BCHW, network.classifiers), rtol=0, atol=1e-5)
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


DINOV3 = {**VIT, "num_register_tokens": 4}
CONVNEXTS = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 12, 24]}


@pytest.mark.parametrize(
    ("kind", "options", "layer", "reshape"),
    [
        ("dinov3_vit", DINOV3, "encoder.model.layer.1.norm1", tokens((4, 4), 5)),
        ("dinov3_convnext", CONVNEXTS, "encoder.model.stages.3", channels_first),
    ],
)
def test_an_encoder_and_a_linear_probe_beside_it(
    kind: str, options: dict[str, Any], layer: str, reshape: Reshape, tmp_path: Path
) -> None:
    model: Any = save(tmp_path, kind, options, "AutoModel")
    x_BCHW = images(SIZE)
    alone = load(tmp_path)
    assert not alone.has_head
    with torch.no_grad():
        pooled_BD = model(x_BCHW).pooler_output
    torch.testing.assert_close(embeddings(alone.network)[0], pooled_BD, rtol=0, atol=1e-5)
    # As a LightningModule keeps them: names of the module, not those of the hub.
    probe = nn.Linear(pooled_BD.shape[1], 4)
    weights = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    weights |= {f"head.{name}": value for name, value in probe.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "probe.ckpt")
    checkpoint = read_checkpoint(identify(tmp_path / "probe.ckpt"))
    loaded = load_model(HuggingFace(path=str(tmp_path)), checkpoint)
    assert loaded.has_head
    assert loaded.audit.head_from.startswith("head (Linear")
    logits_BK = embeddings(loaded.network)[1]
    torch.testing.assert_close(logits_BK, probe(pooled_BD).detach(), rtol=0, atol=1e-5)
    assert require_same_cam(loaded.network, reshape).layer == layer
    if kind == "dinov3_vit":
        _, found = shown_attention(loaded.network, (0, 1))
        with torch.no_grad():
            maps = eager(tmp_path, "AutoModel")(x_BCHW, output_attentions=True).attentions
        expected = torch.stack(maps, 1)[..., 0, 5:].unflatten(-1, (4, 4))
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_an_encoder_alone_gives_what_would_be_classified(tmp_path: Path) -> None:
    model: Any = save(tmp_path, "vit", VIT, "AutoModel")
    assert model.pooler is not None
    loaded = load(tmp_path)
    assert (loaded.has_head, loaded.audit.fits) == (False, True)
    assert loaded.audit.naming == "transformers, as saved, vit alone"
    with torch.no_grad():
        expected = model(images(SIZE)).last_hidden_state[:, 0]
    torch.testing.assert_close(embeddings(loaded.network)[0], expected, rtol=0, atol=1e-5)


def test_images_of_another_size_have_their_positions_resampled_as_transformers_does(
    tmp_path: Path,
) -> None:
    model: Any = save(tmp_path, "vit", VIT, "AutoModelForImageClassification")
    loaded = load(tmp_path, image_size=(96, 80))
    with torch.no_grad():
        expected = model(images((96, 80)), interpolate_pos_encoding=True).logits
    torch.testing.assert_close(embeddings(loaded.network)[1], expected, rtol=0, atol=1e-5)
    assert loaded.network.traits.patch_grid == (6, 5)
    require_same_cam(loaded.network, tokens((6, 5), 1))


def write_texts(file: Path, vectors_KD: Tensor) -> str:
    names = list(NAMES.values())
    if file.suffix == ".npy":
        np.save(file, vectors_KD.numpy())
    elif file.suffix == ".safetensors":
        save_file({"features": vectors_KD}, file, metadata={"classes": json.dumps(names)})
    else:
        torch.save({"features": vectors_KD, "classes": names}, file)
    return str(file)


@pytest.mark.parametrize(
    ("kind", "width", "ending", "prefix", "layer"),
    [
        ("clip", 24, ".pt", 1, "vision_model.encoder.layers.1.layer_norm1"),
        ("siglip", 32, ".safetensors", 0, "vision_model.post_layernorm"),
        pytest.param(
            *("clip", 24, ".npy", 1, "vision_model.encoder.layers.1.layer_norm1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_text_vectors_classify(
    kind: str, width: int, ending: str, prefix: int, layer: str, tmp_path: Path
) -> None:
    text = {**TEXT, "projection_size": 32} if kind == "siglip" else TEXT
    model: Any = save(tmp_path, kind, {**PAIR, "text_config": text}, "AutoModel")
    x_BCHW = images(SIZE)
    words = torch.randint(3, 90, (4, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(input_ids=words, pixel_values=x_BCHW)
        image_BD = model.get_image_features(x_BCHW).pooler_output
        text_KD = model.get_text_features(words).pooler_output
    assert text_KD.shape == (4, width)
    texts = write_texts(tmp_path / f"texts{ending}", text_KD)
    loaded = load(tmp_path, text_features=texts)
    assert (loaded.has_head, loaded.audit.fits) == (True, True)
    assert loaded.audit.head == f"of the text vectors in {texts}"
    assert loaded.stated.classes == (() if ending == ".npy" else tuple(NAMES.values()))
    vectors, logits_BK = embeddings(loaded.network)
    torch.testing.assert_close(vectors, image_BD, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_BK, output.logits_per_image, rtol=0, atol=1e-5)
    assert require_same_cam(loaded.network, tokens((4, 4), prefix)).layer == layer
    alone = load(tmp_path)
    assert not alone.has_head
    torch.testing.assert_close(embeddings(alone.network)[0], image_BD, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3, 24), "vectors of zeros"),
        (torch.ones(3), r"holds \(3,\), no \(classes, width\) tensor"),
        (torch.ones(3, 5), "vectors of 5 numbers, and images have 24"),
        ({"features": torch.ones(3, 24), "classes": ["a"]}, "names of 1 classes"),
        ({"vectors": 3}, "holds NoneType"),
    ],
)
def test_text_vectors_that_do_not_fit(content: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path, "clip", PAIR, "AutoModel")
    torch.save(content, tmp_path / "texts.pt")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text_features=str(tmp_path / "texts.pt"))


def test_files_of_text_vectors_are_told_by_their_endings(tmp_path: Path) -> None:
    vectors_KD = torch.eye(4)
    for ending in (".npy", ".safetensors", ".pt"):
        file = tmp_path / f"texts{ending}"
        write_texts(file, vectors_KD)
        shouted = file.rename(tmp_path / f"TEXTS{ending.upper()}")
        assert torch.equal(read_text_vectors(shouted).vectors_KD, vectors_KD)
    save_file({"features": vectors_KD}, file, metadata={"classes": "5"})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_text_vectors(file.rename(tmp_path / "texts.safetensors"))


def test_text_vectors_for_a_model_that_knows_no_texts(tmp_path: Path) -> None:
    save(tmp_path, "vit", VIT, "AutoModel")
    torch.save(torch.ones(3, 24), tmp_path / "texts.pt")
    with pytest.raises(ConfigError, match="whose images do not compare with texts"):
        load(tmp_path, text_features=str(tmp_path / "texts.pt"))
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path, text_features=str(tmp_path / "other.pt"))


def test_another_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save(tmp_path, "vit", VIT, "AutoModelForImageClassification")
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layer.1." not in k}, tmp_path / "less.safetensors"
    )
    checkpoint = read_checkpoint(identify(tmp_path / "less.safetensors"))
    with pytest.raises(CheckpointError, match=r"(?s)describes a ViTForImageClassification. Set "):
        load_model(HuggingFace(path=str(tmp_path)), checkpoint)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "model.path is not set"),
        ("google/vit-base-patch16-224", "hf download google/vit-base-patch16-224"),
        ("./nowhere", "no such folder"),
        ("{empty}", "there is no config.json"),
    ],
)
def test_a_folder_that_is_not_there(
    path: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    named = path.format(empty=tmp_path) if path else path
    with pytest.raises(ConfigError, match=message):
        HuggingFace(path=named).build()


def test_a_model_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    folder = repository / "snapshots" / "0123"
    folder.mkdir(parents=True)
    save(folder, "vit", VIT, "AutoModelForImageClassification")
    assert checkpoint_of("somebody/small") == folder / "model.safetensors"
    family = HuggingFace(path="somebody/small")
    assert (family.name, family.input_size()) == ("small", SIZE)
    assert family.build().classifiers == ("classifier",)


@pytest.mark.parametrize(
    ("values", "size", "framing"),
    [
        ({"size": {"height": 224, "width": 224}}, (224, 224), Framing(1, "squash", "bilinear")),
        ({"size": 384, "resample": 3}, (384, 384), Framing(1, "squash", "bicubic")),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            (224, 224),
            Framing(224 / 256, "center", "bilinear", rounds_down=True),
        ),
        (
            {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3},
            (224, 224),
            Framing(1, "center", "bicubic", rounds_down=True),
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
            (224, 224),
            Framing(224 / 256, "center", "bicubic", rounds_down=True),
        ),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.9},
            (384, 384),
            Framing(1, "squash", "bilinear"),
        ),
        ({}, None, Framing(interpolation="bilinear")),
    ],
    ids=["height", "number", "shortest edge", "CLIP", "ConvNeXt", "ConvNeXt, large", "nothing"],
)
def test_what_a_processor_says(
    values: dict[str, Any], size: tuple[int, int] | None, framing: Framing
) -> None:
    processor = Processor(values)
    assert processor.size() == size
    assert processor.framing() == framing


def test_pixels_of_another_range() -> None:
    plain = {"image_mean": [0.5], "image_std": [0.25]}
    assert Processor(plain).normalization() == ((0.5,), (0.25,))
    scaled = Processor({**plain, "rescale_factor": 2 / 255}).normalization()
    assert scaled is not None
    np.testing.assert_allclose(scaled, ((0.25,), (0.125,)))
    assert Processor({"do_normalize": False}).normalization() == ((0.0,), (1.0,))
    assert Processor({}).normalization() is None


@pytest.mark.parametrize("kind", ["vit", "mine"])
def test_no_code_that_a_folder_names_is_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a module beside the configuration, nor a kernel of the hub; nobody is asked."""
    monkeypatch.setattr("builtins.input", lambda _prompt: "y")
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    hostile = {
        **VIT,
        "model_type": kind,
        "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Net"},
        "attn_implementation": "somebody/kernel",
    }
    (tmp_path / "config.json").write_text(json.dumps(hostile))
    family = HuggingFace(path=str(tmp_path))
    if kind == "vit":
        assert embeddings(family.build())[0].shape == (3, 32)
    else:
        with pytest.raises(ConfigError, match=r"names code in the folder \(auto_map\).*=module"):
            family.build()
    assert not (tmp_path / "ran").exists()
