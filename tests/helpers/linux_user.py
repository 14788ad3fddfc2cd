"""Another user of this machine, for tests of what two users do at once."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from helpers.slurm import succeed, unavailable

REPOSITORY = Path(__file__).parents[2]
KEPT = ("MKL_CBWR", "PATH", "SLURM_CONF")
"""What users of one machine and one SLURM have in common."""


@dataclass(frozen=True, slots=True)
class LinuxUser:
    """A user whose home can be read and not written."""

    name: str
    home: Path
    folder: Path
    """Where they may write."""
    python: Path
    """A Python that they may run, with the packages of this one."""

    def command(self, *command: str) -> list[str]:
        """A command line that runs a command as this user, in their environment."""
        packages = f"{REPOSITORY}:{REPOSITORY / 'tests'}:{sysconfig.get_path('purelib')}"
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        own = {"PYTHONPATH": packages, "HOME": str(self.home), "USER": self.name}
        if self.python != Path(sys.executable):  # a copy looks for its library where it was
            own["LD_LIBRARY_PATH"] = str(self.python.parents[1] / "lib")
        settings = [f"{name}={value}" for name, value in {**kept, **own}.items()]
        enter = ("runuser", "-u", self.name, "--", "env", "-i", "-C", str(self.folder))
        return [*enter, *settings, *command]

    def run(self, *command: str) -> str:
        """Standard output of a command that this user runs."""
        return succeed(*self.command(*command)).strip()

    def processes(self) -> list[psutil.Process]:
        """What they run."""
        uid = pwd.getpwnam(self.name).pw_uid
        return [found for found in psutil.process_iter(["uids"]) if found.info["uids"].real == uid]


@pytest.fixture
def other_user() -> Iterator[LinuxUser]:
    """A user who is made for a test, and removed after it with all that they run and own."""
    if os.geteuid() != 0:
        unavailable("only root can make a user")
    root = Path(tempfile.mkdtemp(prefix="artifactgen-user-", dir="/tmp"))
    root.chmod(0o755)
    try:
        yield (user := _make_user(f"artifactgen{os.getpid()}", root))
        _remove(user)
    finally:
        shutil.rmtree(root)


def _make_user(name: str, root: Path) -> LinuxUser:
    home, folder = root / "home", root / "folder"
    home.mkdir(mode=0o555)
    folder.mkdir()
    succeed("useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/bash", name)
    shutil.chown(folder, name)
    return LinuxUser(name, home, folder, _python_for(name, root / "python"))


def _remove(user: LinuxUser) -> None:
    for process in user.processes():
        process.kill()
    psutil.wait_procs(user.processes(), timeout=10)
    succeed("userdel", "--force", user.name)


def _python_for(name: str, copy: Path) -> Path:
    """This Python, or a copy of it if it lies where the user may not go, such as root's home."""
    ours = ["runuser", "-u", name, "--", sys.executable, "-c", ""]
    if subprocess.run(ours, check=False, capture_output=True).returncode == 0:
        return Path(sys.executable)
    unused = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "__pycache__")
    shutil.copytree(sys.base_prefix, copy, symlinks=True, ignore=unused)
    return copy / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
