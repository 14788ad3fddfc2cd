"""The kinds of artifact: one file for each, all fed by one forward pass."""
