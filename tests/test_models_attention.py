"""Local and hashed attention against masks over all pairs, on both engines, with gradients."""

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import models, nn
from dlnotes.autograd import tensor


def both(function, *arrays):
    """Run a function on both engines; values and gradients must agree, and ours come back."""
    ours = [tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = function(*ours), function(*theirs)
    h.assert_close(y.data, expected, np.float64, factor=100)
    dy = h.draw(9, y.shape, np.float64)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    for a, b in zip(ours, theirs, strict=True):
        h.assert_close(a.grad, b.grad, np.float64, factor=1000)
    return y, [a.grad for a in ours]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("length", "window"), [(1, 2), (6, 2), (7, 3), (10, 1), (5, 9)])
def test_local_attention_is_a_band(length, window, is_causal):
    arrays = [h.draw(i, (2, 3, length, d), np.float64) for i, d in enumerate((4, 4, 5))]
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    band = np.abs(distance) <= window
    band &= (distance >= 0) if is_causal else True
    y, gradients = both(lambda *x: models.local_attention(*x, window, is_causal), *arrays)
    inputs = [tensor(a, requires_grad=True) for a in arrays]
    expected = nn.functional.scaled_dot_product_attention(*inputs, band)
    np.testing.assert_allclose(y.data, expected.data, rtol=1e-9, atol=1e-12)
    expected.backward(h.draw(9, y.shape, np.float64))
    for gradient, x in zip(gradients, inputs, strict=True):
        np.testing.assert_allclose(gradient, x.grad, rtol=1e-9, atol=1e-12)


def hashed_loops(x, value, buckets, chunk, is_causal):
    """Reformer's attention, a query at a time; buckets (rounds, n, length)."""
    n, length, width = x.shape
    rounds = []
    for bucket in buckets:
        y, total = np.zeros(value.shape), np.zeros((n, length, 1))
        for sample in range(n):
            order = sorted(range(length), key=lambda i: (bucket[sample, i], i))
            rank = {i: r for r, i in enumerate(order)}
            for i in range(length):
                reach = [
                    j for j in range(length)
                    if bucket[sample, j] == bucket[sample, i]
                    and 0 <= rank[i] // chunk - rank[j] // chunk <= 1
                    and not (is_causal and j > i)
                ]  # fmt: skip
                scores = np.array([
                    x[sample, i] @ x[sample, j] / np.linalg.norm(x[sample, j]) / width**0.5
                    - 1e5 * (i == j) for j in reach
                ])  # fmt: skip
                largest = scores.max()
                e = np.exp(scores - largest)
                y[sample, i] = e @ value[sample, reach] / e.sum()
                total[sample, i] = largest + np.log(e.sum())
        rounds.append((y, total))
    totals = np.stack([total for _, total in rounds])
    share = np.exp(totals - totals.max(axis=0))
    return (share * np.stack([y for y, _ in rounds])).sum(axis=0) / share.sum(axis=0)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("chunk", "buckets", "rounds"), [(12, 2, 1), (4, 4, 1), (3, 2, 3)])
def test_hashed_attention_as_by_loops(chunk, buckets, rounds, is_causal):
    x, value = (h.draw(i, (2, 12, 5), np.float64) for i in range(2))
    settings = (buckets, chunk, rounds, is_causal)
    y, _ = both(
        lambda a, b: models.lsh_attention(a, b, *settings, np.random.default_rng(3)), x, value
    )
    drawn = models.lsh_buckets(x, buckets, rounds, np.random.default_rng(3))
    expected = hashed_loops(x, value, drawn, chunk, is_causal)
    np.testing.assert_allclose(y.data, expected, rtol=1e-8, atol=1e-10)


def test_like_vectors_share_a_bucket():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 200, 8))
    near, far = x + 0.1 * rng.standard_normal(x.shape), rng.standard_normal(x.shape)
    hashes = models.lsh_buckets(np.concatenate([x, near, far]), 16, 20, rng)
    assert hashes.shape == (20, 3, 200)
    assert hashes.min() == 0
    assert hashes.max() == 15
    assert (hashes[:, 0] == hashes[:, 1]).mean() > 0.7
    assert (hashes[:, 0] == hashes[:, 2]).mean() < 0.15  # 1/16 by chance
    opposite = models.lsh_buckets(np.concatenate([x, -x]), 16, 1, np.random.default_rng(1))
    np.testing.assert_array_equal((opposite[0, 0] + 8) % 16, opposite[0, 1])


X = np.ones((1, 6, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: models.local_attention(x, x, x, 0), "window must be at least 1"),
        (lambda x: models.local_attention(x, x[:, :5], x, 2), "query and key must have one shape"),
        (lambda x: models.lsh_attention(x, x, 2, 4), "chunk must divide the length"),
        (lambda x: models.lsh_attention(x, x[:, :5], 2, 3), "chunk must divide the length, and"),
        (lambda x: models.lsh_attention(x, x, 3, 3), "buckets must be even, got 3"),
        (lambda x: models.lsh_buckets(x[0], 2), r"vectors must have shape \(n, length, e\)"),
    ],
)
def test_bad_input(call, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        call(tensor(X))
