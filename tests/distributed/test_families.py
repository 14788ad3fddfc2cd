"""The command with models of every family, from their own checkpoints to the three artifacts."""

from __future__ import annotations

import importlib
import textwrap
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import transformers
from helpers.exactness import channels_first, roughen, tokens
from helpers.workspace import CLASSES, Outcome, Workspace
from torch import Tensor, nn
from torchvision.models import resnet18

from artifactgen import load_embeddings
from artifactgen.models.hooked import logits_of
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness.reference import pytorch_grad_cam

EXPERIMENT = """\
# @package _global_
# Random images, and whatever model the command line names.

defaults:
  - override /model: {model}
  - override /data: hdf5
  - _self_

data:
  path: {data}/images.h5
  batch_size: 8
  mean: [0.5]
  std: [0.5]

precision: 32-true
splits: [test]
save_maps: true

cluster:
  threads_per_worker: 1
"""

LITERAL = """\
import lightning
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, batch_first=True, norm_first=True, dropout=0.0
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.LayerNorm(width)
        self.decide = nn.Linear(width, classes)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = self.layers(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        return self.decide(self.last(x)[:, 0])


class Lit(lightning.LightningModule):
    def __init__(self, width, classes=7, learning_rate=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width, classes)

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch, _index):
        image, label = batch
        return nn.functional.cross_entropy(self(image), label)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.learning_rate)
"""


@pytest.fixture
def folder(tmp_path: Path, shared: Path) -> Workspace:
    """A user's folder: data, and an experiment for each family."""
    experiments = tmp_path / "conf" / "experiment" / "embeddings"
    experiments.mkdir(parents=True)
    for model in ("torchvision", "huggingface", "module"):
        text = EXPERIMENT.format(data=shared, model=model)
        (experiments / f"{model}.yaml").write_text(text)
    return Workspace(tmp_path, tmp_path / "conf")


def run(folder: Workspace, model: str, *options: str) -> Outcome:
    return folder.run(f"experiment=embeddings/{model}", *options)


def pixels(shared: Path) -> Tensor:
    with h5py.File(shared / "images.h5", locking=False) as file:
        images = torch.from_numpy(file["test/images"][:])
    return (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


class Logits(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return logits_of(self.module(x_BCHW))


def require_exact(
    output: Path, module: nn.Module, classifier: str, x_BCHW: Tensor, reshape: Any
) -> None:
    """What the command has written is what the user's own module computes."""
    arrived: list[Tensor] = []
    hook = module.get_submodule(classifier).register_forward_pre_hook(
        lambda _m, inputs: arrived.append(inputs[0].flatten(1))
    )
    with torch.no_grad():
        module(x_BCHW)
    hook.remove()
    found = load_embeddings(output / "embeddings/test_embeddings.pt")
    torch.testing.assert_close(found.embeddings, arrived[0], rtol=0, atol=1e-5)
    with h5py.File(output / "maps/test/test-000000.h5") as file:
        layer, cams = str(file.attrs["gradcam.layer"]), file["gradcam"][:]
    theirs = pytorch_grad_cam(
        Logits(module), f"module.{layer}", x_BCHW, range(len(CLASSES)), reshape=reshape
    )
    np.testing.assert_allclose(scale_cam(cams, (64, 64)), theirs, rtol=0, atol=1e-4)
    assert len(list(output.glob("gradcam/*/class_*.png"))) == len(x_BCHW) * len(CLASSES)


def test_torchvision(folder: Workspace, shared: Path) -> None:
    torch.manual_seed(0)
    model = roughen(resnet18(num_classes=3)).eval().requires_grad_(False)
    weights = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights}, folder.root / "r18.ckpt")
    options = ["ckpt_path=r18.ckpt", "model.backbone=resnet18", "data.image_size=64"]
    outcome = run(folder, "torchvision", *options)
    assert outcome.exit_code == 0, outcome.text
    assert "attention SKIPPED: ResNet computes no attention" in outcome.text
    assert "The model gives probabilities" not in outcome.text
    output = folder.root / "artifacts" / "torchvision"
    require_exact(output, model, "fc", pixels(shared), channels_first)
    outcome = run(folder, "torchvision", *options, "model.backbone=resnet34", "output_dir=other")
    assert outcome.exit_code == 2
    assert "r18.ckpt: does not fit resnet34" in outcome.text


def test_huggingface_takes_its_checkpoint_from_the_folder(folder: Workspace, shared: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    torch.manual_seed(0)
    model: Any = roughen(transformers.ViTForImageClassification(config)).eval()
    model.requires_grad_(False).save_pretrained(folder.root / "vit")
    outcome = run(folder, "huggingface", "model.path=vit")
    assert outcome.exit_code == 0, outcome.text
    assert "Checkpoint: model.safetensors, 100 % of the encoder" in outcome.text
    assert "names of classes (config.json: id2label)" in outcome.text
    output = folder.root / "artifacts" / "huggingface"
    require_exact(output, model, "classifier", pixels(shared), tokens((4, 4), 1))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(pixels(shared), output_attentions=True).attentions[-1]
    with h5py.File(output / "maps/test/test-000000.h5") as file:
        found = file["attention"][:, 0]
    expected = weights[:, :, 0, 1:].unflatten(-1, (4, 4)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(list(output.glob("attention_maps/*.png"))) == 5
    here = folder.root / "vit"
    assert "Complete: nothing to do" in run(folder, "huggingface", f"model.path={here}").text
    here.rename(folder.root / "elsewhere")
    for named in ("model.path=elsewhere", "ckpt_path=elsewhere"):
        assert "Complete: nothing to do" in run(folder, "huggingface", named).text
    (folder.root / "elsewhere" / "preprocessor_config.json").write_text('{"size": 64}')
    outcome = run(folder, "huggingface", "model.path=elsewhere")
    assert (outcome.exit_code, "model.path: " in outcome.text) == (2, True), outcome.text


def test_huggingface_without_a_model_says_how_to_get_one(folder: Workspace) -> None:
    outcome = run(folder, "huggingface", "model.path=google/vit-base-patch16-224")
    assert outcome.exit_code == 2
    assert "hf download google/vit-base-patch16-224" in outcome.text
    outcome = run(folder, "huggingface")
    assert outcome.exit_code == 2
    assert "ckpt_path is not set" in outcome.text


def train(folder: Workspace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A LightningModule of the user's own after a few steps of the real Trainer."""
    import lightning

    (folder.root / "my_lit.py").write_text(LITERAL)
    monkeypatch.syspath_prepend(folder.root)
    importlib.invalidate_caches()
    module = importlib.import_module("my_lit")
    torch.manual_seed(0)
    model = module.Lit(width=32, classes=3)
    images = torch.randn(12, 3, 64, 64)
    data = torch.utils.data.TensorDataset(images, torch.arange(12) % 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=3,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, torch.utils.data.DataLoader(data, 4))
        trainer.save_checkpoint(folder.root / "last.ckpt")
    return model.eval().requires_grad_(False)


def test_a_lightning_module_of_ones_own(
    folder: Workspace, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(folder, monkeypatch)
    options = ["ckpt_path=last.ckpt", "model.target=my_lit.Lit"]
    outcome = run(folder, "module", *options, "data.image_size=64", "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
    assert not (folder.root / "artifacts").exists()
    outcome = run(folder, "module", *options, "data.image_size=64")
    assert outcome.exit_code == 0, outcome.text
    assert "stated in the checkpoint and taken: kwargs" in outcome.text
    output = folder.root / "artifacts" / "module"
    require_exact(output, model, "net.decide", pixels(shared), tokens((4, 4), 1))
    kept: list[Tensor] = []
    last = model.net.layers.layers[-1]
    hook = last.norm1.register_forward_hook(lambda _m, _i, y: kept.append(y))
    with torch.no_grad():
        model(pixels(shared))
    hook.remove()
    with torch.no_grad():
        _, weights = last.self_attn(*[kept[0]] * 3, average_attn_weights=False)
    with h5py.File(output / "maps/test/test-000000.h5") as file:
        found = file["attention"][:, 0]
    expected = weights[:, :, 0, 1:].unflatten(-1, (4, 4)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "data.image_size is not set, and Lit does not say which images it takes"),
        (["model.target=my_lit.Lid"], "my_lit has no class Lid. Did you mean Lit"),
        (["model.target=my_litt.Lit"], "cannot be imported"),
        (["model.kwargs={widht: 3}"], r"model.kwargs.widht: Lit takes no such argument. Did you"),
        (["model.kwargs={width: 64,classes: 3}", "data.image_size=64"], "does not fit Lit"),
        (["model.classifier=net.decider", "data.image_size=64"], "Lit has no such module"),
        (["model.num_classes=5", "data.image_size=64"], "classifier has 3 classes, not 5"),
    ],
    ids=["size", "class", "module", "argument", "width", "classifier", "classes"],
)
def test_what_does_not_fit_is_said_before_any_work(
    folder: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    train(folder, monkeypatch)
    outcome = run(folder, "module", "ckpt_path=last.ckpt", "model.target=my_lit.Lit", *options)
    assert outcome.exit_code == 2, outcome.text
    assert message in outcome.text
    assert "Traceback" not in outcome.text


def test_a_network_that_gives_probabilities_is_doubted(
    folder: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """\
        from torch import nn
        class Certain(nn.Sequential):
            def __init__(self):
                pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
                body = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU())
                super().__init__(body, pool, nn.Linear(8, 3), nn.Softmax(1))
    """
    (folder.root / "my_certain.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(folder.root)
    importlib.invalidate_caches()
    network = importlib.import_module("my_certain").Certain()
    torch.save(network.state_dict(), folder.root / "certain.pt")
    options = ["model.target=my_certain.Certain", "ckpt_path=certain.pt", "data.image_size=64"]
    outcome = run(folder, "module", *options, "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
    told = "WARNING: The model gives probabilities where logits are expected"
    assert told in outcome.text
