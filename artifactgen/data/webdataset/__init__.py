"""Tar shards as the library `webdataset` writes them."""

from artifactgen.data.webdataset.source import WebDataset

__all__ = ["WebDataset"]
