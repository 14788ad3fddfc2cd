"""What every model family keeps to: walks the YAMLs of `configs/model/`."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import ViTConfig

from artifactgen.errors import CheckpointError
from artifactgen.introspect.forward import forward
from artifactgen.introspect.probe import probe
from artifactgen.introspect.taps import Taps
from artifactgen.models.base import Family, Network, Traits
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.hooked import logits_of
from artifactgen.models.loading import load_model

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
DRIVERS = {"_target_", "mean", "std", "classes", "compile"}
SIZE = (64, 64)
SMALL = {
    "timm": {"backbone": "test_vit"},
    "mae_vit": {"backbone": "test_vit", "global_pool": "avg"},
    "module": {"target": "helpers.networks.Convolutions"},
    "torchvision": {"backbone": "resnet18"},
}
"""What makes a default model small, where it is not."""


@pytest.fixture(params=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Family:
    """As its YAML has it, but small."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / f"{request.param}.yaml").read_text("utf-8"))
    module, _, name = config["_target_"].rpartition(".")
    options = {key: value for key, value in config.items() if key not in DRIVERS}
    own = {"path": str(described_vit(tmp_path))} if "path" in options else {}
    small = {**options, **SMALL.get(request.param, {}), **own}
    small |= {"num_classes": 4, "image_size": SIZE}
    made: Family = getattr(importlib.import_module(module), name)(**small)
    return made


def described_vit(folder: Path) -> Path:
    """What a folder of Hugging Face says of a small model."""
    ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def network(family: Family) -> Network:
    torch.manual_seed(0)
    return family.build()


@pytest.fixture
def x_BCHW(family: Family) -> torch.Tensor:
    return torch.randn(3, family.in_chans, *SIZE, generator=torch.Generator().manual_seed(1))


def test_it_is_a_frozen_value_that_travels(family: Family) -> None:
    assert isinstance(family, Family)
    assert type(family).__dataclass_params__.frozen
    assert pickle.loads(pickle.dumps(family)) == family
    assert family.name


def test_what_is_told_without_building_it(family: Family) -> None:
    assert dataclasses.replace(family, image_size=None).input_size()
    assert family.input_size() == SIZE
    mean, std = family.normalization()
    assert len(mean) == len(std) == family.in_chans
    assert min(std) > 0


def test_a_network_is_ready_to_be_looked_into(network: Network) -> None:
    assert isinstance(network.traits, Traits)
    assert network.family.num_classes == 4
    assert not network.module.training
    assert all(
        not p.requires_grad and p.dtype == torch.float32 for p in network.module.parameters()
    )
    paths = dict(network.module.named_modules())
    assert network.classifiers
    assert set(network.classifiers) <= set(paths)
    assert probe(network, SIZE).outputs


def test_the_halves_of_a_pass(network: Network, x_BCHW: torch.Tensor) -> None:
    with torch.inference_mode():
        features, logits_BK = network.forward(x_BCHW, classify=True)
        embedding_BD = network.embed(features)
        expected = logits_of(network.module(x_BCHW))
        _, without = network.forward(x_BCHW, classify=False)
    assert without is None
    assert logits_BK is not None
    torch.testing.assert_close(logits_BK, expected, rtol=0, atol=1e-5)
    assert embedding_BD.ndim == 2
    assert len(embedding_BD) == len(x_BCHW)
    layer = network.module.get_submodule(network.classifiers[0])
    assert isinstance(layer, nn.Linear)
    torch.testing.assert_close(layer(embedding_BD), expected, rtol=0, atol=1e-5)


def test_a_batch_is_its_images_one_at_a_time(network: Network, x_BCHW: torch.Tensor) -> None:
    whole = forward(network, x_BCHW, taps=Taps(), classify=True)
    for index in range(len(x_BCHW)):
        alone = forward(network, x_BCHW[index : index + 1], taps=Taps(), classify=True)
        for name in ("pre_logits_BD", "logits_BK"):
            part = getattr(whole, name)[index : index + 1]
            torch.testing.assert_close(getattr(alone, name), part, rtol=0, atol=1e-5)


def test_no_hook_is_left_not_even_after_an_exception(
    network: Network, x_BCHW: torch.Tensor
) -> None:
    def hooks() -> int:
        modules = list(network.module.modules())
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    forward(network, x_BCHW, taps=Taps(), classify=True)
    assert hooks() == 0
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        network.forward(x_BCHW[:, :1, :5], classify=True)
    assert hooks() == 0
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_its_own_checkpoint_fills_it_and_decides_what_is_left_open(
    family: Family, network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    wrapped = {f"net.{name}": value for name, value in network.module.state_dict().items()}
    torch.save({"state_dict": wrapped}, path)
    file = identify(path)
    loaded = load_model(dataclasses.replace(family, num_classes=None), read_checkpoint(file))
    assert loaded.has_head
    assert loaded.audit.fits
    assert loaded.network.family.num_classes == 4
    own = loaded.network.module.state_dict()
    assert all(
        torch.equal(own[name], tensor) for name, tensor in network.module.state_dict().items()
    )


def test_a_hint_for_what_does_not_fit_always_says_something(
    family: Family, network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"other.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"does not fit (?s:.)*\n.+"):
        load_model(family, read_checkpoint(identify(path)))
