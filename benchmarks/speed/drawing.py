"""Drawing against what is usual: matplotlib, OpenCV, Pillow. Time, bytes, and pixels.

    python -m benchmarks.speed.drawing

One core. A phantom heart of 224 × 224 pixels, random attention of 14 × 14 patches that is
concentrated as attention is. Everything is timed from arrays to the bytes of a PNG file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image

from artifactgen.demo.anatomy import draw_heart
from artifactgen.demo.imaging import draw_protocol, image_heart
from artifactgen.rendering.colormaps import lookup_table
from artifactgen.rendering.figure.attention import AttentionFigure, FigureSpec
from artifactgen.rendering.overlay import heatmap, overlay, scale_cam, to_levels
from artifactgen.rendering.png import encode_indexed_png, encode_png
from artifactgen.rendering.saliency import SaliencyPictures
from benchmarks.exactness.comparison import compare
from benchmarks.speed.plain_matplotlib import figure_png

SIZE = (224, 224)
TEXT = {"Record": "patient001", "Class": "1 HCM", "Method": "gradcam", "Layer": "blocks.11.norm1"}
FIGURE_RUNS, PICTURE_RUNS = 9, 51

Picture = NDArray[np.uint8]
Encode = Callable[[Picture], bytes]


def a_heart(seed: int = 0) -> Picture:
    """The middle slice of a phantom, (224, 224, 3) uint8."""
    rng = np.random.default_rng(seed)
    image_TZYX, _ = image_heart(rng, draw_heart(rng, "HCM"), draw_protocol(rng))
    slice_YX = image_TZYX[0, image_TZYX.shape[1] // 2].astype(np.float32)
    grey = np.clip(slice_YX / np.percentile(slice_YX, 99.5) * 255, 0, 255).astype(np.uint8)
    large = cv2.resize(grey, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return np.repeat(large[..., None], 3, axis=-1)


def some_maps(*leading: int, seed: int = 0) -> NDArray[np.float32]:
    """Random smooth maps of 14 × 14 patches that sum to 0.8, as the patches' share may."""
    rng = np.random.default_rng(seed)
    maps = rng.exponential(size=(int(np.prod(leading)), 14, 14)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(each, (0, 0), 1.2) ** 4 for each in maps])
    weights: NDArray[np.float32] = 0.8 * smooth / smooth.sum((1, 2), keepdims=True)
    return weights.reshape(*leading, 14, 14)


def by_opencv(rgb: Picture) -> bytes:
    """`cv2.imencode` with its defaults."""
    encoded: bytes = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    return encoded


def by_pillow(rgb: Picture) -> bytes:
    """`Image.save` with its defaults."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "PNG")
    return content.getvalue()


def usual_heatmap(cam_hw: NDArray[np.float32]) -> bytes:
    """Scale, resize, colour and encode with OpenCV."""
    scaled = (cam_hw - cam_hw.min()) / (1e-7 + np.ptp(cam_hw))
    large = cv2.resize(scaled, SIZE[::-1])
    colored = cv2.applyColorMap(np.uint8(255 * large), cv2.COLORMAP_INFERNO)
    encoded: bytes = cv2.imencode(".png", colored)[1].tobytes()
    return encoded


def usual_overlay(cam_hw: NDArray[np.float32], image: Picture) -> bytes:
    """What the examples of pytorch-grad-cam do with a map, saved with Pillow."""
    scaled = (cam_hw - cam_hw.min()) / (1e-7 + np.ptp(cam_hw))
    large = cv2.resize(scaled, SIZE[::-1])
    return by_pillow(show_cam_on_image(np.float32(image) / 255, large, use_rgb=True))


def time_rows() -> Iterator[str]:
    """Goals 5 and 6."""
    image, cam_hw = a_heart(), some_maps()
    figure, attention = AttentionFigure(FigureSpec(12, ("Block 11",), SIZE)), some_maps(1, 12)
    title = "patient001"

    def our_figure() -> bytes:
        canvas = figure.draw([image], attention, title=title, subtitle="label HCM")
        return encode_png(canvas, TEXT)

    height, width = figure.geometry.size
    fresh = partial(figure_png, figure, [image], attention, title=title)
    timed = compare(fresh, our_figure, runs=FIGURE_RUNS, repeat=3)
    yield f"12-head figure, {width} × {height} | fresh matplotlib figure | {timed.cells()}"

    levels, palette = to_levels(scale_cam(cam_hw, SIZE)), lookup_table("inferno")
    heat, over = palette[levels], overlay(image, scale_cam(cam_hw, SIZE))
    for name, reference_name, reference, ours in (
        (
            "heat map, pixels to PNG",
            "`cv2.imencode`",
            partial(by_opencv, heat),
            partial(encode_indexed_png, levels, palette, TEXT),
        ),
        (
            "heat map, map to PNG",
            "`cv2.resize`, `applyColorMap`, `imencode`",
            partial(usual_heatmap, cam_hw),
            partial(_draw, "heatmap", image, cam_hw),
        ),
        (
            "overlay, pixels to PNG",
            "Pillow's `save`",
            partial(by_pillow, over),
            partial(encode_png, over, TEXT),
        ),
        (
            "overlay, map to PNG",
            "`show_cam_on_image`, Pillow's `save`",
            partial(usual_overlay, cam_hw, image),
            partial(_draw, "overlay", image, cam_hw),
        ),
    ):
        timed = compare(reference, ours, runs=PICTURE_RUNS, repeat=5)
        yield f"GradCAM {name} | {reference_name} | {timed.cells()}"


def _draw(style: str, image: Picture, cam_hw: NDArray[np.float32]) -> list[bytes]:
    pictures = SaliencyPictures(style=style)  # type: ignore[arg-type]
    return list(pictures.draw([image], cam_hw[None], [TEXT]))


def byte_rows() -> Iterator[str]:
    """Bytes of the same pixels."""
    image, cam_hw = a_heart(), some_maps()
    figure = AttentionFigure(FigureSpec(12, ("Block 11",), SIZE))
    canvas = figure.draw([image], some_maps(1, 12), title="patient001", subtitle="label HCM")
    map01 = scale_cam(cam_hw, SIZE)
    indexed = encode_indexed_png(to_levels(map01), lookup_table("inferno"))
    over = overlay(image, map01)
    for name, ours, pixels in (
        ("12-head figure", encode_png(canvas), canvas),
        ("GradCAM overlay", encode_png(over), over),
        ("GradCAM heat map", indexed, heatmap(map01)),
    ):
        sizes = (len(ours), len(by_opencv(pixels)), len(by_pillow(pixels)))
        yield f"{name} | " + " | ".join(f"{size / 1000:.1f} kB" for size in sizes)


def pixel_rows() -> Iterator[str]:
    """Mean absolute difference to plain matplotlib, of 255, in the places without text."""
    image, attention = a_heart(), some_maps(1, 12)
    figure = AttentionFigure(FigureSpec(12, ("Block 11",), SIZE))
    ours = figure.draw([image], attention, title="patient001", subtitle="label HCM")
    png = figure_png(figure, [image], attention, title="patient001")
    theirs = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    difference = np.abs(ours.astype(int) - theirs)
    (band,) = figure.geometry.bands
    for name, panels in (
        ("heads", band.heads),
        ("input", band.inputs),
        ("mean over heads, laid over the input", band.means),
    ):
        values = np.concatenate([difference[panel.pixels].ravel() for panel in panels])
        yield f"{name} | {values.mean():.2f} | {np.percentile(values, 99):.0f}"


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)  # so that CPU time is counted
    mpl.use("Agg")
    cv2.setNumThreads(1)
    print("| what | reference | reference takes | ours takes | ratio |")
    print("| --- | --- | ---: | ---: | ---: |")
    for row in time_rows():
        print(f"| {row} |")
    print("\n| bytes of the same pixels | ours | cv2 | Pillow |\n| --- | ---: | ---: | ---: |")
    for row in byte_rows():
        print(f"| {row} |")
    print("\n| difference to matplotlib, of 255 | mean | 99th percentile |\n| --- | ---: | ---: |")
    for row in pixel_rows():
        print(f"| {row} |")


if __name__ == "__main__":
    main()
