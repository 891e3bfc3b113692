"""What stands around the YOLO network: targets for its cells, its loss, and boxes from its logits.

Units, everywhere here: boxes (x1, y1, x2, y2) and anchors (width, height) are in PIXELS of the
image; a centre's offset is in units of its CELL, of `stride` pixels, and lies in [0, 1); a scale is
log(side of the box / side of the anchor), without unit. Cells are counted by row and column from
the image's upper left corner. Formulas mix none of them: a published loss that did had an IoU of 0
where 0.655 is right.

Logits are those of `models.YOLO`: (n, rows, columns, anchors, 5 + num_classes), the last axis being
x, y, width, height, object, classes. TypeError and ValueError name what does not fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.models import _engine

LARGEST_GROWTH = np.log(1000 / 16)  # as in `kernels.decode_boxes`


class YOLOTargets(NamedTuple):
    """What each cell and anchor should say; arrays, (n, rows, columns, anchors) and more."""

    objects: np.ndarray  # bool: whether it is responsible for a box
    offsets: np.ndarray  # (…, 2), float32: centre within the cell, in cells; 0 without a box
    scales: np.ndarray  # (…, 2), float32: log of width and height in anchors; 0 without a box
    labels: np.ndarray  # int64: class, -1 without a box
    lost: int  # boxes for which no anchor of their cell was free


class YOLOLosses(NamedTuple):
    """The parts of YOLO's loss, each a number for each image on average, weighted."""

    offsets: object
    scales: object
    objects: object
    background: object
    classes: object

    @property
    def total(self):
        """Return their sum, which is what is minimised."""
        return self.offsets + self.scales + self.objects + self.background + self.classes


def yolo_targets(
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    anchors: np.ndarray,
    size: tuple[int, int],
    stride: int,
) -> YOLOTargets:
    """Return the targets of images of size (height, width) pixels with these boxes, in pixels.

    boxes[i] (m, 4) and labels[i] (m,) are those of image i; anchors (a, 2) are widths and heights.
    The cell in which a box has its centre is responsible for it, with the anchor of the most
    similar shape (the largest IoU if both had one centre; Redmon and Farhadi, 2017) that is still
    free. Boxes find their places in the order in which they come.

    ValueError for a size that is no multiple of stride, boxes without area or with centres outside
    the image. Cost O(boxes · anchors), memory O(cells · anchors).
    """
    anchors, (rows, columns) = _check_anchors(anchors), _grid(size, stride)
    if len(boxes) != len(labels):
        raise ValueError(f"boxes and labels must be of the same images, got {len(boxes)} and "
                         f"{len(labels)}")  # fmt: skip
    shape = (len(boxes), rows, columns, len(anchors))
    objects, classes = np.zeros(shape, bool), np.full(shape, -1, np.int64)
    offsets, scales = (np.zeros((*shape, 2), np.float32) for _ in range(2))
    lost = 0
    for image, (given, names) in enumerate(zip(boxes, labels, strict=True)):
        given, names = _check_boxes(given, names, size)
        centres, sides = (given[:, :2] + given[:, 2:]) / 2, given[:, 2:] - given[:, :2]
        for centre, side, name in zip(centres / stride, sides, names, strict=True):
            column, row = np.floor(centre).astype(int)  # centre: in cells
            free = np.flatnonzero(~objects[image, row, column])
            if not free.size:
                lost += 1
                continue
            place = image, row, column, free[_shape_iou(side, anchors[free]).argmax()]
            objects[place], classes[place] = True, name
            offsets[place] = centre - (column, row)
            scales[place] = np.log(side / anchors[place[-1]])
    return YOLOTargets(objects, offsets, scales, classes, lost)


def yolo_loss(
    logits,
    targets: YOLOTargets,
    coord_weight: Number = 5.0,
    background_weight: Number = 0.5,
) -> YOLOLosses:
    """Return the parts of the loss of logits, tensors of any engine; `.total` is to be minimised.

    For cells and anchors with an object: squared error of σ(x), σ(y) from the offsets and of width
    and height from the scales, both times coord_weight, cross-entropy of "object" and of the class;
    for all others cross-entropy of "no object", times background_weight, since there are so many.
    Sums over the cells, means over the images (after Redmon et al., 2016, who take squared errors
    throughout and roots of sides, and Redmon and Farhadi, 2018, who take cross-entropies).
    """
    F, shape = _engine.functional(logits), targets.objects.shape
    if tuple(logits.shape[:4]) != shape:
        raise ValueError(f"logits must start with the shape {shape} of the targets, got "
                         f"{tuple(logits.shape)}")  # fmt: skip
    flat = logits.reshape(-1, logits.shape[4])
    present = targets.objects.reshape(-1)

    def rows(values):
        return _engine.constant(values.reshape(len(present), -1)[present], logits)

    here, empty = (_engine.constant(np.flatnonzero(p), logits) for p in (present, ~present))
    found, images = flat[here], max(1, shape[0])
    names = _engine.constant(targets.labels.reshape(-1)[present], logits)
    bce, mse = F.binary_cross_entropy_with_logits, F.mse_loss
    yes, no = found[:, 4], flat[empty][:, 4]
    parts = YOLOLosses(
        coord_weight * mse(F.sigmoid(found[:, :2]), rows(targets.offsets), reduction="sum"),
        coord_weight * mse(found[:, 2:4], rows(targets.scales), reduction="sum"),
        bce(yes, _engine.constant(np.ones(len(found), np.float32), logits), reduction="sum"),
        background_weight
        * bce(no, _engine.constant(np.zeros(len(no), np.float32), logits), reduction="sum"),
        F.cross_entropy(found[:, 5:], names, reduction="sum"),
    )
    return YOLOLosses(*(part / images for part in parts))


def yolo_decode(logits, anchors: np.ndarray, stride: int) -> tuple[np.ndarray, ...]:
    """Return (boxes, objects, classes) of all cells and anchors: what the logits say, as arrays.

    boxes (n, k, 4), k = rows · columns · anchors, in pixels: centre (cell + σ(x, y)) · stride, side
    anchor · e^(width, height); objects (n, k) and classes (n, k, num_classes), probabilities. It is
    the reverse of `yolo_targets`. A side grows by at most 62.5 times, so that nothing overflows.
    """
    logits, anchors = np.asarray(_validate.without_tensor(logits)), _check_anchors(anchors)
    if logits.ndim != 5 or logits.shape[3] != len(anchors) or logits.shape[4] < 6:
        raise ValueError("logits must have shape (n, rows, columns, anchors, 5 + num_classes) with "
                         f"{len(anchors)} anchors, got {logits.shape}")  # fmt: skip
    stride = _validate.integer("stride", stride, low=1)
    n, rows, columns = logits.shape[:3]
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    corners = np.stack([column, row], axis=-1)[:, :, None].astype(logits.dtype)
    centre = (corners + kernels.sigmoid(logits[..., :2])) * stride
    side = np.exp(np.minimum(logits[..., 2:4], LARGEST_GROWTH)) * anchors.astype(logits.dtype)
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=-1)
    objects, classes = kernels.sigmoid(logits[..., 4]), kernels.softmax(logits[..., 5:])
    return boxes.reshape(n, -1, 4), objects.reshape(n, -1), classes.reshape(n, objects[0].size, -1)


def yolo_detect(
    logits,
    anchors: np.ndarray,
    stride: int,
    score_threshold: Number = 0.25,
    iou_threshold: Number = 0.5,
) -> list[dict[str, np.ndarray]]:
    """Return the detections of each image: {"boxes", "scores", "labels"}, the best first.

    A score is the probability of an object times that of its likeliest class. Boxes whose score is
    not below score_threshold are clipped to the image; of those of one class that overlap by more
    than iou_threshold the best stays (`kernels.batched_nms`). `metrics.mean_average_precision`
    takes them as they are.
    """
    boxes, objects, classes = yolo_decode(logits, anchors, stride)
    threshold = _validate.number("score_threshold", score_threshold, low=0, high=1)
    size = tuple(n * stride for n in logits.shape[1:3])
    scores, labels = objects * classes.max(axis=2), classes.argmax(axis=2)
    found = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        likely = score >= threshold
        box, score, label = box[likely], score[likely], label[likely]
        box = kernels.clip_boxes_to_image(box, size)
        kept = kernels.batched_nms(box, score, label, iou_threshold)
        found.append({"boxes": box[kept], "scores": score[kept], "labels": label[kept]})
    return found


def _shape_iou(side, anchors):
    """Return the IoU of a box (width, height) with each anchor (a, 2), at one centre."""
    overlap = np.minimum(side, anchors).prod(axis=1)
    return overlap / (side.prod() + anchors.prod(axis=1) - overlap)


def _check_anchors(anchors):
    anchors = np.asarray(anchors, np.float64)
    if anchors.ndim != 2 or anchors.shape[1] != 2 or not len(anchors) or not (anchors > 0).all():
        raise ValueError(f"anchors must be (width, height) above 0, in pixels, got {anchors}")
    return anchors


def _grid(size, stride):
    stride = _validate.integer("stride", stride, low=1)
    height, width = (_validate.integer("size", n, low=1) for n in size)
    if height % stride or width % stride:
        raise ValueError(f"size must be multiples of stride = {stride}, got {(height, width)}")
    return height // stride, width // stride


def _check_boxes(boxes, labels, size):
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels)
    if labels.dtype.kind not in "iu" and labels.size:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != (len(boxes),):
        raise ValueError(f"labels must be one for each of {len(boxes)} boxes, got {labels.shape}")
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError("boxes must have x1 < x2 and y1 < y2")
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    if not ((centres >= 0) & (centres < (size[1], size[0]))).all():
        raise ValueError(f"boxes must have their centres inside the image of {size} pixels")
    return boxes, labels
