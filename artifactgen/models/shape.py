"""What the shape of an activation says of how it lies over an image."""

from __future__ import annotations


def has_form(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether both sides were reduced alike, give or take one at each border of each reduction.

    Args:
        grid: (h, w) in positions.
        image_size: (H, W) in pixels.
    """
    (height, width), (image_height, image_width) = grid, image_size
    if min(height, width) < 1 or height > image_height or width > image_width:
        return False
    return abs(height - width * image_height / image_width) < max(2.0, 0.1 * height)


def aspect_grid(positions: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of the grid of the image's aspect ratio that has so many positions."""
    if positions < 1:
        return None
    image_height, image_width = image_size
    height = round((positions * image_height / image_width) ** 0.5)
    width = round((positions * image_width / image_height) ** 0.5)
    return (height, width) if height * width == positions else None
