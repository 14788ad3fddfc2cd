"""Reading against what is usual: nibabel, h5py, and timm's evaluation transform over Pillow.

    python -m benchmarks.speed.reading

Slices of phantom hearts with their noise, and two photographs of scikit-learn. Ours is timed as a
run reads: samples with ids, labels and checks, of the model's size. The reference gives the same
values, which is checked first.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import h5py
import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from artifactgen.data.decoding import decode_picture
from artifactgen.data.framing import frame
from artifactgen.data.hdf5 import Hdf5
from artifactgen.data.hdf5.chunks import forget_chunks
from artifactgen.data.image import MAX_PIXELS
from artifactgen.data.nifti import read_nifti
from artifactgen.types import Framing, Sample
from benchmarks.exactness.comparison import compare
from benchmarks.speed.drawing import SIZE, a_heart

RUNS = 11
HEARTS, ROWS, ROWS_OF_A_THREAD = 32, 256, 8
FRAMING = Framing(crop_pct=0.875, interpolation="bicubic")
PHOTO_SIZES = ((427, 640), (1708, 2560))

Images = NDArray[Any]
Read = Callable[[], object]


def nifti_rows(folder: Path) -> Iterator[str]:
    """A cine of the demo's size, and one eight times as long."""
    slices = np.stack([a_heart(seed)[..., 0] for seed in range(HEARTS)]).astype(np.int16) * 3
    for repeat in (1, 8):
        path = folder / f"{repeat}_4d.nii.gz"
        voxels_XYZT = np.tile(slices.reshape(8, -1, *SIZE).T, (1, 1, 1, repeat))
        nib.save(nib.Nifti1Image(voxels_XYZT, np.eye(4)), path)
        assert np.array_equal(read_nifti(path).stored.T, by_nibabel(path))
        timed = compare(partial(by_nibabel, path), partial(read_nifti, path), runs=RUNS)
        what = f"`.nii.gz`, int16, {voxels_XYZT.nbytes / 1e6:.0f} MB"
        yield f"{what} | nibabel, `np.asarray(image.dataobj)` | {timed.cells()}"


def by_nibabel(path: Path) -> Images:
    """All voxels as they are stored."""
    return np.asarray(nib.load(path).dataobj)


def hdf5_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Images packed by gzip, and how they lie in the file."""
    hearts = np.stack([a_heart(seed)[..., 0] for seed in range(HEARTS)])
    grey = np.tile(hearts, (ROWS // HEARTS, 1, 1))
    deep = grey.astype(np.uint16) * 13
    for name, images, options in (
        ("uint8, 1 image a chunk", grey, {"chunks": (1, *SIZE)}),
        ("uint8, 64 images a chunk", grey, {"chunks": (64, *SIZE)}),
        ("uint16, shuffle, 1 image a chunk", deep, {"chunks": (1, *SIZE), "shuffle": True}),
        ("uint16, shuffle, 64 images a chunk", deep, {"chunks": (64, *SIZE), "shuffle": True}),
        ("photographs, RGB, 1 image a chunk", crops(), {"chunks": (1, *SIZE, 3)}),
        ("photographs, RGB, h5py's own chunks", crops(), {"chunks": True}),
    ):
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=images, compression="gzip", **options)
        yield name, path


def crops() -> Images:
    """Parts of the two photographs, (ROWS, 224, 224, 3) uint8."""
    photos, rng = load_sample_images().images, np.random.default_rng(0)
    corners = rng.integers(0, (427 - SIZE[0], 640 - SIZE[1]), (ROWS, 2))
    parts = [photos[i % 2][y : y + SIZE[0], x : x + SIZE[1]] for i, (y, x) in enumerate(corners)]
    return np.stack(parts)


def hdf5_rows(folder: Path) -> Iterator[str]:
    """One thread, which reads what lies in a chunk at once; then two that share the rows."""
    for name, path in hdf5_files(folder):
        check_hdf5(path)
        for threads, step in ((1, 64), (2, ROWS_OF_A_THREAD)):
            torch.set_num_threads(threads)  # one: CPU time counts; two: the clock on the wall
            plain = partial(by_h5py, path, step, threads)
            ours = partial(in_threads, by_us(path), step, threads)
            timed = compare(plain, ours, runs=RUNS)
            unit = "thread" if threads == 1 else "threads"
            what = f"HDF5 gzip, {name}; {step} rows a read, {threads} {unit}"
            yield f"{what} | h5py, `images[i:i+{step}]` | {timed.cells()}"
    torch.set_num_threads(1)


def by_h5py(path: Path, step: int, threads: int) -> None:
    """Read all rows by the plain library; a file that is opened anew has no chunks in memory."""
    with h5py.File(path, locking=False) as file:
        images = file["images"]
        in_threads(lambda start, stop: images[start:stop], step, threads)


def by_us(path: Path) -> Callable[[int, int], object]:
    """A read of rows as samples."""
    source = Hdf5(path=str(path), image_size=SIZE)
    catalog = source.scan()
    return lambda start, stop: list(source.read(catalog, "test", start, stop))


def in_threads(read: Callable[[int, int], object], step: int, threads: int) -> None:
    """Read all rows, with nothing kept of what was read before."""
    forget_chunks()
    starts = range(0, ROWS, step)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda start: read(start, start + step), starts):
            pass


def check_hdf5(path: Path) -> None:
    """Refuse to time what is not equal."""
    samples: Any = by_us(path)(0, ROWS)
    assert all(isinstance(sample, Sample) for sample in samples)
    with h5py.File(path, locking=False) as file:
        stored = file["images"][()]
    images = np.moveaxis(stored, -1, 1) if stored.ndim == 4 else stored[:, np.newaxis]
    assert np.array_equal([sample.image_CHW for sample in samples], images)


def picture_rows() -> Iterator[str]:
    """From the bytes of a picture to the model's input, uint8, not yet normalised."""
    transform = create_transform(
        (3, *SIZE),
        is_training=False,
        use_prefetcher=True,  # stops at uint8
        interpolation=FRAMING.interpolation,
        crop_pct=FRAMING.crop_pct,
    )
    for size in PHOTO_SIZES:
        photo = cv2.resize(load_sample_images().images[0], size[::-1])
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {})):
            content = io.BytesIO()
            Image.fromarray(photo).save(content, kind, **options)
            data = content.getvalue()
            assert np.array_equal(by_timm(data, transform), framed(data))
            name = f"{kind}, {size[1]} × {size[0]}"
            timed = compare(partial(by_pillow, data), partial(decoded, data), runs=RUNS)
            yield f"{name}, decoded | `np.asarray(Image.open(…).convert('RGB'))` | {timed.cells()}"
            timed = compare(partial(by_timm, data, transform), partial(framed, data), runs=RUNS)
            yield f"{name}, resized and cropped to {SIZE[1]} | timm's transform | {timed.cells()}"


def by_timm(data: bytes, transform: Callable[[Image.Image], Images]) -> Images:
    """As timm's data sets do."""
    return transform(Image.open(io.BytesIO(data)).convert("RGB"))


def by_pillow(data: bytes) -> Images:
    """The pixels as an array."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoded(data: bytes) -> Images:
    """Likewise, by us."""
    return decode_picture(data, mode="RGB", max_pixels=MAX_PIXELS)


def framed(data: bytes) -> Images:
    """The model's input, by us."""
    return frame(decoded(data), SIZE, FRAMING)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)  # so that CPU time is counted
    cv2.setNumThreads(1)
    print("| what | reference | reference takes | ours takes | ratio |")
    print("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        for rows in (nifti_rows(Path(name)), hdf5_rows(Path(name)), picture_rows()):
            for row in rows:
                print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
