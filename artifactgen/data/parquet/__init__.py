"""Tables of pictures: Parquet as the Hugging Face hub keeps it, and Arrow as `datasets` does."""

from artifactgen.data.parquet.source import Parquet

__all__ = ["Parquet"]
