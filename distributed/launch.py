"""The entry: `generate_artifacts …` and `python -m distributed.launch …` are the same program."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from artifactgen import __version__
from distributed.usage import usage


def run_command(arguments: Sequence[str]) -> int:
    """Run the program with command-line arguments; its exit code."""
    if list(arguments) == ["--version"]:
        sys.stdout.write(f"artifactgen {__version__}\n")
        return 0
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(usage(_own_config_dir(arguments)))
        return 0
    from distributed.cli import run_hydra  # half a second that help need not wait for

    return run_hydra(arguments)


def _own_config_dir(arguments: Sequence[str]) -> Path | None:
    """What follows `--config-dir`, or `-cd`."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    places = [i + 1 for i, word in enumerate(words) if word in ("--config-dir", "-cd")]
    return next((Path(words[i]) for i in places if i < len(words)), None)


def main() -> None:
    """Run the command line, and leave with its exit code."""
    code = run_command(sys.argv[1:])
    gc.freeze()  # or the interpreter looks through all of torch once more, for a second
    sys.exit(code)


if __name__ == "__main__":
    main()
