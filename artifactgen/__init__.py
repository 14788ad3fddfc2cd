"""Embeddings, GradCAM and attention maps of a trained vision model, over all of your data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactgen.embeddings import Embeddings, load_embeddings
    from artifactgen.explainer.explain import Explainer

__version__ = "0.4.0"
__all__ = ["Embeddings", "Explainer", "__version__", "load_embeddings"]


_MODULES = {
    "Embeddings": "artifactgen.embeddings",
    "Explainer": "artifactgen.explainer.explain",
    "load_embeddings": "artifactgen.embeddings",
}


def __getattr__(name: str) -> Any:
    """Import what a name is of on its first use: torch takes seconds, and `status` needs none."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
