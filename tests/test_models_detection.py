"""What stands around the detectors: targets, losses, proposals, detections, generated scenes."""

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import data, kernels, metrics, models, optim
from dlnotes.autograd import Tensor, tensor

ANCHORS = np.array([[20.0, 30.0], [40.0, 16.0]])
BOXES = [np.array([[3, 5, 25, 33], [40, 40, 62, 60.5]], np.float32),
         np.array([[10, 8, 53, 30]], np.float32), np.zeros((0, 4), np.float32)]  # fmt: skip
LABELS = [np.array([2, 0]), np.array([1]), np.zeros(0, np.int64)]


def perfect(targets, classes, certain=12.0):
    """Return the logits that say exactly what the targets ask for."""
    logits = np.full((*targets.objects.shape, 5 + classes), -certain, np.float64)
    offsets = np.clip(targets.offsets.astype(np.float64), 1e-9, 1 - 1e-9)
    logits[..., :2] = np.log(offsets / (1 - offsets))
    logits[..., 2:4] = targets.scales
    logits[targets.objects, 4] = certain
    for place in np.argwhere(targets.objects):
        logits[(*place, 5 + targets.labels[tuple(place)])] = certain
    return logits


# ---- YOLO ----------------------------------------------------------------------------------------


def test_the_iou_of_a_perfect_prediction_is_one():
    targets = models.yolo_targets(BOXES, LABELS, ANCHORS, (64, 96), 16)
    assert targets.objects.shape == (3, 4, 6, 2)
    assert targets.lost == 0
    found = models.yolo_detect(perfect(targets, 3), ANCHORS, 16)
    for detections, boxes, labels in zip(found, BOXES, LABELS, strict=True):
        assert len(detections["boxes"]) == len(boxes)
        iou = kernels.box_iou(boxes.astype(np.float64), detections["boxes"])
        match = iou.argmax(axis=1) if len(boxes) else np.zeros(0, int)
        np.testing.assert_allclose(iou[np.arange(len(boxes)), match], 1, atol=1e-5)
        np.testing.assert_array_equal(detections["labels"][match], labels)
        assert (detections["scores"] > 0.99).all()


def test_units_by_hand():
    """A centre at (14, 19) lies in column 0, row 1 of cells of 16 pixels, at (0.875, 0.1875)."""
    targets = models.yolo_targets(BOXES[:1], LABELS[:1], ANCHORS, (64, 64), 16)
    (place, other) = np.argwhere(targets.objects[0])
    assert place.tolist() == [1, 0, 0]  # 22 × 28 is nearer to 20 × 30 than to 40 × 16
    np.testing.assert_allclose(targets.offsets[0, 1, 0, 0], [0.875, 0.1875])
    np.testing.assert_allclose(targets.scales[0, 1, 0, 0], np.log([22 / 20, 28 / 30]), rtol=1e-6)
    assert targets.labels[0, 1, 0, 0] == 2
    assert other.tolist() == [3, 3, 0]
    # Logits of 0: the middle of the cell and the anchor itself.
    boxes, objects, classes = models.yolo_decode(np.zeros((1, 4, 4, 2, 8)), ANCHORS, 16)
    cell = boxes.reshape(4, 4, 2, 4)[1, 2, 1]
    np.testing.assert_allclose(cell, [40 - 20, 24 - 8, 40 + 20, 24 + 8])
    assert objects[0, 0] == 0.5
    np.testing.assert_allclose(classes, 1 / 3)


def test_boxes_in_one_cell_take_what_is_free():
    boxes = np.array([[0, 0, 20, 30], [1, 1, 21, 31], [2, 2, 22, 32]], np.float32)
    targets = models.yolo_targets([boxes], [np.array([0, 1, 2])], ANCHORS, (64, 64), 64)
    assert targets.labels[0, 0, 0].tolist() == [0, 1]
    assert targets.lost == 1


def test_yolo_loss_is_the_formula():
    targets = models.yolo_targets(BOXES, LABELS, ANCHORS, (64, 64), 16)
    logits = h.draw(0, (3, 4, 4, 2, 8), np.float64)
    parts = models.yolo_loss(tensor(logits), targets, 5, 0.5)
    expected = np.zeros(5)
    for place in np.ndindex(3, 4, 4, 2):
        z = logits[place]
        share = 1 / (1 + np.exp(-z))
        if targets.objects[place]:
            expected[0] += 5 * ((share[:2] - targets.offsets[place]) ** 2).sum()
            expected[1] += 5 * ((z[2:4] - targets.scales[place]) ** 2).sum()
            expected[2] -= np.log(share[4])
            expected[4] += np.log(np.exp(z[5:]).sum()) - z[5 + targets.labels[place]]
        else:
            expected[3] -= 0.5 * np.log(1 - share[4])
    np.testing.assert_allclose([part.item() for part in parts], expected / 3, rtol=1e-6)
    assert parts.total.item() == pytest.approx(expected.sum() / 3)


def test_yolo_loss_on_both_engines():
    targets = models.yolo_targets(BOXES, LABELS, ANCHORS, (64, 64), 16)
    logits = h.draw(1, (3, 4, 4, 2, 8), np.float64)
    ours, theirs = tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    for x in (ours, theirs):
        models.yolo_loss(x, targets).total.backward()
    h.assert_close(ours.grad, theirs.grad, np.float64, factor=100)


@pytest.mark.parametrize("engine", [tensor, torch.tensor])
def test_yolo_loss_of_empty_pictures_and_of_perfect_ones(engine):
    empty = models.yolo_targets(BOXES[2:], LABELS[2:], ANCHORS, (64, 64), 16)
    parts = models.yolo_loss(engine(h.draw(0, (1, 4, 4, 2, 8), np.float32)), empty)
    assert [float(part) for part in parts][:3] == [0, 0, 0]
    assert float(parts.background) > 0
    targets = models.yolo_targets(BOXES, LABELS, ANCHORS, (64, 64), 16)
    assert float(models.yolo_loss(engine(perfect(targets, 3)), targets).total) < 0.01


# ---- Faster R-CNN --------------------------------------------------------------------------------


def test_sampling_balances():
    matches = np.array([0, 1, 1, 2] + [-2] * 3 + [-1] * 40)
    rng = np.random.default_rng(0)
    positive, negative = models.sample_matches(matches, 8, 0.25, rng)
    assert (len(positive), len(negative)) == (2, 6)
    assert (matches[positive] >= 0).all()
    assert (matches[negative] == -1).all()
    assert len(set(positive) | set(negative)) == 8
    positive, negative = models.sample_matches(matches, 100, 0.5, rng)
    assert positive.tolist() == [0, 1, 2, 3]
    assert negative.tolist() == list(range(7, 47))
    drawn = np.concatenate([models.sample_matches(matches, 8, 0.25, rng)[0] for _ in range(200)])
    assert np.bincount(drawn, minlength=4).min() > 60  # each of four, a hundred times on average


def test_maps_are_flattened_in_the_order_of_the_anchors():
    """Changes that lead from each anchor to one box decode to that box everywhere."""
    anchors = kernels.anchor_boxes([(3, 4)], [16], [1, 2], [0.5, 1])
    box = np.float32([[5, 6, 30, 41]])
    codes = kernels.encode_boxes(np.repeat(box, len(anchors), 0), anchors)  # (48, 4)
    maps = codes.reshape(3, 4, 4, 4).transpose(2, 3, 0, 1).reshape(1, 16, 3, 4)
    score = np.zeros((1, 4, 3, 4), np.float32)
    score[0, 2, 1, 3] = 5
    (found,) = models.propose(Tensor(score), Tensor(maps), anchors, (48, 64))
    np.testing.assert_allclose(found["boxes"], box, atol=1e-3)  # all the same: one stays
    logits, changes = models.flatten_rpn(Tensor(score), Tensor(maps))
    assert logits.data[0].argmax() == (1 * 4 + 3) * 4 + 2
    np.testing.assert_array_equal(changes.data[0], codes)


def test_proposals_are_clipped_thinned_and_limited():
    anchors = np.float32([[-8, -8, 24, 24], [-8, -8, 25, 25], [40, 40, 80, 60], [63.5, 0, 80, 9]])
    score, change = (
        np.float32([1, 3, 2, 9]).reshape(1, 4, 1, 1),
        np.zeros((1, 16, 1, 1), np.float32),
    )
    (found,) = models.propose(Tensor(score), Tensor(change), anchors, (64, 64))
    assert found["boxes"].tolist() == [[0, 0, 25, 25], [40, 40, 64, 60]]
    np.testing.assert_allclose(found["scores"], kernels.sigmoid(np.float32([3, 2])))
    (found,) = models.propose(Tensor(score), Tensor(change), anchors, (64, 64), after=1)
    assert len(found["boxes"]) == 1
    (found,) = models.propose(Tensor(score), Tensor(change), anchors, (64, 64), before=1)
    assert found["boxes"].shape == (0, 4)  # the best is too narrow once it is clipped


@pytest.mark.parametrize("engine", [tensor, torch.tensor])
def test_rpn_loss_of_a_perfect_and_of_an_ignorant_head(engine):
    anchors = kernels.anchor_boxes([(4, 4)], [16], [1, 2], [1])
    boxes = [np.float32([[2, 1, 31, 30], [40, 38, 60, 58]]), np.zeros((0, 4), np.float32)]
    score, change = np.full((2, 2, 4, 4), -20.0, np.float32), np.zeros((2, 8, 4, 4), np.float32)
    matches = kernels.match_anchors(anchors, boxes[0])
    for k in np.flatnonzero(matches >= 0):
        row, column, anchor = np.unravel_index(k, (4, 4, 2))
        score[0, anchor, row, column] = 20
        code = kernels.encode_boxes(boxes[0][matches[k]][None], anchors[k : k + 1])[0]
        change[0, 4 * anchor : 4 * anchor + 4, row, column] = code
    losses = models.rpn_loss(engine(score), engine(change), anchors, boxes)
    assert [float(loss) for loss in losses] == pytest.approx([0, 0], abs=1e-6)
    score, change = np.zeros_like(score), np.zeros_like(change)
    losses = models.rpn_loss(engine(score), engine(change), anchors, boxes)
    assert float(losses[0]) == pytest.approx(np.log(2))
    assert float(losses[1]) > 0


def test_regions_and_their_answers():
    boxes, labels = [np.float32([[0, 0, 20, 20]])], [np.array([3])]
    near = [np.float32([[0, 0, 20, 18], [0, 0, 20, 9], [30, 30, 40, 40]])]
    regions, names, codes = models.sample_regions(near, boxes, labels, 8, 0.5)
    assert regions.shape == (4, 5)
    assert names.tolist() == [3, 3, 0, 0]
    back = kernels.decode_boxes(codes[:2], regions[:2, 1:], (10, 10, 5, 5))
    np.testing.assert_allclose(back, [[0, 0, 20, 20]] * 2, atol=1e-4)
    assert not codes[2:].any()
    joined = models.regions([boxes[0], np.zeros((0, 4)), boxes[0]])
    np.testing.assert_array_equal(joined[:, 0], [0, 2])
    empty = models.sample_regions([np.zeros((0, 4))], [np.zeros((0, 4))], [np.zeros(0, int)])
    assert [len(part) for part in empty] == [0, 0, 0]


@pytest.mark.parametrize("engine", [tensor, torch.tensor])
def test_the_second_stage_finds_what_it_is_told(engine):
    boxes, labels = [np.float32([[4, 4, 24, 30]]), np.float32([[30, 8, 60, 40]])], [[1], [2]]
    near = [np.float32([[2, 6, 25, 28], [40, 40, 60, 60]]), np.float32([[28, 5, 58, 44]])]
    regions, names, codes = models.sample_regions(near, boxes, list(map(np.array, labels)))
    count = len(regions)
    logits = np.full((count, 3), -9.0, np.float32)
    logits[np.arange(count), names] = 9
    changes = np.zeros((count, 3, 4), np.float32)
    changes[np.arange(count), names] = codes
    changes[names == 0] = 7  # means nothing
    logits, changes = engine(logits), engine(changes.reshape(count, 12))
    losses = models.fast_rcnn_loss(logits, changes, names, codes)
    assert [float(loss) for loss in losses] == pytest.approx([0, 0], abs=1e-6)
    found = models.fast_rcnn_detect(logits, changes, regions, (64, 64), 2)
    for image, detections in enumerate(found):
        np.testing.assert_allclose(detections["boxes"], boxes[image], atol=1e-3)
        assert detections["labels"].tolist() == labels[image]
    targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
    assert metrics.mean_average_precision(found, targets) == 1


# ---- scenes --------------------------------------------------------------------------------------


def test_scenes_are_what_they_say():
    scenes = data.scenes(6, 96, (2, 3), generator=np.random.default_rng(1))
    again = data.scenes(6, 96, (2, 3), generator=np.random.default_rng(1))
    np.testing.assert_array_equal(scenes.images, again.images)
    assert scenes.images.shape == (6, 96, 96, 3)
    assert scenes.images.dtype == np.uint8
    for boxes, labels in zip(scenes.boxes, scenes.labels, strict=True):
        assert len(boxes) == len(labels) <= 3
        assert ((boxes >= 0) & (boxes <= 96)).all()
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        assert ((sides >= 0.14 * 96) & (sides <= 0.41 * 96)).all()
        overlap = kernels.box_iou(boxes, boxes) - np.eye(len(boxes))
        assert overlap.max(initial=0) <= 0.2
        assert ((labels >= 0) & (labels < len(scenes.classes))).all()


def test_a_box_is_tight_around_its_sprite():
    """The same draws with and without the object: the pixels that differ fill the box."""
    settings = {"n": 1, "size": 128, "classes": ["apple"], "scale": (0.3, 0.3)}
    (box,) = data.scenes(**settings, objects=(1, 1), generator=np.random.default_rng(5)).boxes[0]
    filled, empty = (
        data.scenes(**settings, objects=(k, k), generator=np.random.default_rng(5)).images[0]
        for k in (1, 0)
    )
    rows, columns = np.nonzero((filled != empty).any(axis=2))
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(edges, box, atol=2)


def test_a_small_detector_learns_scenes():
    """Thirty steps on a dozen pictures: the loss falls by half."""
    dlnotes.manual_seed(0)
    scenes = data.scenes(12, 64, (1, 1), (0.4, 0.6), classes=["apple", "cat"])
    x = data.images_to_float(scenes.images).transpose(0, 3, 1, 2)
    anchors = np.array([[32.0, 32.0]])
    targets = models.yolo_targets(scenes.boxes, scenes.labels, anchors, (64, 64), 16)
    net = models.YOLO(2, width=0.5)
    optimiser = optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = models.yolo_loss(net(x), targets).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: models.yolo_targets(BOXES, LABELS[:2], ANCHORS, (64, 64), 16),
            ValueError,
            "boxes and labels must be of the same images",
        ),
        (
            lambda: models.yolo_targets(BOXES, LABELS, ANCHORS, (60, 64), 16),
            ValueError,
            "size must be multiples of stride = 16",
        ),
        (
            lambda: models.yolo_targets(BOXES, LABELS, -ANCHORS, (64, 64), 16),
            ValueError,
            "anchors must be",
        ),
        (
            lambda: models.yolo_targets(BOXES, LABELS, ANCHORS, (32, 32), 16),
            ValueError,
            "boxes must have their centres inside the image",
        ),
        (
            lambda: models.yolo_targets([[[5, 5, 5, 9]]], [[0]], ANCHORS, (64, 64), 16),
            ValueError,
            "boxes must have x1 < x2",
        ),
        (
            lambda: models.yolo_targets([[[5, 5, 6, 9]]], [[0.5]], ANCHORS, (64, 64), 16),
            TypeError,
            "labels must be integers",
        ),
        (
            lambda: models.yolo_decode(np.zeros((1, 2, 2, 3, 8)), ANCHORS, 16),
            ValueError,
            "logits must have shape",
        ),
        (lambda: models.sample_matches(np.ones(3)), ValueError, "matches must be integers"),
        (
            lambda: models.sample_regions([[]], [np.ones((1, 4))], [np.array([0])]),
            ValueError,
            "from 1 on: 0 is background",
        ),
        (lambda: data.scenes(1, photos=["no such"]), ValueError, "photos must be different names"),
        (lambda: data.scenes(1, objects=(3, 1)), ValueError, "objects must be"),
        (lambda: data.scenes(1, scale=(0, 0.5)), ValueError, "scale must be"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
