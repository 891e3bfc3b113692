"""Attention kernels against torch, the loops and numeric gradients."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as torch_F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlnotes import check, kernels
from dlnotes.autograd import tensor
from dlnotes.nn import functional as F

MASKS = ["none", "causal", "bool", "bool row", "float", "float row", "-inf", "all -inf"]
sizes = st.tuples(h.shapes(0, 2, 1, 3), *(st.integers(1, 6) for _ in range(4)))


def mask_of(kind, shape, dtype, seed):
    """Return a mask for scores of `shape`; in some of them whole rows are masked."""
    rng = np.random.default_rng(seed)
    if kind in ("none", "causal"):
        return None
    if kind.endswith("row"):
        shape = (*shape[:-2], 1, shape[-1])
    if kind.startswith("bool"):
        return rng.random(shape) < 0.6
    mask = rng.standard_normal(shape).astype(dtype)
    if kind == "-inf":
        mask[rng.random(shape) < 0.4] = -np.inf
    return np.full_like(mask, -np.inf) if kind == "all -inf" else mask


def inputs_of(size, dtype, scale=1.0, layout="contiguous", seed=0):
    batch, length, keys, e, v = size
    shapes = ((*batch, length, e), (*batch, keys, e), (*batch, keys, v))
    return [h.draw(seed + i, shape, dtype, scale, layout) for i, shape in enumerate(shapes)]


def torch_result(arrays, mask, causal, scale, dy):
    """Return torch's output and gradients, the mask's among them if it holds floats."""
    tensors = [torch.tensor(a.copy(order="C"), requires_grad=True) for a in arrays]
    torch_mask = None if mask is None else torch.tensor(mask)
    if mask is not None and mask.dtype != np.bool_:
        torch_mask.requires_grad_()
        tensors.append(torch_mask)
    y = torch_F.scaled_dot_product_attention(
        *tensors[:3], attn_mask=torch_mask, is_causal=causal, scale=scale
    )
    y.backward(torch.tensor(dy))
    return y, [t.grad for t in tensors]


@settings(deadline=None, max_examples=150)
@given(
    sizes,
    st.sampled_from(MASKS),
    st.sampled_from([None, 0.3]),
    st.integers(1, 4),
    h.dtypes,
    h.layouts,
    h.seeds,
)
def test_parity_with_torch(size, kind, scale, block_size, dtype, layout, seed):
    seed //= 2
    arrays = inputs_of(size, dtype, 1.0, layout, seed)
    batch, length, keys, _, v = size
    mask = mask_of(kind, (*batch, length, keys), dtype, seed)
    causal = kind == "causal"
    dy = h.draw(seed + 5, (*batch, length, v), dtype)
    expected, torch_gradients = torch_result(arrays, mask, causal, scale, dy)
    given_arrays = arrays if mask is None else [*arrays, mask]
    for name, extra in (("scaled_dot_product", {}), ("blocked", {"block_size": block_size})):
        forward = getattr(kernels, f"{name}_attention")
        backward = getattr(kernels, f"{name}_attention_backward")
        options = {"is_causal": causal, "scale": scale, **extra}
        y = h.assert_pure(lambda *a, f=forward, o=options: f(*a, **o), *given_arrays)
        h.assert_close(y, expected, dtype, 3, factor=2)
        gradients = h.assert_pure(lambda *a, f=backward, o=options: f(*a, **o), dy, *given_arrays)
        assert (gradients[3] is None) == (len(torch_gradients) == 3)
        for ours, theirs in zip(gradients, torch_gradients, strict=False):
            h.assert_close(ours, theirs, dtype, 20, factor=2)


@settings(deadline=None, max_examples=40)
@given(sizes, st.sampled_from(MASKS), h.dtypes, h.seeds)
def test_equal_to_the_loops(size, kind, dtype, seed):
    arrays = inputs_of(size, dtype, seed=seed // 2)
    mask = mask_of(kind, (*size[0], *size[1:3]), dtype, seed)
    options = {"attn_mask": mask, "is_causal": kind == "causal"}
    expected = kernels.scaled_dot_product_attention_loops(*arrays, **options)
    y = kernels.scaled_dot_product_attention(*arrays, **options)
    h.assert_close(y, expected, dtype, 3, factor=2)


@settings(deadline=None, max_examples=40)
@given(sizes, st.sampled_from([None, "causal"]), h.dtypes, h.seeds)
def test_inputs_of_1e4(size, kind, dtype, seed):
    """Entries ±1e4 and the scale 1/4: the scores are exact, so that ties are ties for all."""
    rng = np.random.default_rng(seed)
    batch, length, keys, _, v = size
    query, key = ((1e4 * rng.choice([-1, 1], (*batch, n, 4))).astype(dtype) for n in (length, keys))
    value = h.draw(seed // 2, (*batch, keys, v), dtype, 1e4)
    dy = h.draw(seed // 2 + 1, (*batch, length, v), dtype)
    causal = kind == "causal"
    # torch's default goes wrong here: its backward rounds log Σ eˢ to the digits of 1e8.
    exact = [a.astype(np.float64) for a in (query, key, value)]
    with sdpa_kernel(SDPBackend.MATH):
        expected, torch_gradients = torch_result(exact, None, causal, 0.25, dy.astype(np.float64))
    for name, extra in (("scaled_dot_product", {}), ("blocked", {"block_size": 2})):
        arrays, options = (query, key, value), {"is_causal": causal, "scale": 0.25, **extra}
        y = getattr(kernels, f"{name}_attention")(*arrays, **options)
        h.assert_close(y, expected.detach().numpy().astype(dtype), dtype, 1e4)
        gradients = getattr(kernels, f"{name}_attention_backward")(dy, *arrays, **options)
        for ours, theirs in zip(gradients, torch_gradients, strict=False):
            h.assert_close(ours, theirs.numpy().astype(dtype), dtype, 1e9)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", ["scaled_dot_product", "blocked"])
def test_gradients(name, kind):
    arrays = inputs_of(((2,), 3, 5, 4, 2), np.float64)
    mask = mask_of(kind, (2, 3, 5), np.float64, 3)
    forward = getattr(kernels, f"{name}_attention")
    backward = getattr(kernels, f"{name}_attention_backward")
    options = {"is_causal": kind == "causal", "scale": 0.7}
    if name == "blocked":
        options["block_size"] = 2
    oracle = {"is_causal": kind == "causal", "scale": 0.7}
    if kind == "float":  # the mask, too, is differentiated
        check.gradcheck(
            lambda query, key, value, mask: forward(query, key, value, mask, **options),
            (*arrays, mask),
            backward=lambda dy, *inputs: backward(dy, *inputs, **options),
            expected=lambda *inputs: kernels.scaled_dot_product_attention_loops(*inputs, **oracle),
        )
        return
    check.gradcheck(
        lambda query, key, value: forward(query, key, value, mask, **options),
        tuple(arrays),
        backward=lambda dy, *inputs: backward(dy, *inputs, mask, **options)[:3],
        expected=lambda *inputs: kernels.scaled_dot_product_attention_loops(
            *inputs, mask, **oracle
        ),
    )


@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (3, 1), (2, 1, 1), (1, 3, 5), (5,), ()])
def test_gradient_of_a_broadcast_mask(shape):
    query, key, _ = inputs_of(((2,), 3, 5, 4, 2), np.float64)
    mask = h.draw(7, shape, np.float64)
    value, dy = h.draw(8, (2, 5, 2), np.float64), h.draw(9, (2, 3, 2), np.float64)
    for name, extra in (("scaled_dot_product", {}), ("blocked", {"block_size": 2})):
        backward = getattr(kernels, f"{name}_attention_backward")
        dmask = backward(dy, query, key, value, mask, **extra)[3]
        numeric = h.numeric_gradient(
            lambda m: (kernels.scaled_dot_product_attention(query, key, value, m) * dy).sum(), mask
        )
        assert dmask.shape == shape
        np.testing.assert_allclose(dmask, numeric, atol=1e-8)


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "-inf"])
def test_weights(kind):
    query, key, _ = inputs_of(((2,), 3, 5, 4, 2), np.float64)
    mask = mask_of(kind, (2, 3, 5), np.float64, 3)
    options = {"attn_mask": mask, "is_causal": kind == "causal"}
    weights = h.assert_pure(lambda *a: kernels.attention_weights(*a, **options), query, key)
    eye = np.broadcast_to(np.eye(5), (2, 5, 5)).copy()
    expected = kernels.scaled_dot_product_attention_loops(query, key, eye, **options)
    h.assert_close(weights, expected, np.float64)
    check.gradcheck(
        lambda query, key: kernels.attention_weights(query, key, **options),
        (query, key),
        backward=lambda dy, *a: kernels.attention_weights_backward(dy, *a, **options)[:2],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_query_that_may_look_at_nothing_gets_0_and_gives_no_gradient(dtype):
    arrays = inputs_of(((), 2, 3, 4, 2), dtype)
    mask = np.array([[True, True, False], [False, False, False]])
    dy = np.ones((2, 2), dtype)
    for name in ("scaled_dot_product", "blocked"):
        y = getattr(kernels, f"{name}_attention")(*arrays, mask)
        dquery, *_ = getattr(kernels, f"{name}_attention_backward")(dy, *arrays, mask)
        assert y[0].all()
        assert dquery[0].all()
        assert not y[1].any()
        assert not dquery[1].any()


@pytest.mark.parametrize(
    "size",
    [((0,), 2, 3, 4, 2), ((), 0, 3, 4, 2), ((), 2, 0, 4, 2), ((), 2, 3, 0, 2), ((), 2, 3, 4, 0)],
)
def test_empty_axes(size):
    arrays = inputs_of(size, np.float32)
    for name in ("scaled_dot_product", "blocked"):
        y = getattr(kernels, f"{name}_attention")(*arrays)
        assert y.shape == (*size[0], size[1], size[4])
        gradients = getattr(kernels, f"{name}_attention_backward")(y, *arrays)
        assert [g.shape for g in gradients[:3]] == [a.shape for a in arrays]
        assert all(np.isfinite(g).all() for g in gradients[:3])


def test_permuted_keys_change_nothing_and_permuted_queries_permute_the_output():
    query, key, value = inputs_of(((2,), 5, 6, 4, 3), np.float64)
    order, rows = np.random.default_rng(0).permutation(6), np.array([3, 0, 4, 1, 2])
    y = kernels.scaled_dot_product_attention(query, key, value)
    for function in (kernels.scaled_dot_product_attention, kernels.blocked_attention):
        h.assert_close(function(query, key[:, order], value[:, order]), y, np.float64)
        h.assert_close(function(query[:, rows], key, value), y[:, rows], np.float64)


def test_not_a_number_passes_through():
    query, key, value = inputs_of(((), 2, 3, 4, 2), np.float32)
    query[0, 0] = np.nan
    for function in (kernels.scaled_dot_product_attention, kernels.blocked_attention):
        y = function(query, key, value)
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("kind", MASKS)
def test_on_the_tape(kind):
    arrays = inputs_of(((2,), 3, 5, 4, 2), np.float64)
    mask = mask_of(kind, (2, 3, 5), np.float64, 3)
    dy = h.draw(5, (2, 3, 2), np.float64)
    causal = kind == "causal"
    expected, torch_gradients = torch_result(arrays, mask, causal, None, dy)
    for function in (
        F.scaled_dot_product_attention,
        F.blocked_attention,
        lambda q, k, v, m, is_causal: F.attention_weights(q, k, m, is_causal) @ v,
    ):
        tensors = [tensor(a, requires_grad=True) for a in arrays]
        ours = mask
        if len(torch_gradients) == 4:
            ours = tensor(mask, requires_grad=True)
            tensors.append(ours)
        y = function(*tensors[:3], ours, is_causal=causal)
        h.assert_close(y.data, expected, np.float64, 3)
        y.backward(dy)
        for t, gradient in zip(tensors, torch_gradients, strict=True):
            h.assert_close(t.grad, gradient, np.float64, 10)


def test_dropped_weights():
    query, key, value = inputs_of(((), 1, 4, 2, 2), np.float64)
    rng = np.random.default_rng(0)
    ys = [
        F.scaled_dot_product_attention(query, key, value, None, 0.5, generator=rng).data
        for _ in range(1500)
    ]
    expected = kernels.scaled_dot_product_attention(query, key, value)
    np.testing.assert_allclose(np.mean(ys, axis=0), expected, atol=0.1)
    y = F.scaled_dot_product_attention(query, key, value, None, 1.0)
    assert not y.data.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("length", "dim"), [(0, 4), (1, 1), (7, 6), (5, 3)])
def test_sinusoidal_positions(length, dim, dtype):
    table = kernels.sinusoidal_positions(length, dim, dtype)
    expected = np.zeros((length, dim))
    for t in range(length):
        for i in range(dim):
            angle = t / 10000 ** ((i - i % 2) / dim)
            expected[t, i] = np.cos(angle) if i % 2 else np.sin(angle)
    h.assert_close(table, expected, dtype)


QUERY, KEY = np.zeros((2, 3, 4)), np.zeros((2, 5, 4))
BAD = {
    "a list": ((QUERY.tolist(), KEY, KEY), {}, TypeError, "query must be a NumPy array"),
    "half": ((QUERY.astype(np.float16), KEY, KEY), {}, TypeError, "query must be float32"),
    "dtypes": ((QUERY, KEY.astype(np.float32), KEY), {}, TypeError, "the same dtype"),
    "features": ((QUERY, KEY[..., :3], KEY), {}, ValueError, "the same leading axes and"),
    "batch": ((QUERY, KEY[:1], KEY[:1]), {}, ValueError, "the same leading axes and"),
    "one axis": ((QUERY[0, 0], KEY, KEY), {}, ValueError, "query must have at least 2 axes"),
    "values": ((QUERY, KEY, KEY[:, :4]), {}, ValueError, "one row for each key"),
    "mask shape": (
        *((QUERY, KEY, KEY), {"attn_mask": np.ones((3, 4), bool)}),
        *(ValueError, "attn_mask must broadcast"),
    ),
    "mask dtype": ((QUERY, KEY, KEY), {"attn_mask": np.ones((3, 5), int)}, TypeError, "bool or"),
    "mask precision": (
        *((QUERY, KEY, KEY), {"attn_mask": np.ones((3, 5), np.float32)}),
        *(TypeError, "the same dtype"),
    ),
    "two masks": (
        *((QUERY, KEY, KEY), {"attn_mask": np.ones((3, 5), bool), "is_causal": True}),
        *(ValueError, "either attn_mask or is_causal"),
    ),
    "a list of masks": ((QUERY, KEY, KEY), {"attn_mask": [True]}, TypeError, "attn_mask must be"),
    "scale": ((QUERY, KEY, KEY), {"scale": np.nan}, ValueError, "scale must be finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    arrays, options, error, message = BAD[case]
    for name in (
        "scaled_dot_product_attention",
        "scaled_dot_product_attention_loops",
        "blocked_attention",
    ):
        with h.shapes_unchecked(), pytest.raises(error, match=message):
            getattr(kernels, name)(*arrays, **options)


def test_bad_settings():
    dy = np.zeros((2, 3, 5))
    with h.shapes_unchecked():
        with pytest.raises(ValueError, match="dy must have shape"):
            kernels.scaled_dot_product_attention_backward(dy, QUERY, KEY, KEY)
        with pytest.raises(TypeError, match="dy and query must have the same dtype"):
            kernels.attention_weights_backward(dy.astype(np.float32), QUERY, KEY)
        with pytest.raises(ValueError, match="block_size must be at least 1"):
            kernels.blocked_attention(QUERY, KEY, KEY, block_size=0)
        with pytest.raises(ValueError, match="dim must be at least 1"):
            kernels.sinusoidal_positions(3, 0)
        with pytest.raises(TypeError, match="dtype must be float32"):
            kernels.sinusoidal_positions(3, 2, np.int64)
        with pytest.raises(ValueError, match="dropout_p must be in"):
            F.scaled_dot_product_attention(QUERY, KEY, KEY, None, 1.5)
