"""`data=auto`: what a path is, and the command that reads it."""

from artifactgen.data.auto.source import Auto, answer

__all__ = ["Auto", "answer"]
