"""A data set and a model of it, made on the spot: cine cardiac phantoms, and a small ViT."""
