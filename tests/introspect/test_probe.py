"""What is seen of a model, and that nothing of the looking stays."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from artifactgen.errors import UnsupportedError
from artifactgen.introspect.probe import probe
from artifactgen.introspect.sites import attention_sites
from artifactgen.models.timm import as_network


def make(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=3, **options)
    return model.eval().requires_grad_(False)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_layers_and_attention_in_the_order_of_the_computation() -> None:
    seen = probe(as_network(make("test_vit", img_size=64)), (64, 64))
    assert list(seen.attention) == [f"blocks.{index}.attn" for index in range(6)]
    assert seen.attention["blocks.0.attn"] == [(1, 2, 17, 17)]
    paths = list(seen.outputs)
    assert paths.index("blocks.0.norm1") < paths.index("blocks.0.attn") < paths.index("blocks.0")
    assert seen.outputs["blocks.0"].shape == (1, 17, 64)
    assert seen.outputs["blocks.0"].is_meta, "shapes only, or large models would not fit"


def test_a_softmax_layer_counts_as_its_attention() -> None:
    seen = probe(as_network(make("swin_tiny_patch4_window7_224", img_size=64)), (64, 64))
    assert list(seen.attention)[-1] == "layers.3.blocks.1.attn"


def test_nothing_of_the_looking_stays_even_after_an_exception() -> None:
    model = make("test_vit", img_size=64)

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    broken = model.get_submodule("blocks.3.attn.proj").register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        probe(as_network(model), (64, 64))
    broken.remove()
    assert hooks_of(model) == 0
    assert not torch.overrides._get_current_function_mode_stack()
    probe(as_network(model), (64, 64))
    assert hooks_of(model) == 0


@pytest.mark.parametrize(
    ("name", "options", "site"),
    [
        ("test_vit", {"img_size": 64}, ("blocks.5.attn", 2, (4, 4), 1, True)),
        ("test_vit", {"img_size": 64, "reg_tokens": 4}, ("blocks.5.attn", 2, (4, 4), 5, True)),
        (
            "test_vit",
            {"img_size": 64, "class_token": False, "global_pool": "avg"},
            ("blocks.5.attn", 2, (4, 4), 0, False),
        ),
        ("cait_xxs24_224", {"img_size": 64}, ("blocks_token_only.1.attn", 4, (4, 4), 1, True)),
        ("pit_ti_224", {"img_size": 96}, ("transformers.2.blocks.3.attn", 8, (3, 3), 1, True)),
        ("pvt_v2_b0", {}, ("stages.3.blocks.1.attn", 8, (2, 2), 0, False)),
        (
            "samvit_base_patch16_224",
            {"img_size": 64, "depth": 2, "global_attn_indexes": (1,)},
            ("blocks.1.attn", 12, (4, 4), 0, False),
        ),
    ],
)
def test_the_last_attention_that_can_be_shown(
    name: str, options: dict[str, object], site: tuple[object, ...]
) -> None:
    size = options.get("img_size", 64)
    assert isinstance(size, int)
    last = attention_sites(probe(as_network(make(name, **options)), (size, size)))[-1]
    grid = last.grid
    assert (last.path, last.heads, grid.size, grid.prefix_tokens, last.has_class_query) == site


def test_windows_hold_every_position_once() -> None:
    model = make("swin_tiny_patch4_window7_224", img_size=(64, 96), window_size=4)
    sites = attention_sites(probe(as_network(model), (64, 96)))
    for site in sites[:4]:
        assert site.windows is not None
        positions = site.windows.positions
        held = np.sort(positions[positions >= 0])
        assert held.tolist() == list(range(site.grid.height * site.grid.width))
    regular, shifted = sites[0].windows, sites[1].windows
    assert regular is not None
    assert shifted is not None
    assert regular.positions[0].tolist() == [r * 24 + c for r in range(4) for c in range(4)]
    assert shifted.positions[0].tolist() == [r * 24 + c for r in range(2, 6) for c in range(2, 6)]


def test_grids_of_maxvit_are_spread_over_the_image() -> None:
    model = make("maxvit_tiny_rw_224", img_size=64)
    sites = {site.path: site for site in attention_sites(probe(as_network(model), (64, 64)))}
    block = sites["stages.0.blocks.0.attn_block.attn"].windows
    spread = sites["stages.0.blocks.0.attn_grid.attn"].windows
    assert block is not None
    assert spread is not None
    assert block.positions[0, :2].tolist() == [0, 1]
    assert spread.positions[0, :2].tolist() == [0, 16 // 2]


@pytest.mark.parametrize("name", ["resnet18", "edgenext_xx_small", "mobilevit_xxs"])
def test_models_without_attention_to_show(name: str) -> None:
    with pytest.raises(UnsupportedError, match="attention"):
        attention_sites(probe(as_network(make(name)), (64, 64)))
