"""The distributed batch job around the `artifactgen` library."""
