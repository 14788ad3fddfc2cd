"""The goals for a GPU in one table: forward, all artifacts, end to end from HDF5, GPU busy.

    python -m benchmarks.speed.gpu [--images 16384] [--batch 256] [--rounds 5] [--models ViT-S/16 …]

Needs torch, timm, h5py and cv2 (and what they and the figures need: NumPy, Pillow, matplotlib);
neither Ray nor Hydra nor pytorch-grad-cam. `--device cpu` rehearses it where there is no GPU.
Random weights and images, bf16 autocast on a GPU. The reference is a loop over a batch that lies
on the device, through the whole model compiled.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import zlib
from types import ModuleType

import torch

DEFAULT_MODELS = ("ViT-S/16", "ViT-B/16", "ResNet-50")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS)
    parser.add_argument("--images", type=int, default=16384, help="in the HDF5 file")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=20, help="in each round of a loop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=8, help="reader threads of the worker")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    return parser.parse_args(arguments)


def stand_in_for_deflate() -> None:
    """Let zlib deflate pictures where the faster ones are not installed: so it is said."""
    missing = [name for name in ("isal", "zlib_ng") if importlib.util.find_spec(name) is None]
    for name in missing:
        module = ModuleType(name)
        setattr(module, "isal_zlib" if name == "isal" else name, zlib)
        sys.modules[name] = module
    if "zlib_ng" in missing:
        print("zlib-ng is not installed: pictures are deflated by zlib, which is slower.\n")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 2 where there is no GPU."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA device, so there is nothing to measure.", file=sys.stderr)
        print("To rehearse on the CPU: --device cpu --images 64 --batch 16", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING)
    stand_in_for_deflate()
    from benchmarks.speed.gpu_table import print_table  # it needs them or their stand-in

    print_table(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
