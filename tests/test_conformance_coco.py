"""Average precision equals COCO's own evaluation, and overlaps equal those of its mask library."""

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dlnotes import kernels, metrics

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {
    "all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10),
}  # fmt: skip


def drawn(seed, images, classes, crowded, whole):
    """Return detections and targets that overlap, tie, repeat, or are missing."""
    rng = np.random.default_rng(seed)
    size = rng.choice([12, 60, 250])
    predictions, targets = [], []

    def boxes(n):
        corner, side = rng.uniform(0, size / 2, (n, 2)), rng.uniform(1, size, (n, 2))
        if whole:
            corner, side = np.round(corner), np.ceil(side)
        return np.concatenate([corner, corner + side], axis=1)

    for _ in range(images):
        n, m = rng.integers(0, crowded, 2)
        truth = boxes(n)
        if n > 2:
            truth[1] = truth[0]  # two of them at one place
        found = boxes(m)
        # Most detections lie near a target, some on it.
        near = rng.random(m) < 0.8
        if n:
            shift = rng.normal(0, size / 20, (m, 2)) * (rng.random((m, 1)) < 0.7)
            shift = np.tile(np.round(shift) if whole else shift, 2)
            found[near] = (truth[rng.integers(0, n, m)] + shift)[near]
        targets.append({"boxes": truth, "labels": rng.integers(0, classes, n)})
        predictions.append(
            {
                "boxes": found,
                "labels": rng.integers(0, classes, m),
                "scores": rng.integers(1, 9, m) / 8 if rng.random() < 0.5 else rng.random(m),
            }
        )
    return predictions, targets


def as_coco(images, classes):
    """Return COCO's own structure, which counts images, classes and boxes from 1."""
    annotations = []
    for number, image in enumerate(images, start=1):
        scores = image.get("scores", [1.0] * len(image["boxes"]))
        for box, label, score in zip(image["boxes"], image["labels"], scores, strict=True):
            x1, y1, x2, y2 = map(float, box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "score": float(score),
                    "iscrowd": 0,
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number + 1} for number in range(len(images))],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def theirs(predictions, targets, classes, thresholds, most, area) -> float:
    """Return COCO's average precision, NaN where it says -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(as_coco(targets, classes), as_coco(predictions, classes), "bbox")
        run.params.iouThrs = np.array(thresholds)
        run.params.maxDets = [most]
        run.params.areaRng, run.params.areaRngLbl = [list(AREAS[area])], [area]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else math.nan


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([2, 5, 30]),
    st.booleans(),
    st.sampled_from([[0.5], [0.75], COCO_THRESHOLDS]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from(list(AREAS)),
)
def test_average_precision_is_cocos(seed, images, classes, crowded, whole, thresholds, most, area):
    predictions, targets = drawn(seed, images, classes, crowded, whole)
    ours = metrics.mean_average_precision(
        predictions,
        targets,
        iou_thresholds=thresholds,
        interpolation="101",
        max_detections=most,
        area_range=AREAS[area],
    )
    expected = theirs(predictions, targets, classes, thresholds, most, area)
    assert ours == pytest.approx(expected, abs=1e-12, rel=0, nan_ok=True)


def test_rounding_of_the_recalls_is_cocos():
    """With 57 of 100 targets found, 0.57 is below linspace's 0.57, so that point is not reached."""
    left, zero = np.arange(100.0) * 20, np.zeros(100)
    boxes = np.stack([left, zero, left + 10, zero + 10], axis=1)
    targets = [{"boxes": boxes, "labels": np.zeros(100, int)}]
    for found in (57, 58, 29, 7):
        predictions = [
            {"boxes": boxes[:found], "labels": np.zeros(found, int), "scores": np.ones(found)}
        ]
        ours = metrics.mean_average_precision(predictions, targets, interpolation="101")
        expected = theirs(predictions, targets, 1, [0.5], 100, "all")
        assert ours == pytest.approx(expected, abs=1e-12)


def test_the_last_of_two_equal_overlaps_is_taken():
    """Taking the first one would leave the second detection without a target."""
    targets = [{"boxes": [[0, 0, 10, 10], [10, 0, 20, 10]], "labels": [0, 0]}]
    predictions = [
        {"boxes": [[5, 0, 15, 10], [0, 0, 10, 10]], "labels": [0, 0], "scores": [0.9, 0.8]}
    ]
    given_too = {"iou_thresholds": [0.3], "interpolation": "101"}
    assert metrics.mean_average_precision(predictions, targets, **given_too) == pytest.approx(1)
    assert theirs(predictions, targets, 1, [0.3], 100, "all") == pytest.approx(1)


def test_a_target_that_counts_goes_before_a_nearer_one_that_does_not():
    targets = [{"boxes": [[0, 0, 36, 36], [0, 0, 30, 30]], "labels": [0, 0]}]
    predictions = [{"boxes": [[0, 0, 33, 33]], "labels": [0], "scores": [1.0]}]
    for area, expected in (("small", 1.0), ("medium", 1.0), ("all", 0.5)):
        chosen = {"area_range": AREAS[area], "interpolation": "101"}
        ours = metrics.mean_average_precision(predictions, targets, **chosen)
        assert ours == pytest.approx(expected, abs=0.01)
        assert ours == pytest.approx(theirs(predictions, targets, 1, [0.5], 100, area), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 30, 1e4])
)
def test_overlaps_are_those_of_the_mask_library(seed, n, m, scale):
    rng = np.random.default_rng(seed)
    whole = rng.random() < 0.5
    boxes = []
    for count in (n, m):
        xywh = rng.uniform(0.5, 2, (count, 4)) * scale
        boxes.append(np.ceil(xywh) if whole else xywh)
    ours = kernels.box_iou(*(kernels.box_convert(b, "xywh", "xyxy") for b in boxes))
    expected = np.reshape(mask.iou(*boxes, [0] * m), (n, m))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=0 if whole else 1e-12)


def test_bad_settings():
    for wrong, message in [
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"area_range": (5, 1)}, r"area_range must be \(smallest, largest\) area, got \(5, 1\)"),
        ({"area_range": (-1, 1)}, "area_range must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics.mean_average_precision([], [], **wrong)
