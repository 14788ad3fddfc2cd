"""One pass, looked into: what a model computes on its way, whatever its architecture."""
