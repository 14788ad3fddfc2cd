"""A user's folder: data, checkpoints, experiments of their own, and the program run in it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import timm
import torch
from numpy.typing import NDArray

from distributed.launch import run_command
from distributed.usage import config_dir

EXPERIMENT = "experiment=embeddings/my_experiment"
CKPT = "ckpt_path=path/to/model.ckpt"
RECORDS = {"train": 24, "val": 7, "test": 5}
CLASSES = ("cat", "dog", "eel")
IMAGE_SIZE = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left on the terminal."""

    exit_code: int
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder that commands are run in; `conf` is the user's own configuration."""

    root: Path
    conf: Path

    @property
    def output(self) -> Path:
        """Where the experiment puts its artifacts unless told otherwise."""
        return self.root / "artifacts" / "my_experiment"

    def run(self, *arguments: str) -> Outcome:
        """Run the program in this process; `--config-dir` is added."""
        told = io.StringIO()
        with working_in(self.root), process_state(), contextlib.redirect_stderr(told):
            try:
                code = run_command(["--config-dir", str(self.conf), *arguments])
            except SystemExit as exit_:  # argparse refuses so
                code = int(str(exit_.code))
        return Outcome(code, told.getvalue())

    def start(self, *arguments: str, **environment: str) -> Started:
        """Start the program as a process group of its own."""
        command = [sys.executable, "-m", "distributed.launch", "--config-dir", str(self.conf)]
        log = self.root / f"{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self.root,
                stdout=file,
                stderr=file,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        return Started(process, log)


def with_source(workspace: Workspace, module: str, code: str, options: str) -> Workspace:
    """The same folder, with an experiment that reads its HDF5 through a source of the user.

    Args:
        workspace: as it is.
        module: name of the file and of the choice of `data`; the class is called `Module`.
        code: of the file, with a subclass of `Hdf5`.
        options: lines of YAML that the class has beside those of `hdf5`.
    """
    conf = workspace.root / "own"
    (conf / "experiment" / "embeddings").mkdir(parents=True)
    (conf / "data").mkdir()
    for file in workspace.conf.glob("experiment/embeddings/*.yaml"):
        text = file.read_text("utf-8").replace("/data: hdf5", f"/data: {module}")
        (conf / "experiment" / "embeddings" / file.name).write_text(text, "utf-8")
    hdf5 = (config_dir() / "data" / "hdf5.yaml").read_text("utf-8").splitlines()
    target = f"_target_: {module}.{module.capitalize()}\n"
    own = options + "\n".join(line for line in hdf5 if "_target_" not in line)
    (conf / "data" / f"{module}.yaml").write_text(f"{target}{own}\n", "utf-8")
    (workspace.root / f"{module}.py").write_text(code, "utf-8")
    return Workspace(workspace.root, conf)


@dataclass(frozen=True, slots=True)
class Started:
    """A process of the program."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, condition: Any, *, what: str, timeout_s: float = 120) -> None:
        """Wait until a condition holds; fails if the process ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.log.read_text()}"
            time.sleep(0.005)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and its children, as a terminal or a scheduler does."""
        os.killpg(self.process.pid, number)

    def finish(self, timeout_s: float = 120) -> Outcome:
        """Wait for the end."""
        code = self.process.wait(timeout_s)
        return Outcome(code, self.log.read_text())


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The block runs in a folder; `contextlib.chdir` of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def process_state() -> Iterator[None]:
    """Put back what the program sets for its process."""
    argv, hook, on_term = sys.argv, sys.excepthook, signal.getsignal(signal.SIGTERM)
    path = list(sys.path)
    environment = dict(os.environ)
    try:
        yield
    finally:
        sys.argv, sys.excepthook, sys.path[:] = argv, hook, path
        signal.signal(signal.SIGTERM, on_term)
        os.environ.clear()
        os.environ.update(environment)


def entries(output: Path, scope: str = "*") -> list[Path]:
    """Ledger entries: shards that are done."""
    return sorted(output.glob(f".artifactgen/scopes/{scope}/ledger/*.json"))


def artifacts(output: Path) -> dict[str, bytes]:
    """Everything that must come out equal to the bit, by path."""
    files = [f for f in output.rglob("*") if f.suffix in (".pt", ".png")]
    return {str(f.relative_to(output)): f.read_bytes() for f in files}


def assert_exact(output: Path, undisturbed: Path) -> None:
    """Complete, equal to the bit, and nothing left over."""
    assert (output / "_SUCCESS.json").exists()
    found, expected = artifacts(output), artifacts(undisturbed)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not (output / ".artifactgen" / "tmp").exists()


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder; of folders, that they are there."""
    found = {str(path.relative_to(root)): path for path in sorted(root.rglob("*"))}
    return {
        name: (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)
        for name, path in found.items()
    }


def descendants(pid: int) -> list[psutil.Process]:
    """Living children of a process, and theirs."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def write_images(path: Path, broken: tuple[str, ...] = ()) -> None:
    """uint8 images with labels and ids; float ones with NaN in the records that are broken."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = CLASSES
        for split, records in RECORDS.items():
            ids = [f"{split}_{row:03d}" for row in range(records)]
            images: NDArray[np.generic] = rng.integers(
                0, 256, (records, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8
            )
            if broken:
                images = images.astype(np.float32) / 255
                images[[record_id in broken for record_id in ids], 0, 0, 0] = np.nan
            file[f"{split}/images"] = images
            file[f"{split}/labels"] = np.arange(records) % len(CLASSES)
            file[f"{split}/record_ids"] = ids


def write_checkpoint(
    path: Path, *, seed: int = 0, backbone: str = "test_vit", classes: int = len(CLASSES)
) -> None:
    """Random weights as Lightning stores a module that keeps its network in `model`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = {"img_size": IMAGE_SIZE} if "vit" in backbone else {}
        model = timm.create_model(backbone, num_classes=classes, **size)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 9}, path)
