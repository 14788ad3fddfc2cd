"""Reading files: every layout of weights, every way in which a file is no checkpoint."""

import argparse
import contextlib
import errno
import functools
import gzip
import hashlib
import json
import operator
import os
import pathlib
import pickle
import subprocess
import sys
import types
import typing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.test_passing_errors import no_file_more
from omegaconf import OmegaConf
from omegaconf.base import ContainerMetadata
from omegaconf.nodes import AnyNode
from safetensors.torch import save_file

from artifactgen.errors import CheckpointError
from artifactgen.models import checkpoint as reading
from artifactgen.models.checkpoint import CONTAINERS, Checkpoint
from artifactgen.models.file import identify

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


def read_checkpoint(path: str | Path) -> Checkpoint:
    return reading.read_checkpoint(identify(path))


def saved(folder, payload, name="model.pt", **options):
    path = folder / name
    torch.save(payload, path, **options)
    return path


def assert_weights(checkpoint, expected=WEIGHTS):
    assert checkpoint.state_dict.keys() == expected.keys()
    assert all(torch.equal(checkpoint.state_dict[name], expected[name]) for name in expected)


@pytest.mark.parametrize("container", ["", *CONTAINERS, "model.state_dict"])
def test_weights_are_found_in_every_container(tmp_path, container):
    payload = WEIGHTS
    for key in reversed(container.split(".") if container else []):
        payload = {"epoch": 3, "optimizer": {"state": {0: torch.ones(5)}}, key: payload}
    checkpoint = read_checkpoint(saved(tmp_path, payload))
    assert checkpoint.container == container
    assert_weights(checkpoint)


def test_averaged_weights_go_first(tmp_path):
    other = {"layer.weight": torch.zeros(2, 3)}
    for averaged, raw in [("teacher", "student"), ("state_dict_ema", "state_dict")]:
        checkpoint = read_checkpoint(saved(tmp_path, {raw: other, averaged: WEIGHTS}))
        assert checkpoint.container == averaged
        assert_weights(checkpoint)


def test_a_file_of_before_torch_1_6(tmp_path):
    path = saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=False)
    assert_weights(read_checkpoint(path))


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt"])
def test_a_machine_out_of_file_handles_is_no_broken_checkpoint(tmp_path, name):
    path = saved(tmp_path, {"state_dict": WEIGHTS}, name)
    file = identify(path)
    for read in (lambda: reading.read_checkpoint(file), lambda: identify(path)):
        with no_file_more(), pytest.raises(OSError) as caught:
            read()
        assert caught.value.errno == errno.EMFILE


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    assert_weights(read_checkpoint(str(path)))


def test_digest_is_that_of_the_file(tmp_path):
    path = saved(tmp_path, WEIGHTS)
    assert read_checkpoint(path).file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lightning_hyper_parameters_become_plain(tmp_path):
    config = OmegaConf.create({"lr": 1e-3, "net": {"depths": [3, 3], "name": "${oc.env:X}"}})
    payload = {
        "state_dict": WEIGHTS,
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"net": config, "root": pathlib.PosixPath("/data"), "size": (4, 4)},
        "metric": np.float64(0.5),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    }
    meta = read_checkpoint(saved(tmp_path, payload, "last.ckpt")).meta
    assert meta == {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {
            "net": {"lr": 1e-3, "net": {"depths": [3, 3], "name": "${oc.env:X}"}},
            "root": "/data",
            "size": [4, 4],
        },
        "metric": 0.5,
    }
    assert json.loads(json.dumps(meta)) == meta


def test_hyper_parameters_of_omegaconf_2_4_that_hold_a_tuple(tmp_path, monkeypatch):
    """It names what 2.3 does not have, and a function that is only there to say a type."""
    module = types.ModuleType("omegaconf.tupleconfig")
    module.TupleConfig = type("TupleConfig", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = OmegaConf.create({"net": {"name": "vit", "size": [4, 5]}, "ref": "${net.size}"})
    size = module.TupleConfig()
    size._metadata = ContainerMetadata(
        typing.Any, object_type=tuple, optional=True, key="size", key_type=int, element_type=Any
    )
    size._metadata.ref_type = typing.Tuple[Any, ...]  # noqa: UP006
    size._content = [AnyNode(4), AnyNode(5)]
    config._content["net"]._content["size"] = size
    path = saved(tmp_path, {"state_dict": WEIGHTS, "hyper_parameters": config})
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert {"omegaconf.tupleconfig.TupleConfig", "_operator.getitem", "builtins.Ellipsis"} <= {
        *names
    }
    monkeypatch.delitem(sys.modules, module.__name__)
    meta = read_checkpoint(path).meta
    expected = {"net": {"name": "vit", "size": [4, 5]}, "ref": "${net.size}"}
    assert meta == {"hyper_parameters": expected}


def test_a_function_that_stands_for_a_type_is_not_run(tmp_path):
    """`_operator.getitem` may be named; it would run the `__getitem__` of what it is given."""
    path = saved(tmp_path, {"state_dict": WEIGHTS, "config": GetItem()})
    assert torch.load(path, weights_only=False)["config"] == 3
    assert read_checkpoint(path).meta == {}


class GetItem:
    def __reduce__(self):
        return operator.getitem, ({"a": 3}, "a")


HOSTILE = "\x1b[31mred\a\r\n\u202eright to left\u2028"


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    weights = {**WEIGHTS, HOSTILE: torch.ones(1)}
    said = {HOSTILE: [HOSTILE, pathlib.PosixPath(HOSTILE)], "classes": ["Frühling", "春"]}
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": weights, "hparams": said}))
    shown = r"\x1b[31mred\x07\r\n\u202eright to left\u2028"
    assert checkpoint.state_dict.keys() == {*WEIGHTS, shown}
    assert checkpoint.meta == {"hparams": {shown: [shown, shown], "classes": ["Frühling", "春"]}}


@pytest.mark.parametrize(
    "payload",
    [{HOSTILE: 3}, {"state_dict": {HOSTILE: torch.ones(1).expand(10**9)}}],
)
def test_control_characters_in_refusals(tmp_path, payload):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(saved(tmp_path, payload))
    assert r"\x1b[31mred" in str(caught.value)
    assert str(caught.value).isprintable()


def test_control_characters_in_the_names_of_code(tmp_path, monkeypatch):
    hostile = type("\x1b[31m", (), {"__module__": "hostile"})
    module = types.ModuleType("hostile")
    setattr(module, "\x1b[31m", hostile)
    monkeypatch.setitem(sys.modules, "hostile", module)
    with pytest.raises(CheckpointError, match=r"hostile\.\\x1b\[31m") as caught:
        read_checkpoint(saved(tmp_path, {"state_dict": WEIGHTS, "x": hostile()}))
    assert "\x1b" not in str(caught.value)


def test_namespace_and_numpy_of_mae_and_timm(tmp_path):
    args = argparse.Namespace(model="mae_vit_base", lr=np.float32(0.5), means=np.ones(3))
    checkpoint = read_checkpoint(saved(tmp_path, {"model": WEIGHTS, "args": args}))
    assert checkpoint.meta["args"] == {"model": "mae_vit_base", "lr": 0.5, "means": None}


def test_reading_leaves_nothing_allowed_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch lists a set, in any order
    read_checkpoint(saved(tmp_path, WEIGHTS))
    assert set(torch.serialization.get_safe_globals()) == before


class Payload:
    """Makes a file when it is unpickled: the proof that code ran."""

    def __init__(self, marker, function=os.mkdir):
        self.marker, self.function = str(marker), function

    def __reduce__(self):
        return self.function, (self.marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path, protocol, new_format):
    marker = tmp_path / "it_ran"
    payload = {"state_dict": WEIGHTS, "callbacks": Payload(marker)}
    options = {"_use_new_zipfile_serialization": new_format, "pickle_protocol": protocol}
    path = saved(tmp_path, payload, **options)
    with pytest.raises(CheckpointError, match=r"refused, and nothing of it was run.*mkdir"):
        read_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file of this test is harmless"


@pytest.mark.parametrize("function", [eval, getattr, exec, functools.partial])
def test_what_could_be_bent_into_running_code_is_refused(tmp_path, function):
    path = saved(tmp_path, {"state_dict": WEIGHTS, "x": Payload("print", function)})
    with pytest.raises(CheckpointError, match=function.__name__):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_runs_code(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"model": Payload(tmp_path / "it_ran")}))
    with pytest.raises(CheckpointError, match="mkdir"):
        read_checkpoint(path)
    assert not (tmp_path / "it_ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    path = saved(tmp_path, torch.nn.Linear(2, 2))
    with pytest.raises(
        CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear(.|\n)*state_dict"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.pt", "old.pt", "model.safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_cut_file(tmp_path, name, share):
    path = tmp_path / name
    weights = {f"layers.{i}": torch.randn(50, 50) for i in range(5)}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=name == "model.pt")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=f"{name}: .*cut short"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbled_pickles_never_escape_as_other_errors(tmp_path):
    data = bytearray(saved(tmp_path, {"state_dict": WEIGHTS, "epoch": 3}).read_bytes())
    start = data.index(b"data.pkl") + 8
    random = np.random.default_rng(0)
    for position in random.integers(start, start + 400, size=150):
        garbled = data.copy()
        garbled[position] ^= 1 << random.integers(8)
        path = tmp_path / "garbled.pt"
        path.write_bytes(garbled)
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>403 Forbidden</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"not a checkpoint at all", "no checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image, no checkpoint"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image, no checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, no checkpoint"),
        (b"PAR1" + bytes(100), "a Parquet table, no checkpoint"),
        (gzip.compress(bytes(400), mtime=0), "packed by gzip, no checkpoint"),
        (bytes(344) + b"n+1\0" + bytes(100), "a NIfTI volume, no checkpoint"),
        (bytes(128) + b"DICM" + bytes(100), "a DICOM file, no checkpoint"),
        ("# Ein Experiment für später\nlr: 3\n".encode(), "a text file, no checkpoint"),
        ("überall".encode() * 100, "a text file, no checkpoint"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_files_that_are_no_checkpoint(tmp_path, content, message, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_other_archives(tmp_path):
    path = tmp_path / "arrays.pt"
    with path.open("wb") as stream:
        np.savez(stream, a=np.ones(3))
    with pytest.raises(CheckpointError, match=r"NumPy arrays \(\.npz\), no checkpoint"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(CheckpointError, match=r"a zip archive of word/document\.xml, no c"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.yaml", "YAML"), ("train.py", "Python"), ("a.json", "JSON")]
)
def test_text_is_named_by_its_ending(tmp_path, name, kind):
    (tmp_path / name).write_text("import this\n")
    with pytest.raises(CheckpointError, match=rf"a text file \({kind}\), no checkpoint"):
        read_checkpoint(tmp_path / name)


def test_torchscript_names_the_remedy(tmp_path):
    path = tmp_path / "scripted.pt"
    with zipfile.ZipFile(saved(tmp_path, WEIGHTS)) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
        target.writestr("model/constants.pkl", b"")
    with pytest.raises(CheckpointError, match=r"TorchScript.*state_dict"):
        read_checkpoint(path)


def test_a_compressed_archive_is_not_mapped_as_if_it_were_plain(tmp_path):
    path = tmp_path / "packed.pt"
    source = zipfile.ZipFile(saved(tmp_path, WEIGHTS))
    with source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(path)


def test_missing_file_names_the_nearest(tmp_path):
    saved(tmp_path, WEIGHTS, "epoch_10.ckpt")
    with pytest.raises(CheckpointError, match=r"Did you mean epoch_10\.ckpt"):
        read_checkpoint(tmp_path / "epoch_1.ckpt")
    with pytest.raises(CheckpointError, match="no folder"):
        read_checkpoint(tmp_path / "nowhere" / "epoch_1.ckpt")


def test_only_checkpoints_are_named(tmp_path):
    for name in ("epoch_1.yaml", "epoch_2.log", "train.py"):
        (tmp_path / name).write_text("x")
    with pytest.raises(CheckpointError, match=r"There are no checkpoints \(\.ckpt, \.pth, \.pt, "):
        read_checkpoint(tmp_path / "epoch_1.ckpt")
    saved(tmp_path, WEIGHTS, "last.PTH")
    with pytest.raises(CheckpointError, match=r"no such file\. Known: last\.PTH\.$"):
        read_checkpoint(tmp_path / "epoch_1.ckpt")
    with pytest.raises(CheckpointError, match=r"a text file .*Known: last\.PTH\.$"):
        read_checkpoint(tmp_path / "train.py")


def test_a_folder_names_what_is_in_it(tmp_path):
    saved(tmp_path, WEIGHTS, "last.ckpt")
    with pytest.raises(CheckpointError, match=r"a folder without .* name a file\. .*last\.ckpt"):
        read_checkpoint(tmp_path)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path / "pipe.pt")


@pytest.mark.parametrize("payload", [{}, {"epoch": 3, "state_dict": {}}, [torch.ones(2)], 3])
def test_no_weights_inside(tmp_path, payload):
    with pytest.raises(CheckpointError, match="no weights"):
        read_checkpoint(saved(tmp_path, payload))


def test_a_stride_0_bomb_is_refused_before_any_copy(tmp_path):
    bomb = torch.ones(1).expand(10**6, 10**6)
    path = saved(tmp_path, {"layer.weight": bomb})
    assert path.stat().st_size < 5000
    with pytest.raises(
        CheckpointError, match=r"layer\.weight claims the shape \(1000000, 1000000\)"
    ):
        read_checkpoint(path)


def test_a_small_expanded_buffer_is_no_bomb(tmp_path):
    path = saved(tmp_path, {**WEIGHTS, "mean": torch.ones(1).expand(3)})
    assert read_checkpoint(path).state_dict["mean"].tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("tensor", [torch.ones(2, device="meta"), torch.eye(2).to_sparse()])
def test_tensors_without_plain_data(tmp_path, tensor):
    with pytest.raises(CheckpointError, match=r"layer\.weight is no ordinary tensor"):
        read_checkpoint(saved(tmp_path, {"layer.weight": tensor}))


def test_reads_without_omegaconf_and_safetensors(tmp_path):
    """The library needs neither: nothing of OmegaConf is imported to read what it wrote."""
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    saved(tmp_path, {"state_dict": WEIGHTS, "hyper_parameters": OmegaConf.create({"a": 1})}, "b.pt")
    saved(tmp_path, WEIGHTS, "c.pt")
    code = f"""
import sys
sys.modules["omegaconf"] = sys.modules["safetensors"] = None
from artifactgen.errors import CheckpointError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
for name in ("a.safetensors", "b.pt", "c.pt"):
    try:
        print(len(read_checkpoint(identify({str(tmp_path)!r} + "/" + name)).state_dict))
    except CheckpointError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    first, second, third = result.stdout.splitlines()
    assert "pip install safetensors" in first
    assert second == third == "2"
