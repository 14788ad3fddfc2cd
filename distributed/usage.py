"""What `--help` prints. It is read from the configuration's files, and imports nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

PROGRAM = "generate_artifacts"
_GROUPS = ("data", "model", "artifact", "page", "cluster")
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<rest>.*)")


def config_dir() -> Path:
    """The folder of our configuration: in a wheel beside this file, in a checkout at its top."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def usage() -> str:
    """The shape of a command, every root option, and the options of each group's files."""
    options = (config_dir() / "artifacts.yaml").read_text(encoding="utf-8")
    first, last = "# The trained model", "\nhydra:"
    groups = "\n".join(line for group in _GROUPS for line in _group(config_dir() / group))
    return (
        f"{PROGRAM} experiment=<name> ckpt_path=<file> [option=value …]\n"
        f"{PROGRAM} --config-dir <your folder> experiment=<name> ckpt_path=<file> …\n\n"
        "With an experiment, --cfg job prints every option, and dry_run=true what would be done.\n"
        "The root options, with their defaults:\n\n"
        f"{options[options.index(first) : options.index(last)]}\n"
        f"{groups}"
    )


def _group(folder: Path) -> Iterator[str]:
    """Every file of a group, with its options as a command line names them."""
    for file in sorted(folder.glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        title = [line.strip("# ") for line in lines if line.startswith("# ")]
        package = next((line for line in title if line.startswith("@package")), folder.name)
        yield f"{folder.name}={file.stem}: {' '.join(t for t in title if not t.startswith('@'))}"
        section = package.removeprefix("@package ").removeprefix("_global_")
        yield from _options([line for line in lines if not line.startswith("#")], section)
        yield ""


def _options(lines: list[str], section: str) -> Iterator[str]:
    """`layer: auto  # …` below `gradcam:` as `  gradcam.layer: auto  # …`."""
    for line in lines:
        match = _KEY.fullmatch(line)
        if match is None:
            if line.strip():
                yield f"  {line.strip():>{len(line)}}"  # a comment that goes on
        elif not match["rest"].strip():
            section = match["key"]
        elif match["key"] != "_target_":
            prefix = section if match["indent"] or section != match["key"] else ""
            name = f"{prefix}.{match['key']}" if prefix else match["key"]
            yield f"  {name}:{match['rest']}"
