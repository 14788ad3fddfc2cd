"""Measurements against named references, each in one process; see docs/benchmarks.md."""
