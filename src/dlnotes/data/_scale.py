"""The two scales of the book, and pixels as numbers."""

import os
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

_T = TypeVar("_T")
SCALES = ("default", "full")


def at_scale(default: _T, full: _T) -> _T:
    """Return `default`, or `full` where the environment sets DLNOTES_SCALE=full.

    Every notebook chooses its sizes by this one function, so that one setting runs the whole
    book at full scale.

    Raises ValueError when DLNOTES_SCALE is set to anything else.
    """
    scale = os.environ.get("DLNOTES_SCALE", "default")
    if scale not in SCALES:
        raise ValueError(f"DLNOTES_SCALE must be one of {', '.join(SCALES)}; got {scale!r}")
    return full if scale == "full" else default


def images_to_float(images: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Return uint8 images of any shape as float32 in [0, 1]: each value divided by 255.

    The shape stays the same, and so does the order of the axes (height, width, channels). Takes
    four times the memory.

    Raises TypeError when the images are not uint8, above all when they are floats already.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        given = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(
            f"images must be an array of uint8 (0 … 255), got {given}; "
            "float images have been converted already"
        )
    return images.astype(np.float32) / np.float32(255)
