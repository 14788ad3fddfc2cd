"""Every family against timm, pytorch-grad-cam and unfused attention, as the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from artifactgen.introspect.probe import probe
from artifactgen.introspect.sites import attention_sites
from artifactgen.models.timm import as_network
from benchmarks.exactness.cases import Case, cases, one_of_each_kind
from benchmarks.exactness.checks import IN_PLACE, check
from benchmarks.exactness.reference import random_model

EVERY = cases()
QUICK = {case.family for case in one_of_each_kind()}
PARAMETERS = [
    pytest.param(case, id=case.family, marks=() if case.family in QUICK else pytest.mark.slow)
    for case in EVERY
]


def test_the_table_covers_what_timm_has():
    assert len(EVERY) >= 122
    assert len({case.family for case in EVERY}) == len(EVERY)
    modules = {path.stem for path in Path(timm.models.__file__).parent.glob("[a-z]*.py")}
    assert {case.module for case in EVERY} <= modules
    assert len({case.module for case in EVERY}) >= 98


def test_the_quick_ones_are_one_of_each_layout_route_and_query():
    assert {case.kind for case in EVERY} == {case.kind for case in EVERY if case.family in QUICK}
    assert len(QUICK) >= 20


# timm has a new name for one of them; the table goes by the one that people know.
@pytest.mark.filterwarnings("ignore:Mapping deprecated model name:UserWarning")
@pytest.mark.parametrize("case", PARAMETERS)
def test_equals_the_references(case: Case):
    outcome = check(case)
    assert outcome.embedding <= 1e-5
    assert (outcome.layer, outcome.route) == (case.layer, case.route)
    assert outcome.empty == 0, "maps that are zero everywhere would agree about nothing"
    assert outcome.gradcam <= 1e-4
    if isinstance(case.attention, str):
        assert outcome.attention == case.attention
    else:
        assert outcome.attention.keys() == case.attention.keys()
        assert max(outcome.attention.values()) <= 1e-5
    assert min(outcome.in_place.values(), default=1) > IN_PLACE, "not in the order of the image"


def test_keys_that_are_runs_of_tokens_have_no_grid():
    """NextViT pools its keys along the sequence, as many as a grid of the image would have."""
    seen = probe(as_network(random_model("nextvit_small", classes=2)), (96, 128))
    pooled = [path for path in seen.attention if not path.startswith("stages.3")]
    assert pooled
    assert [site.path for site in attention_sites(seen)] == ["stages.3.blocks.2.e_mhsa"]


def test_tokens_in_the_order_of_mask_units_have_no_grid():
    """Hiera has a grid's number of tokens long before they lie row by row."""
    model = random_model("hiera_tiny_224", classes=2, img_size=(96, 128))
    sites = attention_sites(probe(as_network(model), (96, 128)))
    assert {site.path for site in sites} <= {"blocks.10.attn", "blocks.11.attn"}
