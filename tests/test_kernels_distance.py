"""Norms, cosines, distances, logsumexp and gated linear units, against torch and by hand."""

import math

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels

ORDERS = [0, 0.5, 1, 1.5, 2, 3, math.inf]


def compare(ours, backward, theirs, *arrays, factor=20.0):
    """Values and gradients of a kernel and of torch."""
    tensors = [torch.tensor(np.array(a), requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    y = h.assert_pure(ours, *arrays)
    dtype = arrays[0].dtype
    h.assert_close(np.asarray(y), expected, dtype, factor=factor)
    dy = np.asarray(np.cos(np.arange(np.size(y))).reshape(np.shape(y)), dtype)
    gradients = h.assert_pure(backward, dy, *arrays)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    expected.backward(torch.tensor(dy))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        h.assert_close(np.asarray(gradient), tensor.grad, dtype, factor=factor)


@pytest.mark.parametrize("p", ORDERS[1:])  # torch gives p = 0 no gradient
@settings(deadline=None, max_examples=15)
@given(h.shapes(1, 3, 1, 5), st.data(), st.booleans(), h.dtypes, h.layouts, h.seeds)
def test_vector_norm_as_torch(p, shape, data, keepdim, dtype, layout, seed):
    dims = st.sets(st.integers(-len(shape), -1), min_size=1).map(tuple)
    dim = data.draw(st.one_of(st.none(), dims, st.integers(-len(shape), -1)))
    compare(
        lambda x: kernels.vector_norm(x, p, dim, keepdim),
        lambda dy, x: kernels.vector_norm_backward(dy, x, p, dim, keepdim),
        lambda x: torch.linalg.vector_norm(x, p, dim, keepdim),
        h.draw(seed, shape, dtype, layout=layout),
    )


@pytest.mark.parametrize("p", ORDERS[2:])
@settings(deadline=None, max_examples=15)
@given(h.shapes(1, 3, 1, 5), st.data(), h.dtypes, h.layouts, h.seeds)
def test_normalize_as_torch(p, shape, data, dtype, layout, seed):
    dim = data.draw(st.integers(-len(shape), -1))
    compare(
        lambda x: kernels.normalize(x, p, dim),
        lambda dy, x: kernels.normalize_backward(dy, x, p, dim),
        lambda x: F.normalize(x, p, dim),
        h.draw(seed, shape, dtype, layout=layout),
        factor=200,
    )


PAIRS = [((4, 3), (4, 3)), ((2, 1, 3), (5, 3)), ((3,), (4, 3)), ((1, 3), (2, 4, 1))]


@pytest.mark.parametrize("shapes", PAIRS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_broadcast_as_in_torch(shapes, dtype):
    a, b = (h.draw(i, shape, dtype) for i, shape in enumerate(shapes))
    compare(
        lambda x, y: kernels.cosine_similarity(x, y, -1),
        lambda dy, x, y: kernels.cosine_similarity_backward(dy, x, y, -1),
        lambda x, y: F.cosine_similarity(x, y, -1),
        *(a, b),
    )
    for p in (1, 2.0, 3, math.inf):
        for keepdim in (False, True):
            compare(
                lambda x, y, p=p, k=keepdim: kernels.pairwise_distance(x, y, p, 1e-6, k),
                lambda dy, x, y, p=p, k=keepdim: kernels.pairwise_distance_backward(
                    dy, x, y, p, 1e-6, k
                ),
                lambda x, y, p=p, k=keepdim: F.pairwise_distance(x, y, p, 1e-6, k),
                *(a, b),
            )


@pytest.mark.parametrize("mode", [*kernels.distance.COMPUTE_MODES])
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(
    "shapes", [((4, 3), (5, 3)), ((2, 1, 4, 3), (3, 30, 3)), ((0, 3), (2, 3)), ((2, 0), (3, 0))]
)
def test_cdist_as_torch(mode, p, shapes):
    a, b = (h.draw(i, shape, np.float64) for i, shape in enumerate(shapes))
    compare(
        lambda x, y: kernels.cdist(x, y, p, mode),
        lambda dy, x, y: kernels.cdist_backward(dy, x, y, p, mode),
        lambda x, y: torch.cdist(x, y, p, mode),
        *(a, b),
        factor=1e4 if p == 2 else 100,  # products cancel where points are near
    )


def test_cdist_works_through_many_rows_in_pieces():
    a, b = h.draw(0, (700, 6), np.float64), h.draw(1, (130, 6), np.float64)
    expected = np.linalg.norm(a[:, None] - b, axis=-1)
    exact = kernels.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_allclose(exact, expected, rtol=1e-13)
    np.testing.assert_allclose(kernels.cdist(a, b), expected, rtol=1e-7)
    dy = h.draw(2, exact.shape, np.float64)
    pieces = kernels.cdist_backward(dy, a, b, compute_mode="donot_use_mm_for_euclid_dist")
    for piece, product in zip(pieces, kernels.cdist_backward(dy, a, b), strict=True):
        np.testing.assert_allclose(piece, product, rtol=1e-8, atol=1e-8)


def test_near_points_need_differences():
    """What the docstring says of products: a distance of 1e-4 beside the number 1000 is lost."""
    a = np.float32([[1000.0], [1000.0625]])
    exact = kernels.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
    assert exact[0, 1] == 0.0625
    assert kernels.cdist(a, a, compute_mode="use_mm_for_euclid_dist")[0, 1] != 0.0625


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_numeric_gradients(p):
    a, b = h.draw(3, (3, 4), np.float64), h.draw(4, (3, 4), np.float64)
    for name, arrays, chosen in [
        ("vector_norm", (a,), {"ord": p, "dim": 1}),
        ("normalize", (a,), {"p": p}),
        ("cosine_similarity", (a, b), {}),
        ("pairwise_distance", (a, b), {"p": p}),
        ("cdist", (a, b), {"p": p}),
        ("logsumexp", (a,), {"dim": 1}),
        ("glu", (a,), {"dim": 1}),
    ]:
        kernel, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
        check.gradcheck(
            lambda *x, k=kernel, s=chosen: k(*x, **s),
            arrays,
            backward=lambda dy, *x, k=backward, s=chosen: k(dy, *x, **s),
        )


def test_by_hand():
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert kernels.vector_norm(x, dim=1).tolist() == [5, 0]
    assert kernels.vector_norm(x, 1) == 7
    assert kernels.vector_norm(x, 0) == 2
    assert kernels.vector_norm(x, math.inf, dim=0).tolist() == [3, 4]
    np.testing.assert_allclose(kernels.normalize(x), [[0.6, 0.8], [0, 0]])
    a, b = np.array([[1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 2.0], [-3.0, 0.0]])
    np.testing.assert_allclose(kernels.cosine_similarity(a, b), [0.5**0.5, 0, -1], atol=1e-15)
    np.testing.assert_allclose(kernels.cdist(a, b), [[1, 5**0.5, 4]])
    assert kernels.logsumexp(np.log([1.0, 2, 5]), 0) == pytest.approx(math.log(8))
    np.testing.assert_allclose(kernels.glu(np.array([2.0, -3, 0, 0])), [1, -1.5])


@pytest.mark.parametrize("p", ORDERS)
def test_at_zero_gradients_are_finite(p):
    zero = np.zeros((2, 3))
    assert not kernels.vector_norm_backward(np.ones(2), zero, p, 1).any()
    assert np.isfinite(kernels.normalize_backward(np.ones((2, 3)), zero, p)).all()
    for gradient in kernels.cdist_backward(np.ones((2, 2)), zero, zero, p):
        assert not gradient.any()
    for gradient in kernels.cosine_similarity_backward(np.ones(2), zero, zero):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logsumexp_at_the_ends(dtype):
    inf = np.inf
    rows = np.array([[1e4, 1e4], [-1e4, -1e4], [-inf, 0], [-inf, -inf], [inf, 0], [inf, 1e5],
                     [np.nan, 1e5]], dtype)  # fmt: skip
    compare(
        lambda x: kernels.logsumexp(x, 1),
        lambda dy, x: kernels.logsumexp_backward(dy, x, 1),
        lambda x: torch.logsumexp(x, 1),
        rows,
    )
    assert kernels.logsumexp(np.zeros((2, 0), dtype), 1).tolist() == [-inf, -inf]
    assert kernels.logsumexp(rows[:2], (0, 1), keepdim=True).shape == (1, 1)


@settings(deadline=None, max_examples=30)
@given(h.shapes(1, 3, 1, 4), st.data(), h.dtypes, h.scales, h.seeds)
def test_glu_as_torch(shape, data, dtype, scale, seed):
    dim = data.draw(st.integers(-len(shape), -1))
    shape = tuple(2 * n if i == dim % len(shape) else n for i, n in enumerate(shape))
    x = h.draw(seed, shape, dtype, scale)
    tensor = torch.tensor(x, requires_grad=True)
    expected = F.glu(tensor, dim)
    h.assert_close(kernels.glu(x, dim), expected, dtype, scale)
    dy = h.draw(seed + 1, expected.shape, dtype)
    expected.backward(torch.tensor(dy))
    h.assert_close(kernels.glu_backward(dy, x, dim), tensor.grad, dtype, scale)


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.vector_norm(X, -1), ValueError, "p must be at least 0, got -1"),
        (lambda: kernels.vector_norm(X, 2, (0, -2)), ValueError, "dim must name each axis at most"),
        (lambda: kernels.vector_norm(X, 2, 2), ValueError, "dim must be in -2 … 1, got 2"),
        (lambda: kernels.vector_norm_backward(X, X, 2, 1), ValueError, r"dy must have shape \(2,"),
        (lambda: kernels.normalize(X, eps=-1), ValueError, "eps must be at least 0"),
        (lambda: kernels.normalize(X[0]), ValueError, "dim must be in -1 … 0, got 1"),
        (lambda: kernels.cosine_similarity(X, X.T), ValueError, "x1 and x2 must broadcast"),
        (lambda: kernels.cdist(X, X.T), ValueError, "points of one length"),
        (lambda: kernels.cdist(X, X, compute_mode="mm"), ValueError, "compute_mode must be one"),
        (lambda: kernels.cdist(X[0], X), ValueError, "x1 must have at least 2 axes"),
        (lambda: kernels.cdist(np.ones((2, 4, 3)), np.ones((3, 4, 3))), ValueError, "first axes"),
        (lambda: kernels.logsumexp(X, 3), ValueError, "dim must be in -2 … 1"),
        (lambda: kernels.glu(X), ValueError, "even length along dim=1"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
