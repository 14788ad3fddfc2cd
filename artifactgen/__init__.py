"""Embeddings, GradCAM and attention maps of a trained vision model, over all of your data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactgen.embeddings import Embeddings, load_embeddings

__version__ = "0.3.0"
__all__ = ["Embeddings", "__version__", "load_embeddings"]


def __getattr__(name: str) -> Any:
    """Import what loads embeddings on first use: torch takes seconds, and `status` needs none."""
    if name in ("Embeddings", "load_embeddings"):
        from artifactgen import embeddings

        return getattr(embeddings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
