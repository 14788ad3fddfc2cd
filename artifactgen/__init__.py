"""Embeddings, GradCAM and attention maps of a trained vision model, over all of your data."""

from artifactgen.embeddings import Embeddings, load_embeddings

__version__ = "0.1.0"
__all__ = ["Embeddings", "__version__", "load_embeddings"]
