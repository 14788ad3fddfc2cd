"""Embeddings, GradCAM and attention maps of a trained vision model, over all of your data."""

__version__ = "0.1.0"
