"""The families beside timm against the users' own models, as the table says."""

from __future__ import annotations

import re

import pytest

from benchmarks.exactness import conformance, families
from benchmarks.exactness.family_cases import CASES, Case
from benchmarks.exactness.page import PAGE

QUICK = ("ViT", "CLIP, text vectors", "`resnet18`", "a LightningModule")
PARAMETERS = [
    pytest.param(case, id=case.title, marks=() if case.title in QUICK else pytest.mark.slow)
    for case in CASES
]


@pytest.mark.parametrize("case", PARAMETERS)
def test_equals_the_users_own_model(case: Case) -> None:
    row = families.check(case)
    assert row.embedding <= 1e-5
    assert row.gradcam <= 1e-4
    assert (row.attention is None) == (case.attention is None)
    assert (row.attention or 0.0) <= 1e-5


def test_the_page_has_the_sections_that_scripts_write() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.M)
    assert headings.count(conformance.HEADING) == 1
    assert headings.count(families.HEADING) == 1
