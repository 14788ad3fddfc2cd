"""Pictures that are kept to be drawn on: at little cost in memory, and to the point."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactgen.data.base import Catalog
from artifactgen.data.cmr_acdc import CmrAcdc
from artifactgen.data.framing import frame, placement
from artifactgen.data.image import centre_crop_or_pad, centred
from artifactgen.data.image_folder import ImageFolder
from artifactgen.data.pictures import Pictures
from artifactgen.data.stored import keep, whole
from artifactgen.errors import RecordError
from artifactgen.types import CropMode, Framing, Region, Sample
from artifactgen.types import Image as Picture

SIZE = (64, 48)
EMPTY = Catalog(splits={}, classes=(), channels=3, identity="", dtype="uint8")


def a_ramp(size: tuple[int, int]) -> Picture:
    """Red tells the row of a pixel's centre, green its column, as floats."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) + 0.5
    return np.stack([y, x], -1)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.6])
@pytest.mark.parametrize("have", [(200, 300), (301, 173), (64, 48), (90, 400), (33, 31)])
def test_the_region_says_what_the_input_shows(
    mode: CropMode, crop_pct: float, have: tuple[int, int]
) -> None:
    """By a picture that says of each pixel where it lies: the input's are those of the region."""
    framing = Framing(crop_pct=crop_pct, crop_mode=mode, interpolation="bicubic")
    seen_CHW = frame(a_ramp(have), SIZE, framing)
    region = placement(have, SIZE, framing).region(have, SIZE)
    rows = region.top + (np.arange(SIZE[0]) + 0.5) / SIZE[0] * region.height
    columns = region.left + (np.arange(SIZE[1]) + 0.5) / SIZE[1] * region.width
    # The filter is cut at the edges of a picture, so that the outermost pixels are off.
    inner_rows, inner_columns = (
        (at > off) & (at < side - off)
        for at, side in zip((rows, columns), have, strict=True)
        for off in [3 * max(at[1] - at[0], 1)]
    )
    down, across = seen_CHW[:, inner_rows][:, :, inner_columns]
    assert down.size
    # A filter's taps do not weigh quite evenly to both sides: hundredths of a pixel.
    np.testing.assert_allclose(down.T, np.tile(rows[inner_rows], (down.shape[1], 1)), atol=0.05)
    np.testing.assert_allclose(across, np.tile(columns[inner_columns], (len(across), 1)), atol=0.05)


@pytest.mark.parametrize("have", [(30, 40), (41, 20), (7, 9)])
@pytest.mark.parametrize("crop", [(20, 20), (31, 31), (7, 8)])
def test_a_centred_crop_lies_where_it_says(have: tuple[int, int], crop: tuple[int, int]) -> None:
    picture_CHW = np.arange(1, 1 + have[0] * have[1]).reshape(1, *have)
    region = centred(have, crop)
    padded = np.pad(picture_CHW, ((0, 0), (50, 50), (50, 50)))
    top, left = int(region.top) + 50, int(region.left) + 50
    expected = padded[:, top : top + crop[0], left : left + crop[1]]
    np.testing.assert_array_equal(centre_crop_or_pad(picture_CHW, crop), expected)


def test_large_pictures_do_not_wait_in_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), dtype=np.uint8)
    for i in range(6):
        Image.fromarray(noise).save(tmp_path / f"{i}.png", compress_level=1)
    source = ImageFolder(
        root=str(tmp_path), image_size=(32, 32), framing=Framing(), keep_stored=True
    )
    catalog = source.scan()
    tracemalloc.start()
    try:
        samples = list(source.read(catalog, "test", 0, 6))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < noise.nbytes
    for sample in samples:
        assert isinstance(sample, Sample)
        assert sample.stored is not None
        np.testing.assert_array_equal(sample.stored.read(), noise.transpose(2, 0, 1))


def test_a_small_part_of_a_large_block_does_not_hold_it() -> None:
    block = np.zeros((100, 3, 50, 50), np.uint8)
    stored = keep(block[7], whole((50, 50)), lambda: block[7])
    block[:] = 1
    assert not stored.read().any()
    assert stored.region == Region(0, 0, 50, 50)


def test_a_file_that_is_gone_meanwhile_is_the_records_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    pictures = Pictures(image_size=(8, 8), framing=Framing(), keep_stored=True)
    sample = pictures.sample(path.read_bytes(), "a", 0, catalog=EMPTY, again=path.read_bytes)
    assert sample.stored is not None
    path.unlink()
    with pytest.raises(RecordError, match="could not be read again, for drawing"):
        sample.stored.read()


def test_whole_frames_are_as_bright_as_the_crop_that_the_model_saw(acdc_root: Path) -> None:
    source = CmrAcdc(root=str(acdc_root), image_size=(6, 6), keep_stored=True)
    (sample, *_) = source.read(source.scan(), "test", 0, 1)
    assert isinstance(sample, Sample)
    assert sample.stored is not None
    region = sample.stored.region
    whole_CHW = sample.stored.read()
    rows = slice(int(region.top), int(region.top + region.height))
    columns = slice(int(region.left), int(region.left + region.width))
    np.testing.assert_array_equal(whole_CHW[:, rows, columns], sample.image_CHW)
    assert whole_CHW.shape[1:] != (6, 6)
    assert (whole_CHW.min(), whole_CHW.max()) == (0, 1)
