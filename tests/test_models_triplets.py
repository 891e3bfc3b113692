"""Mining of triplets against loops over all of them, and the share that still teaches."""

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import data, models
from dlnotes.autograd import Tensor
from dlnotes.models.triplets import Triplets


def batch(seed, n=9, people=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2)), rng.integers(0, people, n)


def loops(x, labels):
    """Yield (anchor, positive, negative, d(a, p), d(a, n)) of every triplet."""
    for a, p, n in np.ndindex(*[len(x)] * 3):
        if a != p and labels[a] == labels[p] != labels[n]:
            yield a, p, n, np.linalg.norm(x[a] - x[p]), np.linalg.norm(x[a] - x[n])


def found(*arguments, **settings):
    return {
        tuple(map(int, t)) for t in zip(*models.mine_triplets(*arguments, **settings), strict=True)
    }


@pytest.mark.parametrize("seed", range(6))
def test_every_kind_as_by_loops(seed):
    x, labels = batch(seed)
    triplets = list(loops(x, labels))
    assert found(x, labels, "all") == {t[:3] for t in triplets}
    margin, semi_hard, hard = 0.7, {}, {}
    for a, p, n, near, far in triplets:
        if near < far < near + margin and far < semi_hard.get((a, p), (0, np.inf))[1]:
            semi_hard[a, p] = n, far
        farthest, nearest = hard.get(a, ((-np.inf, 0), (np.inf, 0)))
        hard[a] = max(farthest, (near, p)), min(nearest, (far, n))
    assert semi_hard
    expected = {(a, p, n) for (a, p), (n, _) in semi_hard.items()}
    assert found(x, labels, "semi-hard", margin) == expected
    assert found(x, labels, "hard") == {(a, p[1], n[1]) for a, (p, n) in hard.items()}


def test_random_triplets_are_drawn_from_all():
    x, labels = batch(1)
    every = {t[:3] for t in loops(x, labels)}
    drawn, rng = set(), np.random.default_rng(0)
    for _ in range(100):
        some = found(x, labels, "random", generator=rng)
        assert {t[:2] for t in some} == {t[:2] for t in every}
        assert len(some) == len({t[:2] for t in some})
        drawn |= some
    assert drawn == every


def test_tensors_of_both_engines_and_batches_by_identity():
    """All pairs of a batch that is balanced: identities · samples anchors, samples - 1 partners."""
    labels = np.repeat(np.arange(6), 5)
    (chosen, *_) = data.IdentityBatchSampler(labels, 3, 4)
    x = np.random.default_rng(0).standard_normal((12, 3))
    triplets = models.mine_triplets(Tensor(x), labels[chosen], "random")
    assert len(triplets.anchor) == 3 * 4 * 3
    for kind in ("semi-hard", "hard"):
        ours = models.mine_triplets(Tensor(x), labels[chosen], kind)
        theirs = models.mine_triplets(torch.tensor(x), labels[chosen], kind)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.int64


@pytest.mark.parametrize("kind", models.triplets.KINDS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], []])
def test_nothing_to_choose(kind, labels):
    x, labels = np.zeros((len(labels), 2)), np.array(labels, np.int64)
    triplets = models.mine_triplets(x, labels, kind)
    assert [len(one) for one in triplets] == [0, 0, 0]
    assert np.isnan(models.active_share(x, triplets))


def test_share_of_active_triplets():
    x = np.array([[0.0], [1.0], [1.1], [9.0]])
    anchor, positive = np.array([0, 0]), np.array([1, 1])
    triplets = Triplets(anchor, positive, np.array([2, 3]))
    assert models.active_share(x, triplets, 0.2) == 0.5
    assert models.active_share(x, triplets, 0.05) == 0
    semi_hard = models.mine_triplets(*batch(2), margin=0.5)
    assert models.active_share(batch(2)[0], semi_hard, 0.5) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: models.mine_triplets(x, y, "soft"), "kind must be one of 'all', 'random'"),
        (lambda x, y: models.mine_triplets(x, y, margin=-1), "margin must be at least 0"),
        (lambda x, y: models.mine_triplets(x[0], y), r"vectors must have shape \(n, d\)"),
        (lambda x, y: models.mine_triplets(x, y[1:]), r"labels must be integers \(9,\)"),
        (lambda x, y: models.mine_triplets(x, y / 2), "labels must be integers"),
    ],
)
def test_mining_refuses(call, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        call(*batch(0))
