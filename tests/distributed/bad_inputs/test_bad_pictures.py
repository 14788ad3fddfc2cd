"""Rows 1, 2, 3, 8 and 12: picture files that are broken, too large, odd, tiny, or no files."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.broken import (
    assert_others_equal,
    assert_refused,
    encoded,
    failures,
    make_fifo,
    peak_growth,
    picture,
    png_bomb,
    png_chunk,
)
from helpers.workspace import CLASSES, Outcome, Workspace
from PIL import Image

RUN = ("experiment=embeddings/tiny", "ckpt_path=model.ckpt", "data.root=pictures")
PNG, JPEG = encoded(picture(90)), encoded(picture(91), "JPEG")
TIFF_HEAD = b"II*\0\x08\0\0\0"
NO_PICTURE = "no picture that could be read, by its first bytes"
TOO_MANY = r"196,000,000 pixels are more than data\.max_pixels=100000000; raise it if the memory"


def tiff_bomb() -> bytes:
    """A TIFF file of a hundred bytes that claims 30,000 × 30,000 pixels of 8 bits."""
    tags = [(256, 30_000), (257, 30_000), (258, 8), (259, 1), (262, 1), (273, 200), (278, 30_000)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, 9)])
    return TIFF_HEAD + struct.pack("<H", len(tags) + 1) + entries + bytes(100)


def text_bomb() -> bytes:
    """A PNG file with a compressed text of 100 MB in it."""
    return png_bomb(9, 9, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000), 9)))


BROKEN: Mapping[str, tuple[bytes, str]] = {
    "empty.png": (b"", r"empty \(0 bytes\)"),
    "text.png": (b"not a picture\n", NO_PICTURE),
    "page.jpg": (b"<html>404 Not Found</html>", NO_PICTURE),
    "cut_png.png": (PNG[: len(PNG) // 2], "image file is truncated"),
    "cut_jpeg.jpg": (JPEG[: len(JPEG) // 2], "image file is truncated"),
    "head.jpg": (JPEG[:12], "Truncated|truncated"),
    "stream.png": (PNG[:200] + b"\xff" * 90 + PNG[290:], "broken|truncated|unrecognized"),
    "bomb.png": (png_bomb(14_000, 14_000), TOO_MANY),
    "claim.png": (png_bomb(2**31 - 1, 2**31 - 1), "more than data.max_pixels"),
    "claim_too.tif": (tiff_bomb(), r"30,000 × 30,000 = 900,000,000 pixels are more than"),
    "words.png": (text_bomb(), "Decompressed data too large|too large"),
    "deep.png": (
        encoded(np.full((70, 80), 500, np.uint16)),
        "its pixels are uint16, and those of the data set uint8",
    ),
    "float.tif": (
        encoded(np.full((70, 80), 0.5, np.float32), "TIFF"),
        "its pixels are float32, and those of the data set uint8",
    ),
    "narrow.png": (
        encoded(np.zeros((50_000, 3, 3), np.uint8)),
        r"50,000 × 3 pixels would be stretched to .*: too narrow; data\.crop_mode=squash",
    ),
}
"""Files that fail (rows 1, 2, 3 and 8), and why."""


def as_palette(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0]).convert("P")


def animated(pixels: np.ndarray) -> bytes:
    others = [Image.fromarray(255 - pixels)]
    return encoded(Image.fromarray(pixels), "TIFF", save_all=True, append_images=others)


def oriented(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(pixels), exif=exif)


def plain(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 77, np.uint8)


GREY = np.dstack([picture(3)[..., 0]] * 3)
ODD: Mapping[str, tuple[bytes, bytes]] = {
    "alpha.png": (encoded(np.dstack([picture(1), picture(2)[..., 0]])), encoded(picture(1))),
    "grey.png": (encoded(picture(3)[..., 0]), encoded(GREY)),
    "grey_alpha.png": (encoded(picture(3)[..., :2]), encoded(GREY)),
    "palette.png": (encoded(as_palette(picture(3))), encoded(GREY)),
    "cmyk.tif": (
        encoded(
            Image.fromarray(np.dstack([picture(4), np.zeros_like(GREY[..., 0])]), "CMYK"), "TIFF"
        ),
        encoded(255 - picture(4), "TIFF"),
    ),
    "animated.tif": (animated(picture(5)), encoded(picture(5), "TIFF")),
    "turned.png": (oriented(picture(6)), encoded(picture(6))),
    "dot.png": (
        encoded(np.full((1, 1, 3), 77, np.uint8)),
        encoded(np.full((9, 9, 3), 77, np.uint8)),
    ),
    "line.png": (encoded(plain(1, 40)), encoded(plain(9, 9))),
}
"""Files that are converted (rows 3 and 8), and plain ones with the pixels that they become."""


@dataclass(frozen=True)
class Ran:
    workspace: Workspace
    outcome: Outcome
    growth: int

    @property
    def output(self) -> Path:
        return self.workspace.root / "out"

    @property
    def clean(self) -> Path:
        return self.workspace.root / "clean"


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for index, (name, data) in enumerate(files.items()):
        place = folder / CLASSES[index % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny) -> Ran:
    """One run with all that is broken and odd between good pictures, and a clean one."""
    root = tmp_path_factory.mktemp("pictures")
    workspace = tiny(root, "image_folder")
    good = {f"a{n}.png": encoded(picture(n)) for n in range(6)}
    write(root / "clean_pictures", {**good, **{n: same for n, (_, same) in ODD.items()}})
    write(root / "pictures", {**good, **{n: odd for n, (odd, _) in ODD.items()}})
    for name, (data, _) in BROKEN.items():
        # The class and the order are those of the clean data set, with a good one in its place.
        for folder, content in (("pictures", data), ("clean_pictures", encoded(picture(80)))):
            path = root / folder / "cat" / name
            path.write_bytes(content)
    clean = workspace.run(*RUN, "data.root=clean_pictures", "output_dir=clean")
    assert clean.exit_code == 0, clean.text
    outcomes: list[Outcome] = []
    growth = peak_growth(lambda: outcomes.append(workspace.run(*RUN, "output_dir=out")))
    return Ran(workspace, outcomes[0], growth)


def test_the_run_is_complete(ran: Ran) -> None:
    assert ran.outcome.exit_code == 0, ran.outcome.text
    assert f"{len(BROKEN)} failed" in ran.outcome.text
    assert "Traceback" not in ran.outcome.text
    assert (ran.output / "_SUCCESS.json").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails_with_its_reason(ran: Ran, name: str) -> None:
    reason = failures(ran.output)[f"cat/{Path(name).stem}"]
    assert re.search(BROKEN[name][1], reason), reason


def test_what_is_odd_becomes_what_is_documented_and_the_good_are_equal_to_the_bit(ran: Ran) -> None:
    broken = failures(ran.output)
    assert len(broken) == len(BROKEN)
    assert_others_equal(ran.output, ran.clean, broken)


def test_memory_stays_flat(ran: Ran) -> None:
    """A picture of 14,000 × 14,000 takes 588 MB."""
    assert ran.growth < 250e6


def test_too_many_broken_ones_are_an_error_that_names_the_first(ran: Ran) -> None:
    outcome = ran.workspace.run(*RUN, "output_dir=strictly", "max_failures=0.01")
    assert outcome.exit_code == 1, outcome.text
    assert f"{len(BROKEN)} of {len(BROKEN) + len(ODD) + 6} records failed" in outcome.text
    assert "The first, cat/" in outcome.text
    assert "add retry_failures=true" in outcome.text


def test_nothing_but_broken_pictures(tmp_path: Path, tiny) -> None:
    workspace = tiny(tmp_path, "image_folder")
    write(tmp_path / "pictures", {"a.png": b"", "b.png": b"text"})
    told = r"None of the first pictures can be read:\n.*a\.png: empty \(0 bytes\)"
    assert_refused(workspace.run(*RUN, "output_dir=out"), told, tmp_path / "out")


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder of pictures with everything in it that is no file."""
    folder = tmp_path / "pictures"
    write(folder, {f"a{n}.png": encoded(picture(n)) for n in range(6)})
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "cat" / "itself.png").symlink_to("itself.png")
    (folder / "cat" / "gone.png").symlink_to("nowhere.png")
    (folder / "cat" / "folder.png").mkdir()
    make_fifo(folder / "dog" / "pipe.png")
    (folder / "dog" / "socket.png").symlink_to("/dev/zero")
    (folder / "dog" / ".hidden.png").write_bytes(b"")
    return folder


@pytest.mark.timeout(180)
def test_what_is_no_file_is_skipped_and_nothing_waits(
    ran: Ran, traps: Path, tmp_path: Path, tiny
) -> None:
    workspace = tiny(tmp_path, "image_folder")
    clean = tmp_path / "clean"
    write(clean, {f"a{n}.png": encoded(picture(n)) for n in range(6)})
    for root, output in ((traps, "out"), (clean, "expected")):
        outcome = workspace.run(*RUN, f"data.root={root}", f"output_dir={output}")
        assert outcome.exit_code == 0, outcome.text
        assert "Done: 6 records, 0 failed" in outcome.text
    assert_others_equal(tmp_path / "out", tmp_path / "expected", ())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; see test_image_folder")
def test_a_picture_that_nobody_may_read(tmp_path: Path, tiny) -> None:
    workspace = tiny(tmp_path, "image_folder")
    write(tmp_path / "pictures", {f"a{n}.png": encoded(picture(n)) for n in range(6)})
    (tmp_path / "pictures" / "cat" / "a3.png").chmod(0)
    assert workspace.run(*RUN, "output_dir=out").exit_code == 0
    assert failures(tmp_path / "out").keys() == {"cat/a3"}
