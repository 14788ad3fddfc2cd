import matplotlib
import numpy as np
import pytest

from artifactgen.errors import ConfigError
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP, lookup_table


@pytest.mark.parametrize("name", [DEFAULT_COLORMAP, "magma", "viridis", "turbo", "jet", "gray"])
def test_tables_are_those_of_matplotlib(name):
    expected = matplotlib.colormaps[name](np.arange(256))[:, :3]
    np.testing.assert_allclose(lookup_table(name), expected * 255, atol=0.5)


def test_every_map_of_matplotlib_has_a_table():
    for name in matplotlib.colormaps:
        assert lookup_table(name).shape == (256, 3)


def test_lightness_of_the_default_grows():
    lightness = lookup_table(DEFAULT_COLORMAP) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(lightness) > -0.5).all()
    assert np.ptp(lightness) > 200


def test_tables_are_shared_and_cannot_be_changed():
    table = lookup_table("inferno")
    assert lookup_table("inferno") is table
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 7


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'infernal'.*Did you mean inferno"):
        lookup_table("infernal")
