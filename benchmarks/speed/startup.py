"""How long a command takes before it does anything, against `import torch`.

Whole processes, turn by turn in one run: the demo's data and checkpoint (`make demo`) in a folder
of its own. `python -m benchmarks.speed.startup [--rounds N]`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.speed.timing import machine

ROOT = Path(__file__).parents[2]
DEMO = "experiment=embeddings/demo"
TORCH, TIMM = "import torch", "import torch, timm"
Command = Sequence[str]


def commands(folder: Path) -> Mapping[str, tuple[Command, int, str, float]]:
    """Name to arguments of Python, exit code, what it is measured by, and the goal."""

    def program(*options: str) -> Command:
        paths = [f"data.root={ROOT / 'demo/data'}", f"ckpt_path={ROOT / 'demo/demo.ckpt'}"]
        return ["-m", "distributed.launch", DEMO, *paths, f"output_dir={folder / 'out'}", *options]

    return {
        TORCH: (["-c", TORCH], 0, TORCH, 1),
        TIMM: (["-c", TIMM], 0, TORCH, float("inf")),
        "--help": (["-m", "distributed.launch", "--help"], 0, TORCH, 0.15),
        "--version": (["-m", "distributed.launch", "--version"], 0, TORCH, 0.15),
        "unknown option": (program("data.batchsize=3"), 2, TORCH, 0.5),
        "wrong value": (program("data.batch_size=-3"), 2, TORCH, 0.5),
        "wrong value of a kind's option": (program("gradcam.style=bogus"), 2, TORCH, 0.5),
        "unknown backbone": (program("model.backbone=vit_tinny"), 2, TORCH, 0.5),
        "missing experiment": (["-m", "distributed.launch", "experiment=none"], 2, TORCH, 0.5),
        "missing checkpoint": (program("ckpt_path=nowhere.ckpt"), 2, TORCH, 0.5),
        "missing data": (program("data=hdf5", "data.path=nowhere.h5"), 2, TORCH, 0.5),
        "finished run": (program(), 0, TORCH, 1.2),
        "one record": (program(f"output_dir={folder}/ROUND", "record_id=patient061"), 0, TIMM, 1.5),
    }


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round."""
    subprocess.run([sys.executable, *commands(folder)["finished run"][0]], cwd=ROOT, check=True)
    seconds: dict[str, list[float]] = {name: [] for name in commands(folder)}
    for index in range(rounds):
        for name, (command, code, _, _) in commands(folder).items():
            own = [part.replace("ROUND", f"record{index}") for part in command]
            start = time.perf_counter()
            done = subprocess.run([sys.executable, *own], cwd=ROOT, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
            assert done.returncode == code, (name, done.stderr.decode())
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), rounds)
        print(machine())
        print("\n| command | seconds | by | ratio | goal |\n| --- | ---: | --- | ---: | ---: |")
        for name, (_, _, reference, goal) in commands(Path(folder)).items():
            pairs = zip(seconds[name], seconds[reference], strict=True)
            ratio = statistics.median(ours / other for ours, other in pairs)
            shown = "" if goal in (1, float("inf")) else f"{goal:g}"
            print(
                f"| `{name}` | {statistics.median(seconds[name]):.2f} | `{reference}` | "
                f"{ratio:.2f} | {shown} |"
            )


if __name__ == "__main__":
    main()
