"""An explanation as a notebook shows it: images, maps of the likeliest classes, mean attention."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from artifactgen.rendering.png import encode_png

if TYPE_CHECKING:
    from artifactgen.explainer.explanation import Explanation, Picture

MOST_IMAGES = 8
"""Shown of a batch."""
MOST_CLASSES = 3
"""Shown of an image."""

_PANEL_PX = 200
_ROW = "display:flex;flex-wrap:wrap;gap:14px;margin:2px 0 18px"
_TITLE = "font-weight:600;margin-top:6px"
_CAPTION = "font-size:12px;line-height:1.35;margin-top:4px;opacity:.75"


def as_html(explanation: Explanation) -> str:
    """HTML without scripts and links: every picture is part of it."""
    records = "".join(_record(one) for one in explanation[:MOST_IMAGES])
    more = len(explanation) - MOST_IMAGES
    rest = _note(f"and {more} more: x[{MOST_IMAGES}:]") if more > 0 else ""
    reasons = "".join(_note(f"No {kind}: {why}.") for kind, why in _missing(explanation))
    return f'<div style="font-family:sans-serif">{records}{rest}{reasons}</div>'


def _missing(explanation: Explanation) -> Iterator[tuple[str, str]]:
    names = {"gradcam": "GradCAM", "attention": "attention"}
    return ((names[kind], why) for kind, why in explanation.missing.items() if kind in names)


def _record(one: Explanation) -> str:
    panels = "".join(_panel(picture, caption) for picture, caption in _pictures(one))
    title = escape(one.titles[0])
    return f'<div style="{_TITLE}">{title}</div><div style="{_ROW}">{panels}</div>'


def _pictures(one: Explanation) -> Iterator[tuple[Picture, str]]:
    """The panels of one image, and what stands below them."""
    yield one.images[0], "What the model saw"
    if "gradcam" not in one.missing:
        probabilities_K = one.probabilities[0]
        known = one.gradcam_classes[0].tolist()
        for index in sorted(known, key=lambda k: -float(probabilities_K[k]))[:MOST_CLASSES]:
            caption = f"GradCAM, {one.classes[index]}: {float(probabilities_K[index]):.1%}"
            yield one.overlay(0, index), caption
    if "attention" not in one.missing:
        yield _mean_attention(one)


def _mean_attention(one: Explanation) -> tuple[Picture, str]:
    """The mean over heads of the last block that is shown, cut out of the figure."""
    figure = one.attention_figure
    region = figure.geometry.bands[-1].means[0]
    caption = f"{figure.spec.mean_name}, {figure.spec.blocks[-1].lower()}"
    return one.figure()[region.pixels], caption


def _panel(picture: Picture, caption: str) -> str:
    height, width = picture.shape[:2]
    shown = f"width:{_PANEL_PX}px;height:{max(1, round(_PANEL_PX * height / width))}px"
    source = base64.b64encode(encode_png(picture)).decode()
    return (
        f'<div style="width:{_PANEL_PX}px">'
        f'<img alt="{escape(caption)}" style="{shown};border-radius:3px" '
        f'src="data:image/png;base64,{source}">'
        f'<div style="{_CAPTION}">{escape(caption)}</div></div>'
    )


def _note(text: str) -> str:
    return f'<div style="{_CAPTION}">{escape(text)}</div>'
