"""Models: what to build, how to load a checkpoint into it, how to read its activations."""
