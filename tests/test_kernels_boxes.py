"""Boxes, regions, style and detection metrics against loops, closed forms and differences."""

import math

import core_helpers as h
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes.nn.functional as F
from dlnotes import autograd, check, kernels, metrics


@st.composite
def box_sets(draw, max_size=90):
    """Few or many boxes on a coarse grid: identical ones, zero areas and ties are frequent."""
    n = draw(st.one_of(st.sampled_from([0, 1, 2, 64, 65]), st.integers(0, max_size)))
    rng = np.random.default_rng(draw(h.seeds))
    grid, dtype = draw(st.sampled_from([2, 5, 20])), draw(h.dtypes)
    scale = draw(st.sampled_from([1.0, 1e4 / grid]))
    corners = np.sort(rng.integers(-grid, grid + 1, (n, 2, 2)), axis=1).reshape(n, 4)
    boxes = h.laid_out((corners * scale).astype(dtype), draw(h.layouts))
    return boxes, (rng.integers(0, 6, n) / 5).astype(dtype)


def iou_of(a, b):
    a, b = a.tolist(), b.tolist()
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - width * height
    return (width * height / union if union else 0.0), union


def gain_of(a, b):
    iou, union = iou_of(a, b)
    width = max(a[2], b[2]) - min(a[0], b[0])
    height = max(a[3], b[3]) - min(a[1], b[1])
    hull = float(width) * float(height)
    return iou - ((hull - union) / hull if hull else 0)


@settings(deadline=None, max_examples=40)
@given(box_sets(12), box_sets(12))
def test_overlaps_as_by_loops(first, second):
    a, b = first[0], second[0].astype(first[0].dtype)
    for function, oracle in [
        (kernels.box_iou, lambda p, q: iou_of(p, q)[0]),
        (kernels.generalized_box_iou, gain_of),
    ]:
        expected = np.array([[oracle(p, q) for q in b] for p in a]).reshape(len(a), len(b))
        h.assert_close(h.assert_pure(function, a, b), expected, a.dtype)
    areas = np.array([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in a], a.dtype)
    np.testing.assert_array_equal(h.assert_pure(kernels.box_area, a), areas)


@settings(deadline=None, max_examples=60)
@given(box_sets(200), st.sampled_from([0, 0.3, 0.5, 0.7, 1]), h.seeds)
def test_suppression_as_by_loops(case, threshold, seed):
    boxes, scores = case
    keep = h.assert_pure(lambda b, s: kernels.nms(b, s, threshold), boxes, scores)
    np.testing.assert_array_equal(keep, kernels.nms_loops(boxes, scores, threshold))
    assert keep.dtype == np.int64

    idxs = np.random.default_rng(seed).integers(0, 3, len(boxes))
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        iou = kernels.box_iou(boxes[[i]], boxes[kept])[0]
        if not (iou[idxs[kept] == idxs[i]] > threshold).any():
            kept.append(i)
    batched = h.assert_pure(
        lambda b, s, i: kernels.batched_nms(b, s, i, threshold), boxes, scores, idxs
    )
    np.testing.assert_array_equal(batched, kept)


def test_suppression_takes_equal_scores_in_order():
    boxes = np.array([[0, 0, 2, 2], [9, 9, 9, 9], [0, 0, 2, 2], [9, 9, 9, 9]], np.float32)
    scores = np.ones(4, np.float32)
    # The boxes without area overlap nothing, not even each other.
    np.testing.assert_array_equal(kernels.nms(boxes, scores, 0.5), [0, 1, 3])
    np.testing.assert_array_equal(kernels.nms(boxes, scores, 1.0), [0, 1, 2, 3])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@settings(deadline=None, max_examples=30)
@given(case=box_sets(25))
def test_soft_suppression_as_by_loops(method, case):
    boxes, scores = case
    keep, lowered = h.assert_pure(lambda b, s: kernels.soft_nms(b, s, method=method), boxes, scores)
    # With these indices in this order, each score is its own times the factors of those before.
    expected = []
    for place, i in enumerate(keep):
        score = float(scores[i])
        for j in keep[:place]:
            iou = iou_of(boxes[i], boxes[j])[0]
            if method == "gaussian":
                score *= math.exp(-iou * iou / 0.5)
            elif iou > 0.3:
                score *= 1 - iou
        expected.append(score)
    h.assert_close(lowered, np.array(expected), boxes.dtype, factor=20)
    assert (np.diff(lowered) <= 0).all()
    assert (lowered > 0.001).all()
    for i in set(range(len(boxes))) - set(keep.tolist()):  # each of the others fell too far
        factors = np.array([iou_of(boxes[i], boxes[j])[0] for j in keep])
        if method == "gaussian":
            factors = np.exp(-(factors**2) / 0.5)
        else:
            factors = np.where(factors > 0.3, 1 - factors, 1)
        assert scores[i] * factors.prod() <= 0.001 + 1e-6


@settings(deadline=None, max_examples=40)
@given(box_sets(20))
def test_conversion_clipping_and_sizes(case):
    boxes = case[0]
    scale = max(1, np.abs(boxes).max(initial=0))
    x1, y1, x2, y2 = boxes.T
    formats = {
        "xyxy": boxes,
        "xywh": np.stack([x1, y1, x2 - x1, y2 - y1], 1),
        "cxcywh": np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1),
    }
    for old, given_boxes in formats.items():
        for new, expected in formats.items():
            y = h.assert_pure(lambda b, o=old, n=new: kernels.box_convert(b, o, n), given_boxes)
            h.assert_close(y, expected, boxes.dtype, scale)
    clipped = h.assert_pure(lambda b: kernels.clip_boxes_to_image(b, (3, 4)), boxes)
    limits = [4, 3, 4, 3]
    expected = [[min(max(v, 0), m) for v, m in zip(b, limits, strict=True)] for b in boxes]
    np.testing.assert_array_equal(clipped, np.array(expected).reshape(-1, 4))
    keep = [i for i, b in enumerate(boxes) if min(b[2] - b[0], b[3] - b[1]) >= 2]
    np.testing.assert_array_equal(kernels.remove_small_boxes(boxes, 2), keep)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encoding_and_back(dtype):
    anchors = np.array([[0, 0, 10, 20], [5, 5, 7, 9]], dtype)
    boxes = np.array([[10, 0, 30, 20], [5, 5, 7, 9]], dtype)
    weights = (10.0, 10.0, 5.0, 5.0)
    codes = h.assert_pure(lambda b, a: kernels.encode_boxes(b, a, weights), boxes, anchors)
    h.assert_close(codes, np.array([[15, 0, 5 * math.log(2), 0], [0] * 4]), dtype, 10)
    decoded = h.assert_pure(lambda c, a: kernels.decode_boxes(c, a, weights), codes, anchors)
    h.assert_close(decoded, boxes, dtype, 10)
    wild = kernels.decode_boxes(np.full((2, 4), 1e4, dtype), anchors)
    h.assert_close(wild[:, 2:] - wild[:, :2], 62.5 * (anchors[:, 2:] - anchors[:, :2]), dtype, 1e6)


def test_anchors_and_their_matches():
    anchors = kernels.anchor_boxes([(1, 2), (1, 1)], [8, 16], [1], [1, 4])
    expected = [[0, 0, 8, 8], [2, -4, 6, 12], [8, 0, 16, 8], [10, -4, 14, 12],
                [0, 0, 16, 16], [4, -8, 12, 24]]  # fmt: skip
    np.testing.assert_array_equal(anchors, np.array(expected, np.float32))
    boxes = np.array([[0, 0, 8, 8], [8, 0, 16, 4], [90, 90, 99, 99]], np.float32)
    np.testing.assert_array_equal(kernels.match_anchors(anchors, boxes), [0, -2, 1, -1, -1, -1])
    strict = kernels.match_anchors(anchors, boxes, allow_low_quality_matches=False)
    np.testing.assert_array_equal(strict, [0, -2, -2, -1, -1, -1])
    np.testing.assert_array_equal(kernels.match_anchors(anchors, boxes[:0]), [-1] * 6)
    assert kernels.match_anchors(anchors[:0], boxes).shape == (0,)


def pool_loops(x, boxes, out, scale):
    y = np.zeros((len(boxes), x.shape[1], *out), x.dtype)
    for k, c, i, j in np.ndindex(y.shape):
        x1, y1, x2, y2 = (math.floor(abs(v) * scale + 0.5) * (1 if v > 0 else -1)
                          for v in boxes[k, 1:].tolist())  # fmt: skip
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        cell = [
            x[int(boxes[k, 0]), c, row, column]
            for row in range(y1 + i * height // out[0], y1 + -(-(i + 1) * height // out[0]))
            for column in range(x1 + j * width // out[1], x1 + -(-(j + 1) * width // out[1]))
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        ]
        y[k, c, i, j] = max(cell, default=0)
    return y


def align_loops(x, boxes, out, scale, ratio, aligned):
    def value(image, y, x):
        if not (-1 <= y <= image.shape[0] and -1 <= x <= image.shape[1]):
            return 0.0
        y, x = (min(max(v, 0), n - 1) for v, n in zip((y, x), image.shape, strict=True))
        total = 0.0
        for (r, c), entry in np.ndenumerate(image):  # a tent over each pixel
            total += entry * max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c))
        return total

    result = np.zeros((len(boxes), x.shape[1], *out), x.dtype)
    for k, c, i, j in np.ndindex(result.shape):
        x1, y1, x2, y2 = (v * scale - 0.5 * aligned for v in boxes[k, 1:].tolist())
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        ny = ratio if ratio > 0 else math.ceil(height / out[0])
        nx = ratio if ratio > 0 else math.ceil(width / out[1])
        image = x[int(boxes[k, 0]), c]
        points = [
            value(image, y1 + (i + (a + 0.5) / ny) * height / out[0],
                  x1 + (j + (b + 0.5) / nx) * width / out[1])
            for a in range(ny) for b in range(nx)
        ]  # fmt: skip
        result[k, c, i, j] = sum(points) / max(1, len(points))
    return result


REGIONS = np.array(
    [[0, 0, 0, 3, 3], [1, -2, -2.3, 2.1, 6], [1, 1, 1, 1, 1], [0, 2.2, 1.1, 9, 8],
     [0, 20, 20, 30, 30]]
)  # fmt: skip


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([1, (2, 3)]), st.sampled_from([1.0, 0.5]), st.sampled_from([-1, 1, 2]),
       st.booleans(), h.dtypes, h.layouts, h.seeds)  # fmt: skip
def test_regions_as_by_loops(out, scale, ratio, aligned, dtype, layout, seed):
    x = h.draw(seed, (2, 2, 4, 5), dtype, layout=layout)
    boxes = REGIONS.astype(dtype)
    sizes = (out, out) if out == 1 else out
    y = h.assert_pure(lambda a, b: kernels.roi_pool(a, b, out, scale), x, boxes)
    np.testing.assert_array_equal(y, pool_loops(x, boxes, sizes, scale))
    y = h.assert_pure(lambda a, b: kernels.roi_align(a, b, out, scale, ratio, aligned), x, boxes)
    h.assert_close(y, align_loops(x, boxes, sizes, scale, ratio, aligned), dtype, factor=5)
    assert kernels.roi_align(x, boxes[:0], out).shape == (0, 2, *sizes)


def random(*shape):
    values = np.random.default_rng(0).permutation(math.prod(shape)) * 0.1 - 1.23
    return values.reshape(shape)


GRAM = random(2, 3, 3)
GRADIENTS = {
    "roi_pool": (random(2, 2, 4, 5), {"boxes": REGIONS, "output_size": (2, 3)}),
    "roi_align": (random(2, 2, 4, 5), {"boxes": REGIONS, "output_size": (2, 3)}),
    "gram_matrix": (random(2, 3, 2, 2), {}),
    "total_variation": (random(2, 2, 3, 4), {}),
    "content_loss": (random(2, 3, 2, 2), {"target": random(2, 3, 2, 2)[::-1].copy()}),
    "style_loss": (random(2, 3, 2, 2), {"target": GRAM}),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_every_entry_of_the_gradient(name):
    x, keywords = GRADIENTS[name]
    function, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    y = h.assert_pure(lambda a: function(a, **keywords), x)
    check.gradcheck(
        lambda x: function(x, **keywords),
        (x,),
        backward=lambda dy, x: backward(dy, x, **keywords),
    )
    dy = np.ones_like(y)
    dx = h.assert_pure(lambda g, a: backward(g, a, **keywords), dy, x)
    tensor = autograd.tensor(x.astype(np.float32), requires_grad=True)
    constants = {
        key: value.astype(np.float32) if isinstance(value, np.ndarray) else value
        for key, value in keywords.items()
    }
    getattr(F, name)(tensor, **constants).sum().backward()
    h.assert_close(tensor.grad, dx, np.float32, 30, factor=3)


def test_style_closed_forms():
    x = random(2, 3, 2, 2)
    gram = np.array([[[(p * q).sum() / 12 for q in image] for p in image] for image in x])
    h.assert_close(kernels.gram_matrix(x), gram, np.float64)
    variation = sum(
        abs(x[n, c, i, j] - x[n, c, i + di, j + dj])
        for di, dj in [(0, 1), (1, 0)]
        for n, c, i, j in np.ndindex(2, 3, 2 - di, 2 - dj)
    )
    assert kernels.total_variation(x) == pytest.approx(variation)
    assert kernels.content_loss(x, x[::-1]) == pytest.approx(((x - x[::-1]) ** 2).mean())
    assert kernels.style_loss(x, GRAM) == pytest.approx(((gram - GRAM) ** 2).mean())


def test_reparameterisation():
    inputs = [h.draw(seed, (3, 2), np.float64) for seed in range(3)]
    check.gradcheck(
        kernels.reparameterize,
        tuple(inputs),
        backward=kernels.reparameterize_backward,
        expected=lambda m, v, e: m + np.sqrt(np.exp(v)) * e,
    )
    h.assert_pure(kernels.reparameterize_backward, inputs[0], *inputs)
    check.gradcheck(F.reparameterize, tuple(inputs))


def test_average_precision_by_hand():
    scores, hits = [0.9, 0.5, 0.8, 0.7], np.array([True, True, False, False])
    # Precision 1 up to recall 1/3, then 1/2 up to 2/3.
    assert metrics.average_precision(scores, hits, 3) == pytest.approx((1 + 0.5) / 3)
    value = metrics.average_precision(scores, hits, 3, interpolation="11")
    assert value == pytest.approx((4 * 1 + 3 * 0.5) / 11)
    value = metrics.average_precision(scores, hits, 3, interpolation="101")
    assert value == pytest.approx((34 * 1 + 33 * 0.5) / 101)
    # Ties: the order given.
    assert metrics.average_precision([1, 1], np.array([True, False]), 1) == 1
    assert metrics.average_precision([1, 1], np.array([False, True]), 1) == 0.5
    assert metrics.average_precision([], np.zeros(0, bool), 2, interpolation="11") == 0
    assert math.isnan(metrics.average_precision([0.5], np.array([False]), 0))


def test_mean_average_precision_by_hand():
    square, other = [0, 0, 10, 10], [20, 0, 30, 10]
    targets = [
        {"boxes": [square, other], "labels": [0, 1]},
        {"boxes": [square], "labels": [0]},
    ]
    predictions = [
        {"boxes": [square, square, [20, 0, 30, 8]], "labels": [0, 0, 1], "scores": [0.9, 0.8, 1]},
        {"boxes": [square, square], "labels": [0, 5], "scores": [0.7, 1]},
    ]
    # Class 0: found, found twice, found: 1/2 + 1/2 · 2/3. Class 1: IoU 0.8.
    value = metrics.mean_average_precision(predictions, targets)
    assert value == pytest.approx((5 / 6 + 1) / 2)
    value = metrics.mean_average_precision(predictions, targets, iou_thresholds=[0.5, 0.9])
    assert value == pytest.approx((5 / 6 + 1 + 5 / 6 + 0) / 4)
    empty = {"boxes": [], "labels": [], "scores": []}
    assert metrics.mean_average_precision([empty] * 2, targets) == 0
    assert math.isnan(metrics.mean_average_precision([empty], [empty]))
    target = {"boxes": [[0, 0, 1, 1]], "labels": [1.5]}
    with pytest.raises(TypeError, match="targets: labels must be integers, got float64"):
        metrics.mean_average_precision([empty], [target])
    target["labels"] = [[1]]
    with pytest.raises(ValueError, match="targets: labels must have one entry for each of 1 boxes"):
        metrics.mean_average_precision([empty], [target])


def test_frechet_distance_closed_forms():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 2, (2, 4))
    m = rng.standard_normal(4)
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    expected = (m**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    first, second = q * a @ q.T, q * b @ q.T
    value = metrics.frechet_distance(m, first, np.zeros(4), second)
    assert value == pytest.approx(expected)
    assert metrics.frechet_distance(m, first, m, first) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="cov1 must be symmetric"):
        metrics.frechet_distance(m[:2], [[1, 2], [0, 1]], m[:2], np.eye(2))


def test_frechet_distance_of_singular_covariances():
    """Exact to rounding and without a warning, and nothing that is no covariance passes."""
    zeros, ones, eye = np.zeros(3), np.ones(3), np.eye(3)
    assert metrics.frechet_distance(zeros, 0 * eye, ones, eye) == pytest.approx(6, rel=1e-14)
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    a, b = np.array([0, 0, 0, 1, 2, 3.0]), np.array([0, 2, 0, 1, 0, 0.5])
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    first, second = q * a @ q.T, q * b @ q.T
    value = metrics.frechet_distance(np.zeros(6), first, np.zeros(6), second)
    assert value == pytest.approx(expected, rel=1e-13)
    few = rng.standard_normal((4, 6)).astype(np.float32)  # rank 3, in the digits of float32
    covariance = np.cov(few.T, dtype=np.float32)
    value = metrics.frechet_distance(np.zeros(6), covariance, np.zeros(6), covariance)
    assert value == pytest.approx(0, abs=1e-6)
    for wrong, least in ([[1, 2], [2, 1]], -1), (-np.eye(2), -1):
        for first, second, name in (wrong, np.eye(2), "cov1"), (np.eye(2), wrong, "cov2"):
            with pytest.raises(ValueError, match=f"{name} must have no negative .* got {least}"):
                metrics.frechet_distance(zeros[:2], first, ones[:2], second)


ONE = np.array([[0, 0, 1, 1.0]])
X = np.zeros((1, 1, 2, 2))
BAD = [
    (ValueError, "x1 ≤ x2", lambda: kernels.box_area(-ONE)),
    (ValueError, "finite", lambda: kernels.box_area(ONE * np.nan)),
    (TypeError, "float32 or float64", lambda: kernels.box_area(ONE.astype(int))),
    (ValueError, "boxes must have shape", lambda: kernels.box_area(ONE[:, :3])),
    (TypeError, "same dtype", lambda: kernels.box_iou(ONE, ONE.astype(np.float32))),
    (ValueError, "in_fmt", lambda: kernels.box_convert(ONE, "yxyx", "xyxy")),
    (ValueError, "sides longer", lambda: kernels.encode_boxes(ONE, ONE * 0)),
    (ValueError, "weights", lambda: kernels.encode_boxes(ONE, ONE, (1, 1, 1, 0))),
    (ValueError, "scores must have shape", lambda: kernels.nms(ONE, np.ones(2), 0.5)),
    (ValueError, "iou_threshold", lambda: kernels.nms(ONE, np.ones(1), 1.5)),
    (TypeError, "idxs", lambda: kernels.batched_nms(ONE, np.ones(1), np.ones(1), 0.5)),
    (ValueError, "method", lambda: kernels.soft_nms(ONE, np.ones(1), method="cubic")),
    (ValueError, "sigma", lambda: kernels.soft_nms(ONE, np.ones(1), sigma=0)),
    (ValueError, "ratios", lambda: kernels.anchor_boxes([(1, 1)], [8], [1], [0])),
    (ValueError, "strides", lambda: kernels.anchor_boxes([(1, 1)], [], [1], [1])),
    (ValueError, "high", lambda: kernels.match_anchors(ONE, ONE, 0.3, 0.7)),
    (ValueError, "number of an image", lambda: kernels.roi_pool(X, np.ones((1, 5)), 1)),
    (ValueError, "output_size", lambda: kernels.roi_align(X, np.zeros((1, 5)), 0)),
    (ValueError, "dy must", lambda: kernels.gram_matrix_backward(np.ones((1, 2, 2)), X)),
    (ValueError, "same shape", lambda: kernels.content_loss(X, X[:, :, :1])),
    (ValueError, "hits", lambda: metrics.average_precision([1], np.array([True]), 0)),
    (TypeError, "hits", lambda: metrics.average_precision([1], [1], 1)),
    (ValueError, "same images", lambda: metrics.mean_average_precision([], [{}])),
    (ValueError, "boxes, labels", lambda: metrics.mean_average_precision([{"scores": []}], [{}])),
]


@pytest.mark.parametrize(("error", "match", "call"), BAD)
def test_bad_input_is_named(error, match, call):
    with h.shapes_unchecked(), pytest.raises(error, match=match):
        call()
