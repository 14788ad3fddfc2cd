"""What `--help` prints. It is read from the configuration's files, and imports nothing else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

PROGRAM = "generate_artifacts"
_GROUPS = ("data", "model", "artifact", "page", "cluster", "launcher", "debug")
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<rest>.*)")


def config_dir() -> Path:
    """The folder of our configuration: in a wheel beside this file, in a checkout at its top."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def usage(own: Path | None = None) -> str:
    """The shape of a command, every root option, and the options of each group's files.

    Args:
        own: the user's `--config-dir`, whose groups are shown as well.
    """
    options = (config_dir() / "artifacts.yaml").read_text(encoding="utf-8")
    first, last = "# The trained model", "\nhydra:"
    roots = [root for root in (config_dir(), own) if root is not None]
    listed = (line for group in _GROUPS for root in roots for line in _group(root / group))
    groups = "\n".join(listed)
    return (
        f"{PROGRAM} experiment=<name> ckpt_path=<file> [option=value …]\n"
        f"{PROGRAM} --config-dir <your folder> experiment=<name> ckpt_path=<file> …\n\n"
        "With an experiment, --cfg job prints every option, and dry_run=true what would be done.\n"
        "The root options, with their defaults:\n\n"
        f"{options[options.index(first) : options.index(last)]}\n"
        "One choice of each group is taken (data=hdf5); of artifact and page a list\n"
        "(artifact=[embeddings,gradcam], page=[]). An experiment chooses; else it is "
        "data=cmr_acdc\nmodel=timm cluster=local. With -m, a=1,2 is one run for each value.\n\n"
        f"{groups}"
    )


def _group(folder: Path) -> Iterator[str]:
    """Every file of a group, with its options as a command line names them."""
    for file in sorted(folder.glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        head = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
        package = next((line for line in head if line.startswith("@package")), folder.name)
        title = " ".join(line for line in head if line != package)
        section = package.removeprefix("@package ").removeprefix("_global_")
        group = f"hydra/{folder.name}" if section.startswith("hydra.") else folder.name
        yield from textwrap.wrap(f"{group}={file.stem}: {title}", 100, break_on_hyphens=False)
        options = list(_options([line for line in lines if not line.startswith("#")], section))
        width = max((len(option) for option, _ in options), default=0)
        yield from (f"  {option:<{width}}  {comment}".rstrip() for option, comment in options)
        yield ""


def _options(lines: list[str], section: str) -> Iterator[tuple[str, str]]:
    """`layer: auto  # …` below `gradcam:` as `gradcam.layer: auto` and `# …`."""
    for line in lines:
        content, hash_, comment = line.partition("#")
        match = _KEY.fullmatch(content.rstrip())
        if match is None:
            if comment:
                yield "", hash_ + comment  # one that goes on
        elif not match["rest"].strip():
            section = "" if match["key"] == "defaults" else match["key"]
        elif match["key"] != "_target_":
            prefix = f"{section}." if match["indent"] or section else ""
            yield f"{prefix}{match['key']}:{match['rest']}", hash_ + comment
