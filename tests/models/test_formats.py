"""Checkpoints as the programs that people train with write them, by these programs themselves."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import lightning
import pytest
import timm
import timm.optim
import timm.utils
import torch
import torch.distributed.checkpoint as dcp
from omegaconf import DictConfig, OmegaConf
from timm.models.vision_transformer import checkpoint_filter_fn as vit_filter
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from artifactgen.errors import CheckpointError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.stated import read_stated
from artifactgen.models.timm import Timm

NAME, CLASSES = "test_vit", 4
State = dict[str, Tensor]


def trained(seed: int = 0, **options: Any) -> nn.Module:
    """As if it had been trained: no tensor is as it was initialised."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(NAME, **{"num_classes": CLASSES, **options}).eval()
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return model


def load(path: Path, *, trusted: bool = False, **options: Any) -> LoadedModel:
    checkpoint = read_checkpoint(identify(path, trusted=trusted))
    family = Timm(**{"backbone": NAME, **options})
    return load_model(family, checkpoint, stated=read_stated(checkpoint, family))


def assert_loaded(loaded: LoadedModel, model: nn.Module) -> None:
    own, expected = loaded.network.module.state_dict(), model.state_dict()
    assert own
    assert [name for name in own if not torch.equal(own[name], expected[name])] == []
    assert loaded.audit.fits


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


# timm.


def test_timms_own_training(tmp_path: Path) -> None:
    """Its average of the weights is what timm validates with."""
    model, average = trained(), trained(seed=1)
    ema = timm.utils.ModelEmaV3(average, decay=0.5)
    saver = timm.utils.CheckpointSaver(
        model,
        timm.optim.create_optimizer_v2(model, "sgd", lr=0.1),
        args=argparse.Namespace(model=NAME, img_size=160, mean=None, smoothing=0.1),
        model_ema=ema,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(3, metric=0.5)
    loaded = load(tmp_path / "last.pth.tar", backbone=None)
    assert_loaded(loaded, average)
    assert loaded.audit.container == "state_dict_ema"
    assert loaded.network.family.name == NAME


def test_timm_for_the_hub(tmp_path: Path) -> None:
    """A folder of `model.safetensors` and `config.json`."""
    model: Any = trained()
    timm.models.save_for_hf(model, str(tmp_path), model_config={"num_classes": CLASSES})
    loaded = load(tmp_path, backbone=None)
    assert_loaded(loaded, model)
    assert loaded.network.family.name == NAME


# torch.


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("wrap", ["none", "DataParallel", "compile", "both", "average"])
def test_wrapped_by_torch(tmp_path: Path, wrap: str, whole: bool) -> None:
    model = trained()
    wrapped: Any = {
        "none": lambda: model,
        "DataParallel": lambda: nn.DataParallel(model),
        "compile": lambda: torch.compile(model),
        "both": lambda: torch.compile(nn.DataParallel(model)),
        "average": lambda: torch.optim.swa_utils.AveragedModel(model),
    }[wrap]()
    optimizer = torch.optim.AdamW(model.parameters())
    state = wrapped.state_dict()
    whole_dict = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}
    assert_loaded(load(saved(tmp_path / "m.pt", whole_dict if whole else state)), model)


class Net(nn.Module):
    """As people write it."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize("name", ["norm", "head", "blocks", "cls_token", "encoder_1", "vit"])
def test_any_attribute_in_front(tmp_path: Path, name: str) -> None:
    """Also one that the model has itself."""
    model = trained()
    state = Net(net=Net(**{name: model})).state_dict()
    loaded = load(saved(tmp_path / "m.pt", state))
    assert_loaded(loaded, model)
    assert loaded.audit.prefix == f"net.{name}."
    assert f"prefix net.{name}., head loaded" in loaded.audit.summary()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("teacher.encoder", "student.encoder"),
        ("model.teacher_model", "model.student_model"),
        ("teacher_backbone", "student_backbone"),
        ("ema_encoder", "encoder"),
        ("backbone", "backbone_momentum"),
        ("base_encoder", "momentum_encoder"),
        ("encoder_q", "encoder_k"),
        ("backbone", "momentum_backbone"),
        ("online_encoder", "target_encoder"),
    ],
)
def test_of_two_encoders(tmp_path: Path, better: str, worse: str) -> None:
    """A teacher of self-distillation is what is evaluated; of contrastive learning, the query."""
    model, other = trained(num_classes=0), trained(seed=1, num_classes=0)
    state = {f"{worse}.{k}": v for k, v in other.state_dict().items()}
    state |= {f"{better}.{k}": v for k, v in model.state_dict().items()}
    loaded = load(saved(tmp_path / "m.pt", state))
    assert_loaded(loaded, model)
    assert loaded.audit.rivals == (f"{worse}.",)
    assert f"as well under {worse}." in loaded.audit.summary()


@pytest.mark.parametrize("wrapper", ["_fsdp_wrapped_module", "_orig_mod"])
def test_every_block_wrapped(tmp_path: Path, wrapper: str) -> None:
    """FSDP's full state dict of old, and blocks that are compiled one by one."""
    model = trained()
    state = {
        f"{wrapper}.{k}".replace("blocks.0.", f"blocks.0.{wrapper}.").replace(
            "attn.", f"attn.{wrapper}."
        ): v
        for k, v in model.state_dict().items()
    }
    assert_loaded(load(saved(tmp_path / "m.pt", {"state_dict": state})), model)


def test_a_network_whose_every_layer_is_wrapped(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    state = {
        re.sub(r"\.(?=[^.]*$)", "._orig_mod.", f"model.{name}"): tensor
        for name, tensor in model.state_dict().items()
    }
    loaded = load(saved(tmp_path / "m.pt", state), backbone="test_resnet")
    assert_loaded(loaded, model)
    assert loaded.audit.prefix == "model."


# Lightning.


class Training(lightning.LightningModule):
    """A user's training."""

    def __init__(self, model: Any = None, cfg: Any = None, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model"])
        self.net = model
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(CLASSES))

    def training_step(self, batch: Any, _: int) -> Any:
        """One step."""
        images, labels = batch
        return self.loss(self.net(images), labels)

    def configure_optimizers(self) -> Any:
        """What Lightning asks for."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cfg", [None, OmegaConf.create({"model": {"timm_name": NAME, "a": [1]}})])
def test_a_lightning_trainer(tmp_path: Path, cfg: DictConfig | None) -> None:
    model = trained()
    images, labels = torch.rand(4, 3, 160, 160), torch.arange(4)
    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    trainer.fit(Training(model, cfg), loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load(tmp_path / "last.ckpt", backbone=NAME if cfg is None else None)
    assert_loaded(loaded, model)
    assert (loaded.audit.prefix, loaded.audit.container) == ("net.", "state_dict")


# transformers.


@pytest.fixture
def hugging_face() -> TimmWrapperForImageClassification:
    config = TimmWrapperConfig(architecture=NAME, num_labels=CLASSES, do_pooling=True)
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(trained().state_dict())
    return model


@pytest.mark.parametrize("max_shard_size", ["1GB", "200KB"])
def test_transformers(
    tmp_path: Path, hugging_face: TimmWrapperForImageClassification, max_shard_size: str
) -> None:
    hugging_face.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    sharded = (tmp_path / "model.safetensors.index.json").is_file()
    assert sharded == (max_shard_size == "200KB")
    loaded = load(tmp_path)
    assert_loaded(loaded, trained())
    assert loaded.audit.prefix == "timm_model."
    file = identify(tmp_path)
    assert len(file.shards) == len(list(tmp_path.glob("model-*.safetensors")))
    named = [file.path, *file.shards]
    assert file.size_bytes == sum(path.stat().st_size for path in named)


def test_shards_of_pytorch_bin(tmp_path: Path) -> None:
    state = trained().state_dict()
    names = list(state)
    first, second = (f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2))
    files = {first: names[:9], second: names[9:]}
    for file, held in files.items():
        saved(tmp_path / file, OrderedDict((name, state[name]) for name in held))
    index = {"metadata": {}, "weight_map": {n: f for f, held in files.items() for n in held}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index), "utf-8")
    assert_loaded(load(tmp_path), trained())
    assert_loaded(load(tmp_path / "pytorch_model.bin.index.json"), trained())


def test_pytorch_bin(tmp_path: Path) -> None:
    saved(tmp_path / "pytorch_model.bin", trained().state_dict())
    assert_loaded(load(tmp_path), trained())


@pytest.fixture
def shards(tmp_path: Path, hugging_face: TimmWrapperForImageClassification) -> Path:
    hugging_face.save_pretrained(tmp_path, max_shard_size="200KB")
    return tmp_path


def test_a_shard_that_changed_is_noticed(shards: Path) -> None:
    file = identify(shards)
    file.require_same()
    shard = file.shards[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert identify(shards).sha256 != file.sha256
    for check in (file.require_same, file.require_untouched, lambda: read_checkpoint(file)):
        with pytest.raises(CheckpointError, match="changed while the job was running"):
            check()


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, **options)
    return str(caught.value)


def test_a_shard_that_is_missing(shards: Path) -> None:
    gone = sorted(shards.glob("model-*.safetensors"))[1]
    gone.unlink()
    message = refusal(shards)
    assert f"and 1 of them are not beside it: {gone.name}. Copy them too." in message


def test_a_shard_that_is_cut(shards: Path) -> None:
    cut = sorted(shards.glob("model-*.safetensors"))[1]
    cut.write_bytes(cut.read_bytes()[:-100])
    assert f"{cut}: cut short, damaged or no checkpoint" in refusal(shards)


def test_a_shard_of_another_checkpoint(shards: Path) -> None:
    first, second, *_ = sorted(shards.glob("model-*.safetensors"))
    second.write_bytes(first.read_bytes())
    assert f"is not in {second.name}, where it should be" in refusal(shards)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "", 3, "a\n/b"])
def test_an_index_that_leads_elsewhere(tmp_path: Path, name: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}), "utf-8")
    assert "is no name of a file beside it" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": {}}', "[" * 100000])
def test_what_is_no_index(tmp_path: Path, content: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content, "utf-8")
    assert f"{index}: no index of weights" in refusal(tmp_path)


# Self-supervised trainings, in the layouts of their authors.


def test_mae(tmp_path: Path) -> None:
    """https://github.com/facebookresearch/mae/blob/main/util/misc.py, `save_model`."""
    model = trained(num_classes=0)
    state = {**model.state_dict(), "mask_token": torch.ones(1, 1, 64)}
    state |= {"decoder_embed.weight": torch.ones(32, 64), "decoder_pos_embed": torch.ones(1, 5, 32)}
    args = argparse.Namespace(model="mae_vit_base_patch16", input_size=160, output_dir=Path("o"))
    optimizer = torch.optim.AdamW(model.parameters())
    content = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 9, "args": args}
    loaded = load(saved(tmp_path / "m.pth", {**content, "scaler": {"scale": 65536.0}}))
    assert_loaded(loaded, model)
    assert not loaded.has_head


def test_dino(tmp_path: Path) -> None:
    """https://github.com/facebookresearch/dino/blob/main/main_dino.py."""
    model, student = trained(num_classes=0), trained(seed=1, num_classes=0)
    sizes = {"mlp.0": (32, 64), "mlp.2": (32, 32), "mlp.4": (16, 32)}
    head = {f"module.head.{name}.weight": torch.ones(size) for name, size in sizes.items()}
    head |= {f"module.head.{name}.bias": torch.ones(size[0]) for name, size in sizes.items()}
    head |= {
        "module.head.last_layer.weight_g": torch.ones(8, 1),
        "module.head.last_layer.weight_v": torch.ones(8, 16),
    }
    content = {
        "student": {f"module.backbone.{k}": v for k, v in student.state_dict().items()} | head,
        "teacher": {f"module.backbone.{k}": v for k, v in model.state_dict().items()} | head,
        "optimizer": {},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.ones(1, 8)},
    }
    loaded = load(saved(tmp_path / "m.pth", content))
    assert_loaded(loaded, model)
    assert (loaded.audit.container, loaded.audit.prefix) == ("teacher", "module.backbone.")
    assert not loaded.has_head


@pytest.mark.parametrize("size", [None, (112, 112)])
def test_dinov2(tmp_path: Path, size: tuple[int, int] | None) -> None:
    """`teacher_checkpoint.pth` of its training, with blocks in chunks; at its own size, or another.

    https://github.com/facebookresearch/dinov2/blob/main/dinov2/train/train.py
    """
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 0}
    name = "vit_small_patch14_dinov2"
    model = timm.create_model(name, img_size=224, **small)
    state = {
        "backbone." + key.replace("blocks.", "blocks.0."): tensor
        for key, tensor in model.state_dict().items()
    }
    state |= {"backbone.mask_token": torch.ones(1, 48)}
    state |= {"dino_head.last_layer.weight_v": torch.ones(8, 16)}
    path = saved(tmp_path / "teacher_checkpoint.pth", {"teacher": state})
    options = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    loaded = load(path, backbone=name, options=options, image_size=size)
    if size is None:
        assert_loaded(loaded, model)
        assert loaded.network.family.image_size == (224, 224)
        return
    expected = timm.create_model(name, img_size=size, **small)
    source = saved(tmp_path / "m.pt", model.state_dict())
    timm.models.load_checkpoint(expected, str(source), filter_fn=vit_filter)
    assert_loaded(loaded, expected)
    assert loaded.audit.adapted == ("position embeddings resampled from 16 × 16 to 8 × 8",)


# Trainings in several processes: folders.


def printed_line(message: str) -> tuple[list[str], Path]:
    """The command in a refusal, and the checkpoint to go on with."""
    *_, command, option = message.splitlines()
    assert command.startswith("python ")
    return [sys.executable, *command.split()[1:]], Path(option.removeprefix("ckpt_path="))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", [".", "pytorch_model_fsdp_0"])
def test_a_folder_of_torch_distributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    model = trained()
    content = {"model": model.state_dict(), "epoch": 3}
    dcp.save(content, checkpoint_id=tmp_path / "step_3" / place, no_dist=True)
    message = refusal(tmp_path / "step_3")
    assert "the shards of a training in several processes" in message
    command, converted = printed_line(message)
    monkeypatch.chdir(tmp_path)
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    assert_loaded(load(converted), model)


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_checkpoint_of_lightning(tmp_path: Path) -> None:
    """Weights under `model`, and the rest in `meta.pt`, as its strategies for FSDP save it."""
    model, folder = trained(), tmp_path / "epoch=3.ckpt"
    state = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    dcp.save({"model": state}, checkpoint_id=folder, no_dist=True)
    saved(folder / "meta.pt", {"hyper_parameters": {"timm_name": NAME}, "epoch": 3})
    command, converted = printed_line(refusal(folder))
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    loaded = load(converted, backbone=None)
    assert_loaded(loaded, model)
    assert loaded.network.family.name == NAME


@pytest.mark.parametrize(
    ("script", "converted"), [("output_dir", "weights"), ("output_file", "weights.pt")]
)
def test_a_folder_of_deepspeed(tmp_path: Path, script: str, converted: str) -> None:
    """Its script wrote a file up to version 0.15, and a folder since."""
    (tmp_path / "zero_to_fp32.py").write_text(f"parser.add_argument('{script}')", "utf-8")
    shards = tmp_path / "global_step3"
    shards.mkdir()
    saved(shards / "mp_rank_00_model_states.pt", {"module": {}})
    line = f"python {tmp_path}/zero_to_fp32.py {tmp_path} {converted}\nckpt_path={converted}"
    for folder in (tmp_path, shards):
        assert refusal(folder).endswith(line)
    (tmp_path / "zero_to_fp32.py").unlink()
    assert "python zero_to_fp32.py … (of DeepSpeed" in refusal(tmp_path)


# Files that only trust can read.


def test_a_whole_pickled_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trained()
    path = saved(tmp_path / "m.pt", {"model": Net(net=model), "epoch": 3})
    message = refusal(path)
    assert "refused, and nothing of it was run" in message
    assert message.endswith("set trust_checkpoint=true.")
    assert caplog.messages == []
    assert_loaded(load(path, trusted=True), model)
    told = next(text for text in caplog.messages if "trust_checkpoint=true" in text)
    assert told.startswith(f"WARNING: {path}: trust_checkpoint=true: reading it imports and runs")
    assert f"{__name__}.Net" in told
    assert "timm.models.vision_transformer.VisionTransformer" in told


def test_trust_changes_nothing_where_it_is_not_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "m.pt", trained().state_dict())
    assert_loaded(load(path, trusted=True), trained())
    assert caplog.messages == []


def test_trusted_code_that_is_not_there(tmp_path: Path) -> None:
    module = type(sys)("a_module_of_someone")
    module.Net = type("Net", (nn.Module,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    path = saved(tmp_path / "m.pt", module.Net())
    del sys.modules[module.__name__]
    message = refusal(path, trusted=True)
    assert "ModuleNotFoundError: No module named 'a_module_of_someone'" in message
    assert "install its modules, or put them beside the folder of --config-dir" in message


class Exiting:
    """Ends the program where it is unpickled."""

    def __reduce__(self) -> Any:
        """As a pickle tells how to make it."""
        return sys.exit, (0,)


def test_trusted_code_that_exits(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", {"model": Exiting()})
    assert "called sys.exit(0) while it was read" in refusal(path, trusted=True)
