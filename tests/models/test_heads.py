"""Classifiers beside the encoder: loaded as the training computes them, or not at all, and said."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.timm import Timm

CLASSES, SIZE = 4, 160
Make = Callable[[int], nn.Module]


class Training(nn.Module):
    """As most LightningModules are: a network without a classifier, and one beside it."""

    def __init__(self, backbone: str, head: Make, name: str = "head", **options: Any) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, num_classes=0, **options)
        self.name = name
        setattr(
            self,
            name,
            head(getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits: Tensor = getattr(self, self.name)(self.backbone(x_BCHW))
        return logits


def trained(module: nn.Module) -> nn.Module:
    """In eval mode, all weights and statistics random."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            spread = torch.rand_like(tensor) if "running_var" in name else torch.randn_like(tensor)
            tensor.copy_(spread * 0.1 + (0.5 if tensor.ndim == 1 else 0))
    return module.eval()


def load(
    folder: Path, state: dict[str, Tensor], family: Timm, *, container: str = "state_dict"
) -> LoadedModel:
    torch.save({container: state}, folder / "last.ckpt")
    return load_model(family, read_checkpoint(identify(folder / "last.ckpt")))


@torch.inference_mode()
def assert_computes(loaded: LoadedModel, module: nn.Module, size: int = SIZE) -> None:
    """The same logits as the module of the training, and the embedding that its head is fed."""
    x_BCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    features, logits_BK = loaded.network.forward(x_BCHW, classify=True)
    assert loaded.has_head
    torch.testing.assert_close(logits_BK, module(x_BCHW), rtol=0, atol=1e-5)
    backbone: Any = module.backbone
    torch.testing.assert_close(loaded.network.embed(features), backbone(x_BCHW), rtol=0, atol=1e-5)


def linear(width: int) -> nn.Module:
    return nn.Linear(width, CLASSES)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, CLASSES))


FORMS: dict[str, tuple[Make, str]] = {
    "linear": (linear, "head (Linear 64 → 4)"),
    "no bias": (lambda width: nn.Linear(width, CLASSES, bias=False), "head (Linear 64 → 4)"),
    "in a Sequential": (lambda width: nn.Sequential(linear(width)), "head (Linear 64 → 4)"),
    "dropout": (
        lambda width: nn.Sequential(nn.Dropout(), linear(width)),
        "head (Linear 64 → 4), fed with its class token, dropout before it assumed",
    ),
    "layer norm": (
        lambda width: nn.Sequential(nn.LayerNorm(width), linear(width)),
        "head (LayerNorm, Linear 64 → 4), fed with its class token, eps 1e-05 of its norm assumed",
    ),
    "batch norm": (
        lambda width: nn.Sequential(nn.BatchNorm1d(width), linear(width)),
        "head (BatchNorm1d, Linear 64 → 4)",
    ),
    "without scale": (
        lambda width: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES, bias=False)),
        "head (LayerNorm, Linear 64 → 4)",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_those_of_the_training(tmp_path: Path, form: str) -> None:
    head, told = FORMS[form]
    module = trained(Training("test_vit", head))
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    assert_computes(loaded, module)
    assert loaded.network.family.num_classes == CLASSES
    assert f"head loaded from {told}" in loaded.audit.summary()
    assert loaded.audit.unexpected == ()


@pytest.mark.parametrize(
    ("backbone", "options", "size"),
    [
        ("test_vit", {}, 160),
        ("test_vit", {"global_pool": "avg"}, 160),
        ("test_resnet", {}, 160),
        ("test_convnext", {}, 160),
        ("test_efficientnet", {}, 160),
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2), "img_size": 56},
            56,
        ),
        ("mobilenetv3_small_050", {}, 64),
    ],
)
@pytest.mark.parametrize("form", ["linear", "layer norm"])
def test_every_architecture_feeds_it_as_in_training(
    tmp_path: Path, backbone: str, options: dict[str, Any], size: int, form: str
) -> None:
    module = trained(Training(backbone, FORMS[form][0], **options))
    own = {key: value for key, value in options.items() if key not in ("global_pool", "img_size")}
    family = Timm(backbone=backbone, image_size=(size, size), options=own)
    assert_computes(load(tmp_path, module.state_dict(), family), module, size)


@pytest.mark.parametrize("name", ["head", "classifier", "fc", "my_very_own"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "system.net."])
def test_it_may_have_any_name_and_lie_deep(tmp_path: Path, name: str, prefix: str) -> None:
    module = trained(Training("test_vit", linear, name))
    state = {prefix + key: tensor for key, tensor in module.state_dict().items()}
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert_computes(loaded, module)
    assert f"from {prefix}{name} (Linear" in loaded.audit.summary()


def test_a_classifier_that_was_put_into_the_network(tmp_path: Path) -> None:
    """`model.fc = nn.Sequential(nn.Dropout(), nn.Linear(…))`, as tutorials have it."""
    for form in ("dropout", "layer norm"):
        model = timm.create_model("test_resnet", num_classes=9)
        model.fc = FORMS[form][0](model.num_features)
        trained(model)
        loaded = load(tmp_path, model.state_dict(), Timm(backbone="test_resnet"))
        x_BCHW = torch.randn(2, 3, SIZE, SIZE)
        with torch.inference_mode():
            _, logits_BK = loaded.network.forward(x_BCHW, classify=True)
            torch.testing.assert_close(logits_BK, model(x_BCHW), rtol=0, atol=1e-5)


def test_the_models_own_classifier_goes_first(tmp_path: Path) -> None:
    module = trained(Training("test_vit", linear))
    module.backbone = trained(timm.create_model("test_vit", num_classes=CLASSES))
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    assert loaded.audit.head_from == ""
    own = loaded.network.module.get_submodule("head").weight
    assert torch.equal(own, module.backbone.get_submodule("head").weight)


def test_the_teachers_head_goes_with_the_teacher(tmp_path: Path) -> None:
    student, teacher = (trained(Training("test_vit", linear)) for _ in range(2))
    for parameter in teacher.parameters():
        parameter.data += 0.01
    state = {f"student.{k}": v for k, v in student.state_dict().items()}
    state |= {f"teacher.{k}": v for k, v in teacher.state_dict().items()}
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert_computes(loaded, teacher)
    assert "teacher.head" in loaded.audit.head_from


def test_a_worker_loads_the_same_from_what_was_decided(tmp_path: Path) -> None:
    module = trained(Training("test_vit", FORMS["layer norm"][0], "classify"))
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    again = load_model(loaded.network.family, read_checkpoint(identify(tmp_path / "last.ckpt")))
    assert again.network.family == loaded.network.family
    assert again.network.family.head == "classify"
    assert_computes(again, module)


def test_loss_weights_and_decoders_are_no_classifiers(tmp_path: Path) -> None:
    state = trained(Training("test_vit", linear, "decoder_embed")).state_dict()
    state |= {"criterion.weight": torch.ones(4), "temperature": torch.ones(1)}
    loaded = load(tmp_path, dict(state), Timm(backbone="test_vit"))
    assert (loaded.has_head, loaded.audit.head) == (False, "absent")
    assert loaded.audit.head_note == (
        "decoder_embed (Linear 64 → 4) lies beside the encoder and its name says something else "
        "(decoder): set model.head=decoder_embed if it is the classifier"
    )


@pytest.mark.parametrize(
    "name",
    ["predictor", "prediction_head", "semantic_head", "schema_fc", "maskless", "fcHead"],
)
def test_a_part_of_a_word_is_no_word(tmp_path: Path, name: str) -> None:
    module = trained(Training("test_vit", linear, name))
    assert_computes(load(tmp_path, module.state_dict(), Timm(backbone="test_vit")), module)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ema_head", "ema"),
        ("AuxHead", "aux"),
        ("mask.fc", "mask"),
        ("head_proj", "proj"),
        ("age_regressor", "regressor"),
    ],
)
def test_what_is_called_something_else_is_asked_for_by_name(
    tmp_path: Path, name: str, word: str
) -> None:
    module = trained(Training("test_vit", linear, "head"))
    state = {k.replace("head.", f"{name}."): v for k, v in module.state_dict().items()}
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert not loaded.has_head
    assert f"its name says something else ({word}): set model.head={name}" in (
        loaded.audit.head_note
    )
    assert_computes(load(tmp_path, state, Timm(backbone="test_vit", head=name)), module)


def test_the_head_of_an_average_is_named_after_it(tmp_path: Path) -> None:
    module = trained(Training("test_vit", linear))
    state = {f"ema_model.{name}": tensor for name, tensor in module.state_dict().items()}
    assert_computes(load(tmp_path, state, Timm(backbone="test_vit")), module)


def test_one_output_is_a_classifier_only_if_it_is_asked_for(tmp_path: Path) -> None:
    module = trained(Training("test_vit", lambda width: nn.Linear(width, 1), "age"))
    state = module.state_dict()
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert not loaded.has_head
    assert loaded.audit.head_note == (
        "age (Linear 64 → 1) lies beside the encoder and has a single output, as a regression "
        "has: set model.head=age if it is the classifier"
    )
    for asked in ({"head": "age"}, {"num_classes": 1}):
        assert_computes(load(tmp_path, state, Timm(backbone="test_vit", **asked)), module)


def test_a_classifier_beside_a_regression_is_taken(tmp_path: Path) -> None:
    module = trained(Training("test_vit", linear))
    state = {**module.state_dict(), "age.weight": torch.ones(1, 64), "age.bias": torch.ones(1)}
    assert_computes(load(tmp_path, state, Timm(backbone="test_vit")), module)


@pytest.mark.parametrize("shape", [(CLASSES, 128), (CLASSES, 64, 1, 1)])
def test_a_head_of_a_form_that_is_not_known_is_said(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """GradCAM would say that the checkpoint has none."""
    state = dict(trained(Training("test_vit", linear)).state_dict())
    state["head.weight"] = torch.ones(shape)
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert loaded.audit.head_note == (
        "head beside the encoder could be one, and it has no form that is known here"
    )


def test_a_students_copy_of_the_network_is_no_head(tmp_path: Path) -> None:
    backbone = trained(timm.create_model("test_vit", num_classes=0, depth=1)).state_dict()
    state = {f"{of}.{k}": v for of in ("student", "teacher") for k, v in backbone.items()}
    state |= {f"text.{i}.weight": torch.ones(64, 64, 1) for i in range(9)}
    loaded = load(tmp_path, state, Timm(backbone="test_vit", options={"depth": 1}))
    assert (loaded.audit.fits, loaded.audit.head_note) == (True, "")


# What weights do not tell.


def test_what_is_between_two_linear_layers_has_to_be_said(tmp_path: Path) -> None:
    module = trained(Training("test_vit", mlp))
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    assert not loaded.has_head
    assert loaded.audit.head_note == (
        "head (Linear 64 → 8, Linear 8 → 4) lies beside the encoder, and what is between its "
        "layers leaves no trace in weights: say it, as in "
        "model.head_layers=[Linear,ReLU,Dropout,Linear]"
    )
    layers = ("Linear", "GELU", "Dropout", "Linear")
    told = load(tmp_path, module.state_dict(), Timm(backbone="test_vit", head_layers=layers))
    assert_computes(told, module)
    assert "head (Linear 64 → 8, GELU, Dropout, Linear 8 → 4)" in told.audit.summary()


def test_the_advice_fits_the_checkpoint_that_it_is_for(tmp_path: Path) -> None:
    """What it proposes loads, if only the activation is right."""
    module = trained(
        Training(
            "test_vit",
            lambda width: nn.Sequential(nn.Dropout(), nn.Linear(width, 8), nn.ReLU(), linear(8)),
        )
    )
    note = load(tmp_path, module.state_dict(), Timm(backbone="test_vit")).audit.head_note
    layers = tuple(note.partition("model.head_layers=[")[2].rstrip("]").split(","))
    told = Timm(backbone="test_vit", head_layers=layers)
    assert_computes(load(tmp_path, module.state_dict(), told), module)


@pytest.mark.parametrize(
    "head",
    [
        lambda width: nn.Sequential(nn.LayerNorm(width), nn.ReLU(), linear(width)),
        lambda width: nn.Sequential(
            OrderedDict(norm=nn.LayerNorm(width), act=nn.ReLU(), fc=linear(width))
        ),
    ],
)
def test_a_gap_behind_a_norm_could_be_an_activation(tmp_path: Path, head: Make) -> None:
    module = trained(Training("test_vit", head))
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    assert "model.head_layers=[LayerNorm,Dropout,Linear]" in loaded.audit.head_note, "the usual"
    layers = ("LayerNorm", "ReLU", "Linear")
    told = load(tmp_path, module.state_dict(), Timm(backbone="test_vit", head_layers=layers))
    assert_computes(told, module)


def test_an_activation_before_a_linear_layer_can_be_said(tmp_path: Path) -> None:
    head = lambda width: nn.Sequential(nn.SiLU(), linear(width))  # noqa: E731
    module = trained(Training("test_vit", head))
    told = Timm(backbone="test_vit", head_layers=("SiLU", "Linear"))
    assert_computes(load(tmp_path, module.state_dict(), told), module)


def test_of_two_that_fit_none_is_chosen(tmp_path: Path) -> None:
    module = Training("test_vit", linear)
    module.second = linear(64)
    trained(module)
    loaded = load(tmp_path, module.state_dict(), Timm(backbone="test_vit"))
    assert not loaded.has_head
    assert loaded.audit.head_note == (
        "head (Linear 64 → 4) and second (Linear 64 → 4) lie beside the encoder, and each could be "
        "the classifier: set model.head=head or model.head=second"
    )
    chosen = load(tmp_path, module.state_dict(), Timm(backbone="test_vit", head="head"))
    assert_computes(chosen, module)


def test_of_two_the_one_with_as_many_outputs_as_classes(tmp_path: Path) -> None:
    module = Training("test_vit", linear)
    module.projector = nn.Linear(64, 32)
    trained(module)
    family = Timm(backbone="test_vit", num_classes=CLASSES)
    assert_computes(load(tmp_path, module.state_dict(), family), module)


def test_another_number_of_classes_is_said(tmp_path: Path) -> None:
    state = trained(Training("test_vit", linear)).state_dict()
    loaded = load(tmp_path, state, Timm(backbone="test_vit", num_classes=7))
    assert not loaded.has_head
    assert "head (Linear 64 → 4) lies beside the encoder and has 4 outputs for 7 classes" in (
        loaded.audit.head_note
    )
    assert "model.num_classes=4" in loaded.audit.head_note


def test_a_head_behind_the_classifier_of_a_pre_training_is_said(tmp_path: Path) -> None:
    """`timm.create_model(…)` with its 1000 classes, and a linear layer that takes them."""
    module = Training("test_vit", linear)
    module.backbone = timm.create_model("test_vit", num_classes=10)
    module.head = linear(10)
    state = trained(module).state_dict()
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    told = "head (Linear 10 → 4) lies beside the encoder and takes the 10 outputs of its classifier"
    assert loaded.warnings == (
        f"{tmp_path / 'last.ckpt'}: {told}. It is left out, and classes are those outputs.",
    )
    with pytest.raises(CheckpointError, match=r"takes the 10 outputs of its classifier"):
        load(tmp_path, state, Timm(backbone="test_vit", num_classes=4))


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnetv2_18", {}),
        ("deit_tiny_distilled_patch16_224", {"depth": 1, "img_size": 32}),
    ],
)
def test_a_classifier_of_another_kind_is_not_replaced_and_that_is_said(
    tmp_path: Path, backbone: str, options: dict[str, Any]
) -> None:
    state = trained(Training(backbone, linear, **options)).state_dict()
    own = {key: value for key, value in options.items() if key != "img_size"}
    family = Timm(backbone=backbone, options=own, image_size=(32, 32))
    loaded = load(tmp_path, state, family)
    assert not loaded.has_head
    assert loaded.audit.head_note.startswith("head beside the encoder could be one, and the model")


def test_no_classes_means_that_none_is_looked_for(tmp_path: Path) -> None:
    state = trained(Training("test_vit", mlp)).state_dict()
    loaded = load(tmp_path, state, Timm(backbone="test_vit", num_classes=0))
    assert (loaded.has_head, loaded.audit.head_note) == (False, "")


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"head": "heda"}, CheckpointError, "There is: head (Linear 64 → 8, Linear 8 → 4)"),
        (
            {"head_layers": ("Linear", "RELUU", "Linear")},
            ConfigError,
            "RELUU is no layer that is known here",
        ),
        ({"head_layers": ("Linear",)}, CheckpointError, "does not fit the checkpoint"),
        (
            {"head_layers": ("Linear", "GELU", "Linear")},
            CheckpointError,
            "which has: Linear 64 → 8 (head.0), Linear 8 → 4 (head.3)",
        ),
    ],
)
def test_a_head_that_is_described_wrongly(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    state = trained(Training("test_vit", mlp)).state_dict()
    with pytest.raises(error, match=told.replace("(", r"\(").replace(")", r"\)")):
        load(tmp_path, state, Timm(backbone="test_vit", **options))


def test_an_absurd_index_is_no_layer(tmp_path: Path) -> None:
    state = dict(trained(Training("test_vit", mlp)).state_dict())
    state["head.999999999.weight"] = state.pop("head.3.weight")
    state["head.999999999.bias"] = state.pop("head.3.bias")
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert not loaded.has_head
    assert loaded.audit.head_note.startswith("head beside the encoder could be one")


def test_nothing_is_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(
            tmp_path, trained(Training("test_vit", linear)).state_dict(), Timm(backbone="test_vit")
        )
