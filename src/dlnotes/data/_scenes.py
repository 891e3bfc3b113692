"""Pictures for detection, made from what is bundled: sprites pasted onto pieces of photos."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.data._loader import _generator

VISIBLE = 32  # alpha from which a pixel of a sprite counts as part of the object
TRIES = 20


class Scenes(NamedTuple):
    """Pictures with the boxes (x1, y1, x2, y2), in pixels, and classes of what is in each."""

    images: UInt8[np.ndarray, "n size size 3"]
    boxes: tuple[Float32[np.ndarray, "m 4"], ...]
    labels: tuple[Int64[np.ndarray, " m"], ...]
    classes: tuple[str, ...]


def scenes(
    n: int,
    size: int = 128,
    objects: tuple[int, int] | list[int] = (1, 4),
    scale: tuple[Number, Number] | list[Number] = (0.15, 0.4),
    max_overlap: Number = 0.2,
    *,
    classes: Sequence[str] | None = None,
    photos: Sequence[str] | None = None,
    generator: np.random.Generator | None = None,
) -> Scenes:
    """Return n generated pictures of size × size pixels for object detection, with the truth.

    Each is a square piece of a bundled photo, half of the pieces mirrored, with objects[0] to
    objects[1] sprites pasted onto it: any of the classes, half of them mirrored, their longer side
    scale[0] to scale[1] of the picture's, wholly inside, and no two with an IoU above max_overlap
    (one that finds no place in 20 tries is left out). A box is the smallest around the pixels that
    are not transparent.

    `classes` and `photos` choose among the names in `data.load("sprites").classes` and
    `data.load("images")`; labels count in the order of `classes`. To have backgrounds for the test
    that training has not seen, give the two different photos. Draws come from `generator`, by
    default `dlnotes.random.generator()`: the same state gives the same scenes. About 1 ms for a
    picture of 128 × 128.

    ValueError for unknown names and settings out of range.
    """
    from dlnotes import data

    n, size = _validate.integer("n", n, low=0), _validate.integer("size", size, low=16)
    few, many = (_validate.integer("objects", one, low=0) for one in objects)
    small, large = (_validate.number("scale", one, low=0, high=1) for one in scale)
    if few > many:
        raise ValueError(f"objects must be (fewest, most), got {objects}")
    if not 0 < small <= large:
        raise ValueError(f"scale must be (smallest, largest) above 0, got {scale}")
    max_overlap = _validate.number("max_overlap", max_overlap, low=0, high=1)
    sprites, pictures = data.load("sprites"), data.load("images")
    classes = _chosen("classes", classes, sprites.classes)
    photos = _chosen("photos", photos, tuple(photo.name for photo in pictures))
    kinds = [[s.image for s in sprites.sprites if s.label == label] for label in classes]
    backgrounds, rng = [pictures[name].image for name in photos], _generator(generator)
    images, boxes, labels = np.empty((n, size, size, 3), np.uint8), [], []
    for image in images:
        image[...] = _background(backgrounds[rng.integers(len(backgrounds))], size, rng)
        placed, names = np.zeros((0, 4), np.float32), []
        for _ in range(rng.integers(few, many + 1)):
            label = rng.integers(len(kinds))
            sprite = kinds[label][rng.integers(len(kinds[label]))]
            side = max(4, round(size * rng.uniform(small, large)))
            box = _paste(image, sprite, side, placed, max_overlap, rng)
            if box is not None:
                placed, names = np.concatenate([placed, box[None]]), [*names, label]
        boxes.append(placed)
        labels.append(np.array(names, np.int64))
    return Scenes(images, tuple(boxes), tuple(labels), classes)


def _background(photo, size, rng):
    """Return a square piece of a photo, at least half as wide as it, at the size of a scene."""
    shortest = min(photo.shape[:2])
    side = int(rng.integers(max(1, shortest // 2), shortest + 1))
    top, left = (rng.integers(0, length - side + 1) for length in photo.shape[:2])
    piece = _resized(photo[top : top + side, left : left + side], (size, size))
    return piece[:, ::-1] if rng.random() < 0.5 else piece


def _paste(image, sprite, side, placed, max_overlap, rng):
    """Put a sprite, its visible part `side` long, into the image; return its box, or None."""
    from dlnotes import kernels

    rows, columns = (np.flatnonzero((sprite[..., 3] >= VISIBLE).any(axis=i)) for i in (1, 0))
    sprite = sprite[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shrink = side / max(sprite.shape[:2])
    height, width = (max(1, round(n * shrink)) for n in sprite.shape[:2])
    sprite = _resized(sprite, (height, width))
    sprite = sprite[:, ::-1] if rng.random() < 0.5 else sprite
    for _ in range(TRIES):
        top = int(rng.integers(0, len(image) - height + 1))
        left = int(rng.integers(0, len(image) - width + 1))
        box = np.array([left, top, left + width, top + height], np.float32)
        if (kernels.box_iou(box[None], placed) <= max_overlap).all():
            alpha = sprite[..., 3:] / np.float32(255)
            part = image[top : top + height, left : left + width]
            part[...] = np.rint(alpha * sprite[..., :3] + (1 - alpha) * part)
            return box
    return None


def _resized(pixels, shape):
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def _chosen(name, given, known):
    """Return the names chosen, checked, or all that are known."""
    if given is None:
        return known
    unknown = [one for one in given if one not in known]
    if unknown or not len(given) or len(set(given)) < len(given):
        raise ValueError(f"{name} must be different names among {', '.join(known)}, got {given}")
    return tuple(given)
