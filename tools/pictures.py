"""Compare the pictures of two runs of a notebook.

Two machines draw the same figure with slightly different pixels (font hinting, anti-aliasing,
the last digits of a computation), so bytes cannot be compared. Both pictures are made small and
grey, and each small pixel may lie anywhere in the range of the other picture's pixels around it:
a line may move by a hair, but it may not vanish, appear or go elsewhere.
"""

import base64
import copy
import io

import numpy as np
from PIL import Image

WIDTH = 240  # columns of the small pictures: about three pixels of a figure each
SIZE_SLACK = 0.01  # relative difference of the sizes that is still jitter
GREY_STEP = 40  # of 255: a small pixel further out than this is counted as changed
CHANGED_SHARE = 1e-3  # share of changed small pixels that is still jitter
MEAN_STEP = 0.5  # of 255: mean distance that is still jitter (catches pale, wide changes)


def _picture(png: bytes) -> Image.Image:
    """Return the picture in grey on white paper."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("L")


def _outside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how far each pixel of `a` lies outside the range of `b` in the 3 × 3 pixels there."""
    rows, columns = b.shape
    padded = np.pad(b, 1, mode="edge")
    around = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    low, high = np.min(around, axis=0), np.max(around, axis=0)
    return np.maximum(0, np.maximum(low - a, a - high))


def difference(stored: bytes, fresh: bytes) -> str | None:
    """Say how two pictures (PNG) differ, or return None when they show the same."""
    if stored == fresh:
        return None
    old, new = _picture(stored), _picture(fresh)
    if any(abs(m - n) > max(2, SIZE_SLACK * m) for m, n in zip(old.size, new.size, strict=True)):
        return f"the size changed from {old.size} to {new.size} pixels"
    size = (min(WIDTH, old.width), max(1, round(old.height * min(1, WIDTH / old.width))))
    a, b = (np.asarray(p.resize(size, Image.Resampling.BOX), dtype=float) for p in (old, new))
    distance = np.maximum(_outside(a, b), _outside(b, a))
    share, mean = float(np.mean(distance > GREY_STEP)), float(distance.mean())
    if share <= CHANGED_SHARE and mean <= MEAN_STEP:
        return None
    return (
        f"{share:.2%} of the picture changed (allowed {CHANGED_SHARE:.2%}), "
        f"by {mean:.2f} grey levels on average (allowed {MEAN_STEP})"
    )


def keep_equal_pictures(stored: dict, fresh: dict) -> dict:
    """Return the fresh notebook with the stored bytes of every picture that shows the same.

    So a rebuild on another machine changes a file only where something really changed.
    """
    fresh = copy.deepcopy(fresh)
    before = {cell["id"]: cell for cell in stored["cells"] if cell["cell_type"] == "code"}
    for cell in fresh["cells"]:
        old = before.get(cell["id"])
        if cell["cell_type"] != "code" or old is None:
            continue
        if len(old["outputs"]) != len(cell["outputs"]):
            continue
        for was, now in zip(old["outputs"], cell["outputs"], strict=True):
            pair = [output.get("data", {}).get("image/png") for output in (was, now)]
            if None in pair or pair[0] == pair[1]:
                continue
            if difference(*(base64.b64decode(png) for png in pair)) is None:
                now["data"]["image/png"] = pair[0]
    return fresh
