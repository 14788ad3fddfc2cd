"""Map-style data sets of the user's own, as `torch.utils.data` has them."""

from artifactgen.data.custom.source import Custom

__all__ = ["Custom"]
