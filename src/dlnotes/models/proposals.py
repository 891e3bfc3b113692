"""The steps between the networks of Faster R-CNN: anchors matched and sampled, proposals, losses.

(Ren et al., 2015; Girshick, 2015.) Boxes, anchors and regions (x1, y1, x2, y2) are in PIXELS of the
image throughout; changes from an anchor or region to a box are those of `kernels.encode_boxes`,
without unit. Class 0 is "background", so the classes of objects count from 1. Anchors of one image
stand in the order of `kernels.anchor_boxes`: by row, column, scale, ratio. What takes logits takes
tensors of any engine; everything else is arrays, float32. Nothing here is differentiated but the
losses: as in the paper, proposals are constants for the second stage.

TypeError and ValueError, by name of the argument, for shapes and settings that do not fit.
"""

from collections.abc import Sequence

import numpy as np

from dlnotes import _validate, kernels, random
from dlnotes._validate import Number
from dlnotes.models import _engine

BACKGROUND = -1  # as `kernels.match_anchors` marks anchors that overlap no box
CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the second stage, so that its changes are of size 1


def sample_matches(
    matches: np.ndarray,
    size: int = 256,
    positive_fraction: Number = 0.5,
    generator: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (positive, negative): up to `size` of the anchors, drawn without repetition.

    `matches` (n,) are those of `kernels.match_anchors`: a box's number, -1 for background, -2 for
    neither. At most positive_fraction · size are positive, and background fills up the rest: there
    is so much of it that it would drown the few objects. Indices rise; draws come from `generator`,
    by default `dlnotes.random.generator()`. The paper takes 256 anchors of an image, half of them
    positive, and 64 or 512 regions, a quarter.
    """
    matches = np.asarray(matches)
    if matches.ndim != 1 or matches.dtype.kind != "i":
        raise ValueError(f"matches must be integers (n,), got {matches.dtype} {matches.shape}")
    size = _validate.integer("size", size, low=1)
    fraction = _validate.number("positive_fraction", positive_fraction, low=0, high=1)
    generator = random.generator() if generator is None else generator
    positive, negative = np.flatnonzero(matches >= 0), np.flatnonzero(matches == BACKGROUND)
    positive = generator.permutation(positive)[: int(size * fraction)]
    negative = generator.permutation(negative)[: size - len(positive)]
    return np.sort(positive), np.sort(negative)


def flatten_rpn(objectness, changes):
    """Return (logits (n, k), changes (n, k, 4)) of an RPNHead's maps, k anchors of each image.

    objectness (n, a, h, w) and changes (n, 4 a, h, w), channel 4 i + j being number j of anchor i;
    k = h · w · a counts as `kernels.anchor_boxes` does. Tensors of any engine.
    """
    n, anchors, h, w = objectness.shape
    if tuple(changes.shape) != (n, 4 * anchors, h, w):
        raise ValueError(f"changes must have shape {(n, 4 * anchors, h, w)} for objectness "
                         f"{tuple(objectness.shape)}, got {tuple(changes.shape)}")  # fmt: skip
    logits = objectness.permute(0, 2, 3, 1).reshape(n, -1)
    changes = changes.reshape(n, anchors, 4, h, w).permute(0, 3, 4, 1, 2)
    return logits, changes.reshape(n, -1, 4)


def rpn_loss(
    objectness,
    changes,
    anchors: np.ndarray,
    boxes: Sequence[np.ndarray],
    size: int = 256,
    positive_fraction: Number = 0.5,
    high: Number = 0.7,
    low: Number = 0.3,
    beta: Number = 1 / 9,
    generator: np.random.Generator | None = None,
):
    """Return (objectness loss, box loss) of an RPNHead's maps; their sum is to be minimised.

    anchors (k, 4) are those of one image, boxes[i] (m, 4) the true ones of image i. Anchors are
    matched at IoU `high` and `low` (`kernels.match_anchors`) and sampled (`sample_matches`); the
    first loss is the mean cross-entropy of "object" over those sampled, the second the smooth L1
    error of the changes of the positive ones, over the same number (beta as in torchvision).
    """
    logits, changes = flatten_rpn(objectness, changes)
    if len(boxes) != logits.shape[0] or len(anchors) != logits.shape[1]:
        raise ValueError(
            f"there must be {logits.shape[0]} images' boxes and {logits.shape[1]} anchors, got "
            f"{len(boxes)} and {len(anchors)}"
        )
    F = _engine.functional(logits)
    generator = random.generator() if generator is None else generator
    anchors = _rows("anchors", anchors)
    chosen, positives, codes, answers = [], [], [], []
    for image, given in enumerate(boxes):
        given = _rows("boxes", given)
        matches = kernels.match_anchors(anchors, given, high, low)
        positive, negative = sample_matches(matches, size, positive_fraction, generator)
        first = image * len(anchors)
        positives.append(first + positive)
        chosen += [first + positive, first + negative]
        answers += [np.ones(len(positive), np.float32), np.zeros(len(negative), np.float32)]
        codes.append(kernels.encode_boxes(given[matches[positive]], anchors[positive]))
    chosen, positives = np.concatenate(chosen), np.concatenate(positives)
    answers, codes = np.concatenate(answers), np.concatenate(codes)
    seen = logits.reshape(-1)[_engine.constant(chosen, logits)]
    found = changes.reshape(-1, 4)[_engine.constant(positives, logits)]
    count = max(1, len(chosen))
    bce = F.binary_cross_entropy_with_logits
    return (
        bce(seen, _engine.constant(answers, logits), reduction="sum") / count,
        F.smooth_l1_loss(found, _engine.constant(codes, logits), reduction="sum", beta=beta)
        / count,
    )


def propose(
    objectness,
    changes,
    anchors: np.ndarray,
    size: tuple[int, int],
    before: int = 1000,
    after: int = 100,
    iou_threshold: Number = 0.7,
    min_size: Number = 1.0,
) -> list[dict[str, np.ndarray]]:
    """Return the proposals of each image, {"boxes" (r, 4), "scores" (r,)}, the best first.

    Of an RPNHead's maps the `before` best anchors are decoded, clipped to the image of size
    (height, width), dropped where a side is below min_size, and thinned out by non-max suppression;
    `after` of them stay. The paper takes 6,000 and 2,000 in training, 6,000 and 300 after.
    """
    logits, changes = (_array(x) for x in flatten_rpn(objectness, changes))
    anchors = _rows("anchors", anchors)
    before, after = (
        _validate.integer(name, n, low=1) for name, n in (("before", before), ("after", after))
    )
    proposals = []
    for score, change in zip(logits, changes, strict=True):
        best = np.argsort(-score, kind="stable")[:before]
        boxes = kernels.decode_boxes(change[best], anchors[best])
        boxes = kernels.clip_boxes_to_image(boxes, size)
        large = kernels.remove_small_boxes(boxes, min_size)
        boxes, scores = boxes[large], kernels.sigmoid(score[best][large])
        kept = kernels.nms(boxes, scores, iou_threshold)[:after]
        proposals.append({"boxes": boxes[kept], "scores": scores[kept]})
    return proposals


def regions(proposals: Sequence[np.ndarray]) -> np.ndarray:
    """Return boxes of several images as rows (image, x1, y1, x2, y2), as `kernels.roi_align` takes.

    proposals[i] (r, 4) are those of image i; float32.
    """
    rows = [np.zeros((0, 5), np.float32)]
    for image, boxes in enumerate(proposals):
        boxes = _rows("proposals", boxes)
        rows.append(np.insert(boxes, 0, image, axis=1))
    return np.concatenate(rows)


def sample_regions(
    proposals: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    size: int = 64,
    positive_fraction: Number = 0.25,
    threshold: Number = 0.5,
    generator: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (regions (r, 5), labels (r,), changes (r, 4)): what FastRCNNHead is trained on.

    The true boxes join the proposals, so that there are good ones from the start. Those that
    overlap a box by at least `threshold` take its label, from 1 on, all others are background, 0;
    up to `size` of each image are drawn (`sample_matches`). changes lead from region to box, times
    (10, 10, 5, 5); those of background are 0 and mean nothing.
    """
    if not len(proposals) == len(boxes) == len(labels):
        raise ValueError("proposals, boxes and labels must be of the same images, got "
                         f"{len(proposals)}, {len(boxes)} and {len(labels)}")  # fmt: skip
    generator = random.generator() if generator is None else generator
    taken, names, codes = [], [], []
    for near, given, label in zip(proposals, boxes, labels, strict=True):
        given, label = _rows("boxes", given), np.asarray(label, np.int64)
        if label.shape != (len(given),) or (label < 1).any():
            raise ValueError("labels must be one for each box, from 1 on: 0 is background")
        near = np.concatenate([_rows("proposals", near), given])
        matches = kernels.match_anchors(near, given, threshold, threshold, False)
        positive, negative = sample_matches(matches, size, positive_fraction, generator)
        chosen = np.concatenate([positive, negative])
        taken.append(near[chosen])
        names.append(np.concatenate([label[matches[positive]], np.zeros(len(negative), np.int64)]))
        code = np.zeros((len(chosen), 4), np.float32)
        code[: len(positive)] = kernels.encode_boxes(
            given[matches[positive]], near[positive], CODE_WEIGHTS
        )
        codes.append(code)
    return regions(taken), np.concatenate(names), np.concatenate(codes)


def fast_rcnn_loss(logits, changes, labels: np.ndarray, codes: np.ndarray, beta: Number = 1 / 9):
    """Return (class loss, box loss) of a FastRCNNHead's output; their sum is to be minimised.

    logits (r, num_classes), changes (r, 4 num_classes), labels (r,) and codes (r, 4) as from
    `sample_regions`. The first is the mean cross-entropy, the second the smooth L1 error of the
    four numbers of the right class, of objects only, over all regions.
    """
    F, labels = _engine.functional(logits), np.asarray(labels, np.int64)
    count, classes = logits.shape
    if labels.shape != (count,) or tuple(changes.shape) != (count, 4 * classes):
        raise ValueError(
            f"labels and changes must fit logits {(count, classes)}, got {labels.shape} and "
            f"{tuple(changes.shape)}"
        )
    objects = np.flatnonzero(labels > 0)
    rows = _engine.constant(objects * classes + labels[objects], logits)
    found = changes.reshape(-1, 4)[rows]
    wanted = _engine.constant(_rows("codes", codes)[objects], logits)
    return (
        F.cross_entropy(logits, _engine.constant(labels, logits)),
        F.smooth_l1_loss(found, wanted, reduction="sum", beta=beta) / max(1, count),
    )


def fast_rcnn_detect(
    logits,
    changes,
    regions: np.ndarray,
    size: tuple[int, int],
    images: int,
    score_threshold: Number = 0.05,
    iou_threshold: Number = 0.5,
) -> list[dict[str, np.ndarray]]:
    """Return the detections of each of `images` images: {"boxes", "scores", "labels"}, best first.

    Each region (r, 5) gives a box of every class but background, decoded from the changes of that
    class and clipped to the image of size (height, width); those below score_threshold go, and of
    those of one class that overlap by more than iou_threshold the best stays.
    """
    logits, changes = _array(logits), _array(changes)
    (count, classes), regions = logits.shape, np.asarray(regions, np.float32)
    threshold = _validate.number("score_threshold", score_threshold, low=0, high=1)
    if regions.shape != (count, 5) or changes.shape != (count, 4 * classes):
        raise ValueError(
            f"regions and changes must fit logits {(count, classes)}, got {regions.shape} and "
            f"{changes.shape}"
        )
    scores = kernels.softmax(logits)[:, 1:]
    region, label = np.nonzero(scores >= threshold)
    boxes = kernels.decode_boxes(
        changes.reshape(count, classes, 4)[region, label + 1], regions[region, 1:], CODE_WEIGHTS
    )
    boxes, scores = kernels.clip_boxes_to_image(boxes, size), scores[region, label]
    found = []
    for image in range(_validate.integer("images", images, low=0)):
        here = np.flatnonzero(regions[region, 0] == image)
        kept = here[kernels.batched_nms(boxes[here], scores[here], label[here], iou_threshold)]
        found.append({"boxes": boxes[kept], "scores": scores[kept], "labels": label[kept] + 1})
    return found


def _array(x) -> np.ndarray:
    return np.asarray(_validate.without_tensor(x), np.float32)


def _rows(name, boxes) -> np.ndarray:
    boxes = np.asarray(boxes, np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    return _validate.has_shape(name, boxes, (len(boxes), 4), "four numbers for each box")
