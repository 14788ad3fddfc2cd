"""`python -m artifactgen.demo`: make the demo's data and checkpoint where they are missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from artifactgen.demo.checkpoint import CROP_SIZE, IMAGE_SIZE, make_demo
from artifactgen.demo.phantom import Phantom
from artifactgen.demo.training import Schedule
from artifactgen.errors import ArtifactGenError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m artifactgen.demo", description=__doc__)
    parser.add_argument("--data-root", type=Path, default=Path("demo/data"))
    parser.add_argument("--ckpt", type=Path, default=Path("demo/demo.ckpt"))
    options = parser.parse_args(arguments)
    source = Phantom(root=str(options.data_root), image_size=IMAGE_SIZE, crop_size=CROP_SIZE)
    try:
        make_demo(source, options.ckpt, schedule=Schedule(), console=Console(highlight=False))
    except ArtifactGenError as error:
        Console(stderr=True, highlight=False).print(error, markup=False, soft_wrap=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
