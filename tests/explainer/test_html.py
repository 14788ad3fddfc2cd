"""What a notebook shows of an explanation."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
from helpers.binding import random_images, random_model
from numpy.typing import NDArray

from artifactgen import Explainer

SIZE = 64, 64


def pictures(html: str) -> list[NDArray[np.uint8]]:
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), 1) for text in encoded]
    return [np.asarray(picture[..., ::-1], np.uint8) for picture in decoded]


def test_it_shows_the_image_its_likeliest_classes_and_attention() -> None:
    names = [f"<{index}> & co" for index in range(7)]
    x = Explainer(random_model("test_vit", img_size=64), classes=names)(random_images(2, size=SIZE))
    html = x._repr_html_()
    shown = pictures(html)
    assert len(shown) == 2 * (1 + 3 + 1)
    assert np.array_equal(shown[0], x.images[0])
    order = x.probabilities[1].argsort(descending=True).tolist()
    for picture, index in zip(shown[6:9], order, strict=False):
        assert np.array_equal(picture, x.overlay(1, index))
    assert f"GradCAM, &lt;{order[0]}&gt; &amp; co: {x.probabilities[1].max():.1%}" in html
    assert "Mean over heads, block" in html
    for remote in ("http", "<script", "<link"):
        assert remote not in html


def test_it_is_well_formed_and_says_what_is_left_out() -> None:
    x = Explainer(random_model("resnet18"))(random_images(10, size=SIZE))
    html = x._repr_html_()
    assert len(pictures(html)) == 8 * 4
    assert "and 2 more: x[8:]" in html
    assert "No attention: ResNet computes no attention." in html
    balance = Balance()
    balance.feed(html)
    assert balance.open == []
    assert repr(x) == (
        "<Explanation of 10 images: embeddings 10 × 512, logits 10 × 7, gradcam 10 × 7 × 2 × 2>"
    )


def test_without_a_classifier_it_shows_what_there_is() -> None:
    model = random_model("test_vit", img_size=64)
    model.reset_classifier(0)
    html = Explainer(model)(random_images(1, size=SIZE))._repr_html_()
    assert len(pictures(html)) == 2
    assert "No GradCAM: GradCAM needs a classifier, and VisionTransformer has none." in html


class Balance(HTMLParser):
    """Tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open += [tag] if tag != "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
