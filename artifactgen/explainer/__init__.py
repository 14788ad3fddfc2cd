"""The program on a model in memory: what a run writes to files, for a few images, as arrays."""
