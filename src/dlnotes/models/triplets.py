"""Choosing triplets: which anchors, positives and negatives a batch of vectors is trained on."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from dlnotes import _validate, kernels, random
from dlnotes._validate import Number

KINDS = ("all", "random", "semi-hard", "hard")


class Triplets(NamedTuple):
    """Places in a batch: anchor and positive are one person, negative is another one."""

    anchor: Int64[np.ndarray, " t"]
    positive: Int64[np.ndarray, " t"]
    negative: Int64[np.ndarray, " t"]


def mine_triplets(
    vectors,
    labels: np.ndarray,
    kind: str = "semi-hard",
    margin: Number = 0.2,
    generator: np.random.Generator | None = None,
) -> Triplets:
    """Return triplets of a batch of vectors (n, d), an array or tensor of any engine.

    labels (n,), integers, say who each is of. With d the Euclidean distance, kind is

    - "all": every anchor, positive and negative there is, O(n³) of them;
    - "random": every anchor and positive, with one negative drawn at random;
    - "semi-hard": every anchor and positive, with the nearest negative that is further away than
      the positive but by less than margin; those that have none are left out (Schroff, Kalenichenko
      and Philbin, 2015, FaceNet);
    - "hard": every anchor once, with its furthest positive and its nearest negative (Hermans, Beyer
      and Leibe, 2017, "batch hard"). At the start of training this may collapse: all vectors equal
      have the loss `margin`, less than wrong ones.

    On ties the first counts. Anchors without a positive or a negative in the batch are left out.
    Only places are returned, so the choice has no gradient: give
    `triplet_margin_loss(x[anchor], x[positive], x[negative])` the margin. Draws come from
    `generator`, by default `dlnotes.random.generator()`. Cost O(n² d), and O(n³) memory but for
    "hard".

    ValueError for an unknown kind, a negative margin and labels that do not fit.
    """
    _validate.one_of("kind", kind, KINDS)
    margin = _validate.number("margin", margin, low=0)
    distance, same = _pairs(vectors, labels)
    if not same.size:
        return _triplets([], [], [])
    other = ~same
    np.fill_diagonal(same, False)
    if kind == "hard":
        anchor = np.flatnonzero(same.any(axis=1) & other.any(axis=1))
        positive = np.where(same, distance, -np.inf)[anchor].argmax(axis=1)
        negative = np.where(other, distance, np.inf)[anchor].argmin(axis=1)
        return _triplets(anchor, positive, negative)
    anchor, positive = np.nonzero(same)
    if kind == "all":
        which, negative = np.nonzero(other[anchor])
        return _triplets(anchor[which], positive[which], negative)
    if kind == "random":
        rng = random.generator() if generator is None else generator
        wanted = np.where(other[anchor], rng.random((len(anchor), len(labels))), np.inf)
    else:
        far, near = distance[anchor], distance[anchor, positive][:, None]
        semi_hard = other[anchor] & (far > near) & (far < near + margin)
        wanted = np.where(semi_hard, far, np.inf)
    found = np.isfinite(wanted).any(axis=1)
    return _triplets(anchor[found], positive[found], wanted[found].argmin(axis=1))


def active_share(vectors, triplets: Triplets, margin: Number = 0.2) -> float:
    """Return the share of triplets whose loss is not 0: d(a, p) + margin > d(a, n).

    Of random triplets it falls quickly as training goes on, and with it what a batch teaches. NaN
    without triplets.
    """
    x = np.asarray(_validate.without_tensor(vectors), np.float64)
    margin = _validate.number("margin", margin, low=0)
    if not len(triplets.anchor):
        return float("nan")
    anchor = x[triplets.anchor]
    near, far = (np.linalg.norm(anchor - x[i], axis=1) for i in triplets[1:])
    return float((near + margin > far).mean())


def _pairs(vectors, labels):
    """Return the distances of all pairs and whether they are of one person."""
    x = np.asarray(_validate.without_tensor(vectors), np.float64)
    labels = np.asarray(labels)
    if x.ndim != 2:
        raise ValueError(f"vectors must have shape (n, d), got {x.shape}")
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers ({len(x)},), one for each vector, got {labels.dtype} "
            f"{labels.shape}"
        )
    distance = kernels.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distance, labels[:, None] == labels


def _triplets(*places) -> Triplets:
    return Triplets(*(np.asarray(one, np.int64) for one in places))
