"""The names that scripts and notebooks of users depend on."""

from __future__ import annotations

import artifactgen
import distributed.launch


def test_the_public_names_of_the_library() -> None:
    assert artifactgen.__all__ == ["Embeddings", "Explainer", "__version__", "load_embeddings"]
    for name in artifactgen.__all__:
        assert getattr(artifactgen, name) is not None
    assert not hasattr(artifactgen, "nothing")


def test_the_entry_of_the_command() -> None:
    assert callable(distributed.launch.main)
    assert callable(distributed.launch.run_command)
