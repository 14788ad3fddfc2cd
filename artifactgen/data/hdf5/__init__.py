"""Images in HDF5 files."""

from artifactgen.data.hdf5.source import Hdf5

__all__ = ["Hdf5"]
