"""Boxes of object detection: overlap, suppression, encoding, anchors, and pooling of regions.

Names and arguments are those of `torchvision.ops` where it has them. A box is a row (x1, y1, x2,
y2) with x1 ≤ x2 and y1 ≤ y2, in pixels or any other unit; a region is (image, x1, y1, x2, y2), the
number of its image in x first. Equal scores stand in the order in which they were given.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes, coordinates or settings out of range. Where nothing else is said the cost is a few
operations for each box, or for each pair (n · m) where a result has a row for each of n boxes and a
column for each of m.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import _windows
from dlnotes.kernels._windows import Size

Boxes = Float[np.ndarray, "n 4"]
Weights = tuple[Number, Number, Number, Number]
FORMATS = ("xyxy", "xywh", "cxcywh")
BELOW_LOW_THRESHOLD, BETWEEN_THRESHOLDS = -1, -2  # what match_anchors gives for no box
_LARGEST_GROWTH = math.log(1000 / 16)  # the largest change of log width that is decoded
_BLOCK = 64  # boxes whose mutual suppression is worked out together
_CACHED = 16  # rows of a matrix of overlaps that are worked out together

# ---- geometry --------------------------------------------------------------------------------


def box_area(boxes: Boxes) -> Float[np.ndarray, " n"]:
    """Return (x2 - x1)(y2 - y1) of each box."""
    x1, y1, x2, y2 = _check_boxes("boxes", boxes).T
    return (x2 - x1) * (y2 - y1)


def box_convert(boxes: Boxes, in_fmt: str, out_fmt: str) -> Boxes:
    """Return boxes in another format: "xyxy" (corners), "xywh" or "cxcywh" (centre and size).

    in_fmt and out_fmt name the two; boxes (n, 4), also with negative sides.
    """
    boxes = _check_rows("boxes", boxes, 4)
    _validate.one_of("in_fmt", in_fmt, FORMATS)
    _validate.one_of("out_fmt", out_fmt, FORMATS)
    if in_fmt == out_fmt:
        return boxes.copy()
    first, second = boxes[:, :2], boxes[:, 2:]
    if in_fmt == "xywh":
        first, second = first, first + second
    elif in_fmt == "cxcywh":
        first, second = first - second / 2, first + second / 2
    if out_fmt == "xywh":
        first, second = first, second - first
    elif out_fmt == "cxcywh":
        first, second = (first + second) / 2, second - first
    return np.concatenate([first, second], axis=1)


def box_iou(
    boxes1: Float[np.ndarray, "n 4"], boxes2: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Return intersection / union of every pair, 0 … 1; 0 for two boxes without area.

    (Jaccard, 1901; in detection: Everingham et al., 2010.)
    """
    return _pairwise_iou(*_check_pair(boxes1=boxes1, boxes2=boxes2))


def box_iou_loops(
    boxes1: Float[np.ndarray, "n 4"], boxes2: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Return what `box_iou` does, one pair at a time as the definition says."""
    rows1, rows2 = _check_pair(boxes1=boxes1, boxes2=boxes2)
    iou = np.zeros((rows1.shape[1], rows2.shape[1]), rows1.dtype)
    for i, j in np.ndindex(iou.shape):
        (left, top, right, bottom), (x1, y1, x2, y2) = rows1[:, i], rows2[:, j]
        width = max(min(right, x2) - max(left, x1), 0)
        height = max(min(bottom, y2) - max(top, y1), 0)
        union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - width * height
        iou[i, j] = width * height / union if union > 0 else 0
    return iou


def generalized_box_iou(
    boxes1: Float[np.ndarray, "n 4"], boxes2: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Return IoU - (hull - union) / hull of every pair, from -1 to 1 (Rezatofighi et al., 2019).

    The hull is the smallest box around both; a hull without area takes nothing off.
    """
    rows1, rows2 = _check_pair(boxes1=boxes1, boxes2=boxes2)
    intersection, union = _overlap(rows1, rows2)
    width = np.maximum(rows1[2][:, None], rows2[2]) - np.minimum(rows1[0][:, None], rows2[0])
    height = np.maximum(rows1[3][:, None], rows2[3]) - np.minimum(rows1[1][:, None], rows2[1])
    hull = width * height
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def clip_boxes_to_image(boxes: Boxes, size: tuple[int, int] | list[int]) -> Boxes:
    """Return boxes with their coordinates moved into an image of size (height, width).

    boxes: (n, 4), also with x1 > x2 or y1 > y2; size: two ints from 0.
    """
    boxes = _check_rows("boxes", boxes, 4)
    height, width = _windows.sizes("size", size, 2, low=0)
    limits = np.array([width, height, width, height], boxes.dtype)
    return np.clip(boxes, 0, limits)


def remove_small_boxes(boxes: Boxes, min_size: Number) -> Int64[np.ndarray, " kept"]:
    """Return the indices of the boxes whose sides are both at least `min_size`."""
    x1, y1, x2, y2 = _check_rows("boxes", boxes, 4).T
    min_size = _validate.number("min_size", min_size)
    return np.flatnonzero((x2 - x1 >= min_size) & (y2 - y1 >= min_size)).astype(np.int64)


def encode_boxes(boxes: Boxes, anchors: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Return (Δx/w, Δy/h, log w'/w, log h'/h) of each box from its anchor, times the weights.

    boxes and anchors: (n, 4), row by row; both must have sides longer than 0 (Girshick et al.,
    2014).
    """
    boxes, anchors = _check_boxes("boxes", boxes), _check_boxes("anchors", anchors)
    _validate.same_dtype(boxes=boxes, anchors=anchors)
    _validate.same_shape(boxes=boxes, anchors=anchors)
    weights = _check_weights(weights, boxes.dtype)
    for name, given in {"boxes": boxes, "anchors": anchors}.items():
        if (given[:, 2:] <= given[:, :2]).any():
            raise ValueError(f"{name} must have sides longer than 0")
    box, anchor = (box_convert(b, "xyxy", "cxcywh") for b in (boxes, anchors))
    shift = (box[:, :2] - anchor[:, :2]) / anchor[:, 2:]
    return weights * np.concatenate([shift, np.log(box[:, 2:] / anchor[:, 2:])], axis=1)


def decode_boxes(
    codes: Boxes,
    anchors: Boxes,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    clamp: Number = _LARGEST_GROWTH,
) -> Boxes:
    """Return the boxes that `encode_boxes` gave these codes for.

    A side grows by at most the factor e^clamp, so that a wild prediction does not overflow. codes
    and anchors: (n, 4); weights: those of `encode_boxes`, four numbers above 0.
    """
    codes, anchors = _check_rows("codes", codes, 4), _check_boxes("anchors", anchors)
    _validate.same_dtype(codes=codes, anchors=anchors)
    _validate.same_shape(codes=codes, anchors=anchors)
    codes = codes / _check_weights(weights, codes.dtype)
    anchor = box_convert(anchors, "xyxy", "cxcywh")
    centre = anchor[:, :2] + codes[:, :2] * anchor[:, 2:]
    side = anchor[:, 2:] * np.exp(np.minimum(codes[:, 2:], _validate.number("clamp", clamp)))
    return box_convert(np.concatenate([centre, side], axis=1), "cxcywh", "xyxy")


# ---- suppression -----------------------------------------------------------------------------


def nms(
    boxes: Boxes, scores: Float[np.ndarray, " n"], iou_threshold: Number
) -> Int64[np.ndarray, " kept"]:
    """Return the indices of the boxes to keep, best score first.

    A box goes when its IoU with a better one that stays is above the threshold. Boxes are sorted
    once and suppressed in blocks: pairs inside a block one after another, everything behind it at
    once. Cost O(n · kept), memory O(block · n) (Felzenszwalb et al., 2010). scores: (n,);
    iou_threshold: 0 … 1; the indices are int64.
    """
    boxes, scores, threshold = _check_scored(boxes, scores, iou_threshold)
    order = _by_score(scores)
    rows = np.ascontiguousarray(boxes[order].T)
    kept = []
    while order.size:
        head = rows[:, :_BLOCK]
        suppresses = _ratio(*_overlap(head, head)) > threshold
        stays = np.ones(head.shape[1], bool)
        for i in range(head.shape[1]):
            if stays[i]:
                stays[i + 1 :] &= ~suppresses[i, i + 1 :]
        kept.append(order[:_BLOCK][stays])
        rest = rows[:, _BLOCK:]
        alive = ~(_ratio(*_overlap(head[:, stays], rest)) > threshold).any(axis=0)
        rows, order = rest[:, alive], order[_BLOCK:][alive]
    return np.concatenate([np.zeros(0, np.int64), *kept])


def nms_loops(
    boxes: Boxes, scores: Float[np.ndarray, " n"], iou_threshold: Number
) -> Int64[np.ndarray, " kept"]:
    """Return what `nms` does, one box after another as the definition says. Cost O(n²)."""
    boxes, scores, threshold = _check_scored(boxes, scores, iou_threshold)
    kept = []
    for i in _by_score(scores):
        if all(box_iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0] <= threshold for j in kept):
            kept.append(i)
    return np.array(kept, np.int64)


def batched_nms(
    boxes: Boxes,
    scores: Float[np.ndarray, " n"],
    idxs: Integer[np.ndarray, " n"],
    iou_threshold: Number,
) -> Int64[np.ndarray, " kept"]:
    """Return the boxes to keep when only boxes of the same class `idxs` suppress each other.

    boxes, scores and iou_threshold as in `nms`; idxs: (n,) integers. Cost: that of `nms` for each
    class.
    """
    boxes, scores, threshold = _check_scored(boxes, scores, iou_threshold)
    if not isinstance(idxs, np.ndarray) or idxs.dtype.kind not in "iu":
        raise TypeError("idxs must be a NumPy array of integers")
    _validate.has_shape("idxs", idxs, scores.shape, "one class for each box")
    stays = np.zeros(len(boxes), bool)
    for label in np.unique(idxs):
        members = np.flatnonzero(idxs == label)
        stays[members[nms(boxes[members], scores[members], threshold)]] = True
    order = _by_score(scores)
    return order[stays[order]]


def soft_nms(
    boxes: Boxes,
    scores: Float[np.ndarray, " n"],
    iou_threshold: Number = 0.3,
    sigma: Number = 0.5,
    score_threshold: Number = 0.001,
    method: str = "linear",
) -> tuple[Int64[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Return the indices and lowered scores of the boxes whose scores stay above a threshold.

    In place of removal, a better box multiplies the score by 1 - IoU where the IoU is above
    iou_threshold ("linear"), or by e^(-IoU²/sigma) ("gaussian") (Bodla et al., 2017). Cost O(n²).
    method: "linear" or "gaussian", with sigma above 0; boxes whose scores fall to score_threshold
    or below are gone. Both results stand best first.
    """
    boxes, scores, threshold = _check_scored(boxes, scores, iou_threshold)
    _validate.one_of("method", method, ("linear", "gaussian"))
    sigma = _validate.number("sigma", sigma)
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    score_threshold = _validate.number("score_threshold", score_threshold)
    rows, left, scores = np.ascontiguousarray(boxes.T), np.arange(len(boxes)), scores.copy()
    kept = []
    while True:
        left = left[scores[left] > score_threshold]
        if not left.size:
            return np.array(kept, np.int64), scores[kept]
        best = left[scores[left].argmax()]
        kept.append(int(best))
        left = left[left != best]
        iou = _ratio(*_overlap(rows[:, [best]], rows[:, left]))[0]
        if method == "linear":
            scores[left] *= np.where(iou > threshold, 1 - iou, scores.dtype.type(1))
        else:
            scores[left] *= np.exp(-iou * iou / scores.dtype.type(sigma))


# ---- anchors ---------------------------------------------------------------------------------


def anchor_boxes(
    feature_sizes: list | tuple,
    strides: list | tuple,
    scales: list | tuple,
    ratios: list | tuple,
) -> Float[np.ndarray, "n 4"]:
    """Return the float32 anchors of all feature maps: row by row, scale by scale, by ratio.

    A map (h, w) of stride s has its cells' centres at ((column + ½) s, (row + ½) s); an anchor
    there has area (scale · s)² and height / width = ratio (Ren et al., 2015).

    feature_sizes: (h, w) of each map; strides: for each map, how many pixels of the image its cells
    lie apart; scales and ratios: numbers above 0, the same for all maps. Result: (Σ h · w · scales
    · ratios, 4).
    """
    if len(feature_sizes) != len(strides) or not (len(scales) and len(ratios)):
        raise ValueError("strides must have one entry for each of feature_sizes, scales and ratios "
                         f"at least one; got {len(feature_sizes)} sizes, {len(strides)} strides, "
                         f"{len(scales)} scales and {len(ratios)} ratios")  # fmt: skip
    for name, values in {"strides": strides, "scales": scales, "ratios": ratios}.items():
        if any(_validate.number(name, value) <= 0 for value in values):
            raise ValueError(f"{name} must be positive, got {values}")
    levels = [np.zeros((0, 4))]
    for size, stride in zip(feature_sizes, strides, strict=True):
        h, w = _windows.sizes("feature_sizes", size, 2, low=0)
        sides = np.array([(s / math.sqrt(r), s * math.sqrt(r)) for s in scales for r in ratios])
        y, x = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
        centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2) * stride
        half = sides * stride / 2
        corners = np.concatenate([centres - half, centres + half], axis=2)
        levels.append(corners.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def match_anchors(
    anchors: Float[np.ndarray, "n 4"],
    boxes: Float[np.ndarray, "m 4"],
    high: Number = 0.7,
    low: Number = 0.3,
    allow_low_quality_matches: bool = True,
) -> Int64[np.ndarray, " n"]:
    """Return for each anchor the box that it overlaps most: -1 (background) below low, -2 to high.

    anchors (n, 4), boxes (m, 4) → (n,), rows of boxes. An IoU of `high` or more is a match, one
    below `low` is background, and anchors between count for nothing; 0 ≤ low ≤ high ≤ 1.
    allow_low_quality_matches also gives each box's best anchors, all of them on ties, the box they
    overlap most, so that no box that touches an anchor goes without (Ren et al., 2015). Cost O(n
    m).
    """
    low = _validate.number("low", low, low=0, high=1)
    high = _validate.number("high", high, low=low, high=1)
    iou = _pairwise_iou(*_check_pair(anchors=anchors, boxes=boxes))
    if not iou.size:
        return np.full(len(anchors), BELOW_LOW_THRESHOLD, np.int64)
    nearest, largest = iou.argmax(axis=1).astype(np.int64), iou.max(axis=1)
    matches = np.where(largest >= high, nearest, BETWEEN_THRESHOLDS)
    matches[largest < low] = BELOW_LOW_THRESHOLD
    if allow_low_quality_matches:
        best = ((iou == iou.max(axis=0)) & (iou > 0)).any(axis=1)
        matches[best] = nearest[best]
    return matches


# ---- regions ---------------------------------------------------------------------------------


def roi_pool(
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
) -> Float[np.ndarray, "k c h_out w_out"]:
    """Return the largest entry in each cell of a grid over each region (Girshick, 2015).

    Corners are rounded (halves away from 0) and belong to the region; an empty cell gives 0.

    boxes: (k, 5) in pixels of the image; `spatial_scale` (above 0) turns them into those of x, 1/16
    for features that are sixteen times smaller. output_size: (h_out, w_out), or one number for
    both. Cost: the entries of the regions, in one step of NumPy for each cell.
    """
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    y = np.zeros((len(boxes), x.shape[1], *out), x.dtype)
    for (k, i, j), image, rows, columns in _cells(x, boxes, out, scale):
        y[k, :, i, j] = x[image, :, rows, columns].max(axis=(1, 2))
    return y


def roi_pool_loops(
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
) -> Float[np.ndarray, "k c h_out w_out"]:
    """Return what `roi_pool` does, one entry at a time as the definition says."""
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    y = np.zeros((len(boxes), x.shape[1], *out), x.dtype)
    for k, c, i, j in np.ndindex(y.shape):
        corners = (v * scale for v in boxes[k, 1:].tolist())
        rounded = (math.copysign(math.floor(abs(v) + 0.5), v) for v in corners)
        x1, y1, x2, y2 = map(int, rounded)
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        cell = [
            x[int(boxes[k, 0]), c, row, column]
            for row in range(y1 + i * height // out[0], y1 - (-(i + 1) * height // out[0]))
            for column in range(x1 + j * width // out[1], x1 - (-(j + 1) * width // out[1]))
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        ]
        y[k, c, i, j] = max(cell, default=0)
    return y


def roi_pool_backward(
    dy: Float[np.ndarray, "k c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx: dy goes to the first largest entry of its cell; boxes get no gradient."""
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    dy = _check_upstream(dy, x, boxes, out)
    dx = np.zeros_like(x)
    channels = np.arange(x.shape[1])
    for (k, i, j), image, rows, columns in _cells(x, boxes, out, scale):
        cell = x[image, :, rows, columns]
        first = cell.reshape(len(cell), -1).argmax(axis=1)
        row, column = np.divmod(first, cell.shape[2])
        dx[image, channels, rows.start + row, columns.start + column] += dy[k, :, i, j]
    return dx


def roi_align(
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[np.ndarray, "k c h_out w_out"]:
    """Return means of interpolated values in each cell of a grid over each region.

    Each cell has sampling_ratio² points, or ⌈side / cells⌉ along each axis where it is not
    positive. aligned=True counts pixels from their centres, half a pixel less. Points more than a
    pixel outside count as 0 (He et al., 2017). Interpolation along rows and columns are
    independent, so a region is A X Bᵀ with a matrix of weights for each axis.

    boxes, output_size and spatial_scale as in `roi_pool`. Cost: 2 · c · h_out · w · (h + w_out)
    operations for each region.
    """
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    y = np.empty((len(boxes), x.shape[1], *out), x.dtype)
    for k, image, a, b in _interpolations(x, boxes, out, scale, sampling_ratio, aligned):
        y[k] = a @ x[image] @ b.T
    return y


def roi_align_loops(
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[np.ndarray, "k c h_out w_out"]:
    """Return what `roi_align` does, one point at a time as the definition says."""
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    y = np.zeros((len(boxes), x.shape[1], *out), x.dtype)
    for k, c, i, j in np.ndindex(y.shape):
        x1, y1, x2, y2 = (v * scale - 0.5 * aligned for v in boxes[k, 1:].tolist())
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        down = sampling_ratio if sampling_ratio > 0 else math.ceil(height / out[0])
        across = sampling_ratio if sampling_ratio > 0 else math.ceil(width / out[1])
        for a, b in np.ndindex(down, across):
            row = y1 + (i + (a + 0.5) / down) * height / out[0]
            column = x1 + (j + (b + 0.5) / across) * width / out[1]
            value = _interpolated(x[int(boxes[k, 0]), c], row, column)
            y[k, c, i, j] += value / (down * across)
    return y


def _interpolated(image, row, column):
    """Return the value between the four pixels around a point; 0 more than a pixel outside."""
    h, w = image.shape
    if not (-1 <= row <= h and -1 <= column <= w):
        return 0.0
    row, column = min(max(row, 0), h - 1), min(max(column, 0), w - 1)
    value = 0.0
    for r in {math.floor(row), math.ceil(row)}:
        for c in {math.floor(column), math.ceil(column)}:
            value += (1 - abs(row - r)) * (1 - abs(column - c)) * float(image[r, c])
    return value


def roi_align_backward(
    dy: Float[np.ndarray, "k c h_out w_out"],
    x: Float[np.ndarray, "n c h w"],
    boxes: Float[np.ndarray, "k 5"],
    output_size: Size,
    spatial_scale: Number = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[np.ndarray, "n c h w"]:
    """Return dx = Σ Aᵀ dy B over the regions of each image; boxes get no gradient."""
    x, boxes, out, scale = _check_regions(x, boxes, output_size, spatial_scale)
    dy = _check_upstream(dy, x, boxes, out)
    dx = np.zeros_like(x)
    for k, image, a, b in _interpolations(x, boxes, out, scale, sampling_ratio, aligned):
        dx[image] += a.T @ dy[k] @ b
    return dx


def _cells(x, boxes, out, scale):
    """Yield the index, image, rows and columns of each cell that is not empty."""
    for k, box in enumerate(boxes):
        corners = box[1:].astype(np.float64) * scale
        corners = (np.sign(corners) * np.floor(np.abs(corners) + 0.5)).astype(int)
        x1, y1, x2, y2 = (int(corner) for corner in corners)
        rows = _edges(y1, max(y2 - y1 + 1, 1), out[0], x.shape[2])
        columns = _edges(x1, max(x2 - x1 + 1, 1), out[1], x.shape[3])
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                if row.start < row.stop and column.start < column.stop:
                    yield (k, i, j), int(box[0]), row, column


def _edges(start, length, count, limit):
    bounds = [
        (start + i * length // count, start - (-(i + 1) * length // count)) for i in range(count)
    ]
    return [slice(min(max(a, 0), limit), min(max(b, 0), limit)) for a, b in bounds]


def _interpolations(x, boxes, out, scale, sampling_ratio, aligned):
    sampling_ratio = _validate.integer("sampling_ratio", sampling_ratio)
    if not isinstance(aligned, bool):
        raise TypeError(f"aligned must be True or False, got {type(aligned).__name__}")
    for k, box in enumerate(boxes):
        x1, y1, x2, y2 = box[1:].astype(np.float64) * scale - (0.5 if aligned else 0)
        sides = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1.0), max(x2 - x1, 1.0))
        a, b = (
            _weights(start, side, count, limit, sampling_ratio).astype(x.dtype)
            for start, side, count, limit in zip((y1, x1), sides, out, x.shape[2:], strict=True)
        )
        yield k, int(box[0]), a, b


def _weights(start, side, count, limit, samples):
    """Return (count, limit): what each position along an axis counts in the mean of each cell."""
    samples = samples if samples > 0 else math.ceil(side / count)
    weights = np.zeros((count, limit))
    if samples == 0:
        return weights
    offsets = (np.arange(samples) + 0.5) / samples
    points = start + (np.arange(count)[:, None] + offsets) * (side / count)
    inside = (points >= -1) & (points <= limit)
    points = np.clip(points, 0, limit - 1)
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, limit - 1)
    cells = np.broadcast_to(np.arange(count)[:, None], points.shape)
    np.add.at(weights, (cells, low), inside * (1 - (points - low)) / samples)
    np.add.at(weights, (cells, high), inside * (points - low) / samples)
    return weights


# ---- shared pieces and arguments -------------------------------------------------------------


def _pairwise_iou(rows1, rows2):
    """Return the intersection over union of every pair; boxes as four rows of coordinates."""
    iou = np.empty((rows1.shape[1], rows2.shape[1]), rows1.dtype)
    for first in range(0, len(iou), _CACHED):  # a few rows, whose work memory stays in the cache
        block = slice(first, first + _CACHED)
        iou[block] = _ratio(*_overlap(rows1[:, block], rows2))
    return iou


def _overlap(rows1, rows2):
    """Return intersection and union of every pair, from coordinates as rows (4, n), (4, m)."""
    x1, y1, x2, y2 = rows1[:, :, None]
    width = np.minimum(x2, rows2[2]) - np.maximum(x1, rows2[0])
    height = np.minimum(y2, rows2[3]) - np.maximum(y1, rows2[1])
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    area2 = (rows2[2] - rows2[0]) * (rows2[3] - rows2[1])
    np.subtract((x2 - x1) * (y2 - y1) + area2, width, out=height)
    return width, height


def _ratio(part, whole):
    """Return part / whole, and 0 for 0 / 0."""
    return part / np.maximum(whole, np.finfo(whole.dtype).tiny)


def _by_score(scores):
    return np.argsort(-scores, kind="stable").astype(np.int64)


def _check_rows(name, rows, width):
    rows = _validate.floats(name, rows, ndim=2)
    _validate.has_shape(name, rows, (len(rows), width), f"{width} numbers for each box")
    return _validate.finite(name, rows)


def _check_boxes(name, boxes):
    boxes = _check_rows(name, boxes, 4)
    wrong: Bool[np.ndarray, " n"] = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if wrong.any():
        i = wrong.argmax()
        raise ValueError(f"{name} must have x1 ≤ x2 and y1 ≤ y2, got {boxes[i]} at index {i}")
    return boxes


def _check_pair(**boxes):
    """Return each of two sets of boxes as four contiguous rows of coordinates."""
    boxes = {name: _check_boxes(name, value) for name, value in boxes.items()}
    _validate.same_dtype(**boxes)
    return tuple(np.ascontiguousarray(value.T) for value in boxes.values())


def _check_scored(boxes, scores, iou_threshold):
    boxes, scores = _check_boxes("boxes", boxes), _validate.floats("scores", scores)
    _validate.same_dtype(boxes=boxes, scores=scores)
    _validate.has_shape("scores", scores, (len(boxes),), "one score for each box")
    _validate.finite("scores", scores)
    return boxes, scores, _validate.number("iou_threshold", iou_threshold, low=0, high=1)


def _check_weights(weights, dtype):
    if len(weights) != 4 or any(_validate.number("weights", w) <= 0 for w in weights):
        raise ValueError(f"weights must be four positive numbers, got {weights}")
    return np.array(weights, dtype)


def _check_regions(x, boxes, output_size, spatial_scale):
    x = _validate.floats("x", x, ndim=4)
    boxes = _check_rows("boxes", boxes, 5)
    _validate.same_dtype(x=x, boxes=boxes)
    image = boxes[:, 0]
    if ((image < 0) | (image >= len(x)) | (image != np.floor(image))).any():
        raise ValueError(f"boxes must start with the number of an image in 0 … {len(x) - 1}")
    _check_boxes("boxes", boxes[:, 1:])
    if min(x.shape[2:]) < 1:
        raise ValueError(f"x must have entries to pool, got shape {x.shape}")
    scale = _validate.number("spatial_scale", spatial_scale)
    if scale <= 0:
        raise ValueError(f"spatial_scale must be positive, got {scale}")
    return x, boxes, _windows.sizes("output_size", output_size, 2, low=1), scale


def _check_upstream(dy, x, boxes, out):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    return _validate.has_shape("dy", dy, (len(boxes), x.shape[1], *out), "the output's shape")
