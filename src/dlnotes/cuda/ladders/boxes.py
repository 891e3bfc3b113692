"""Overlaps of boxes and non-maximum suppression: rungs of boxes.cu."""

import numpy as np

from dlnotes.cuda.ladders._base import Ladder, Rung, blocks, wide


def _box_iou_naive(s, a, b):
    out = s.empty((len(a), len(b)), a)
    s.launch(
        "box_iou_naive", (blocks(len(b), 32), blocks(len(a), 8)), (32, 8), len(a), len(b), a, b, out
    )
    return out


def _box_iou_tiled(s, a, b):
    if not wide(a, b):
        return _box_iou_naive(s, a, b)
    out = s.empty((len(a), len(b)), a)
    s.launch(
        "box_iou_tiled",
        (blocks(len(b), 32), blocks(len(a), 32)),
        (32, 8),
        len(a),
        len(b),
        a,
        b,
        out,
    )
    return out


def _suppression(overlap):
    """Sort boxes by falling score, ties in order; return which of them `overlap` keeps.

    What is sorted is new memory, so it is as well aligned as the kernels' float4 needs.
    """

    def run(s, boxes, scores, iou_threshold):
        if isinstance(boxes, np.ndarray):
            order = np.argsort(-scores, kind="stable")
            boxes = np.ascontiguousarray(boxes[order])
        else:
            order = (-scores).argsort(stable=True)
            boxes = boxes[order].contiguous()
        keep = s.empty((len(boxes),), boxes, "int32")
        overlap(s, boxes, float(iou_threshold), keep)
        return order[keep != 0]

    return run


def _nms_sequential(s, boxes, threshold, keep):
    s.launch("nms_sequential", min(len(boxes), 1), 256, len(boxes), threshold, boxes, keep)


def _nms_bitmask(s, boxes, threshold, keep):
    n, words = len(boxes), blocks(len(boxes), 64)
    mask = s.empty((n, words), boxes, "uint64")
    s.launch("nms_overlaps", (words, words), 64, n, threshold, boxes, mask)
    s.launch("nms_scan", min(n, 1), 32, n, mask, keep, shared_bytes=8 * words)


FAMILY = (
    Ladder(
        "box_iou",
        "boxes.cu",
        "box_iou",
        (
            Rung("box_iou_naive", "One thread a pair.", _box_iou_naive, ("box_iou_naive",)),
            Rung(
                "box_iou_tiled",
                "Boxes in shared memory, each fetched by one 16-byte load.",
                _box_iou_tiled,
                ("box_iou_tiled", "box_iou_naive"),  # the second for boxes that begin anywhere
            ),
        ),
    ),
    Ladder(
        "nms",
        "boxes.cu",
        "nms",
        (
            Rung(
                "nms_sequential",
                "One block, one box after another.",
                _suppression(_nms_sequential),
                ("nms_sequential",),
            ),
            Rung(
                "nms_bitmask",
                "All overlaps side by side, a bit each; then a walk over words.",
                _suppression(_nms_bitmask),
                ("nms_overlaps", "nms_scan"),
            ),
        ),
    ),
)
