"""Recurrent kernels against torch, against their loops, and against numeric gradients."""

from functools import partial

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlnotes import kernels
from dlnotes.check import gradcheck

GATES = {"rnn": 1, "simple_gru": 2, "gru": 3, "lstm": 4}
TORCH = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
LAST = ("dh", "dc")  # names of the gradients of the last states

kinds = pytest.mark.parametrize("kind", GATES)
sizes = st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(1, 4), st.integers(1, 5))


def function(kind, suffix=""):
    return getattr(kernels, f"{kind}{suffix}")


def states(kind, seed, batch, size, dtype=np.float64, layout="contiguous"):
    count = 2 if kind == "lstm" else 1
    return [h.draw(seed + i, (batch, size), dtype, 1, layout) for i in range(count)]


def weights(kind, seed, n_in, size, dtype=np.float64, layout="contiguous", bias=True):
    rows = GATES[kind] * size
    shapes = [(rows, n_in), (rows, size), *([(rows,)] * 2 if bias else [])]
    return [h.draw(seed + i, shape, dtype, 0.5, layout) for i, shape in enumerate(shapes)]


def draw_lengths(data, count, batch, low=0):
    """Draw lengths of sequences, or None for no padding."""
    if not data.draw(st.booleans(), label="padded"):
        return None
    return np.array(
        data.draw(st.lists(st.integers(low, count), min_size=batch, max_size=batch)), np.int64
    )


def gradients_of(kind, dy, inputs, last, names=LAST, **keywords):
    """Call a backward function, which must leave its arrays as they are; `last` go by name."""
    count = 1 + len(inputs)

    def call(*arrays):
        named = dict(zip(names, arrays[count:], strict=False))
        return function(kind, "_backward")(*arrays[:count], **named, **keywords)

    return h.assert_pure(call, dy, *inputs, *last)


# ---- against torch ---------------------------------------------------------------------------


def by_torch(kind, x, first, both, nonlinearity, lengths, dy, last):
    """Run a bidirectional layer: outputs, last states, and the gradients of all arrays given."""
    settings = {"nonlinearity": nonlinearity} if kind == "rnn" else {}
    bias = len(both[0]) == 4
    size = first[0][0].shape[1]
    layer = TORCH[kind](x.shape[2], size, bias=bias, bidirectional=True, **settings)
    layer = layer.to(torch.tensor(x[:0].copy()).dtype)
    for parameter, value in zip(layer.parameters(), (*both[0], *both[1]), strict=True):
        parameter.data = torch.tensor(value.copy(order="C"))
    x = torch.tensor(x.copy(order="C"), requires_grad=True)
    # (state, direction): torch stacks the directions.
    leaves = [torch.tensor(np.stack(pair), requires_grad=True) for pair in zip(*first, strict=True)]
    given_states = tuple(leaves) if kind == "lstm" else leaves[0]
    if lengths is None:
        y, after = layer(x, given_states)
    else:
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        y, after = layer(packed, given_states)
        y, _ = pad_packed_sequence(y, total_length=len(x))
    after = after if kind == "lstm" else (after,)
    loss = (y * torch.tensor(np.concatenate(dy, axis=2))).sum()
    for state, gradients in zip(after, zip(*last, strict=True), strict=True):
        loss = loss + (state * torch.tensor(np.stack(gradients))).sum()
    loss.backward()
    gradients = [x.grad, *[leaf.grad for leaf in leaves], *[p.grad for p in layer.parameters()]]
    return y, after, gradients


@pytest.mark.parametrize("kind", TORCH)
@settings(deadline=None, max_examples=40)
@given(sizes, st.data(), h.dtypes, h.layouts, h.scales, st.booleans(), h.seeds)
def test_parity_with_torch(kind, shape, data, dtype, layout, scale, with_bias, seed):
    """Both directions, padded or not: output, last states and all gradients."""
    count, batch, n_in, size = shape
    batch = max(1, batch)
    nonlinearity = data.draw(st.sampled_from(["tanh", "relu"])) if kind == "rnn" else "tanh"
    scale = min(scale, 1.0) if nonlinearity == "relu" else scale
    lengths = draw_lengths(data, count, batch, low=1)
    x = h.draw(seed, (count, batch, n_in), dtype, scale, layout)
    both = [weights(kind, seed + k, n_in, size, dtype, layout, with_bias) for k in (1, 9)]
    first, last = (
        [states(kind, seed + k, batch, size, dtype) for k in pair] for pair in ((20, 30), (40, 50))
    )
    dy = [h.draw(seed + k, (count, batch, size), dtype) for k in (60, 70)]
    extra = {"nonlinearity": nonlinearity} if kind == "rnn" else {}

    y, after, expected = by_torch(kind, x, first, both, nonlinearity, lengths, dy, last)
    tolerance = {"dtype": dtype, "scale": 10 * scale}
    total_dx = 0
    for k, reverse in enumerate((False, True)):
        keywords = {**extra, "lengths": lengths, "reverse": reverse}
        inputs = [x, *first[k], *both[k]]
        output, *finals = h.assert_pure(partial(function(kind), **keywords), *inputs)
        dx, *gradients = gradients_of(kind, dy[k], inputs, last[k], **keywords)
        h.assert_close(output, y[..., k * size : (k + 1) * size], **tolerance)
        for final, state in zip(finals, after, strict=True):
            h.assert_close(final, state[k], **tolerance)
        count_of_states = len(finals)
        for d, theirs in zip(gradients[:count_of_states], expected[1:], strict=False):
            h.assert_close(d, theirs[k], **tolerance)
        own = gradients[count_of_states:]
        assert all((d is None) == (i >= 2 and not with_bias) for i, d in enumerate(own))
        own = [d for d in own if d is not None]
        theirs = expected[1 + count_of_states + k * len(own) :][: len(own)]
        for d, wanted in zip(own, theirs, strict=True):
            h.assert_close(d, wanted, **tolerance)
        total_dx = total_dx + dx
    h.assert_close(total_dx, expected[0], **tolerance)


CELLS = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


@pytest.mark.parametrize("kind", CELLS)
@settings(deadline=None, max_examples=30)
@given(sizes, st.booleans(), h.dtypes, h.layouts, h.scales, st.booleans(), h.seeds)
def test_cells_as_torch(kind, shape, relu, dtype, layout, scale, with_bias, seed):
    _, batch, n_in, size = shape
    x = h.draw(seed, (batch, n_in), dtype, scale, layout)
    first = states(kind, seed + 1, batch, size, dtype, layout)
    arrays = weights(kind, seed + 3, n_in, size, dtype, layout, with_bias)
    settings = {"nonlinearity": "relu" if relu else "tanh"} if kind == "rnn" else {}
    last = states(kind, seed + 9, batch, size, dtype)
    inputs = (x, *first, *arrays)
    result = h.assert_pure(partial(function(kind, "_cell"), **settings), *inputs)
    result = result if isinstance(result, tuple) else (result,)
    gradients = gradients_of(f"{kind}_cell", last[0], inputs, last[1:], ["dc"], **settings)

    cell = CELLS[kind](n_in, size, bias=with_bias, **settings).to(torch.tensor(x[:0].copy()).dtype)
    for parameter, value in zip(cell.parameters(), arrays, strict=True):
        parameter.data = torch.tensor(value.copy(order="C"))
    leaves = [torch.tensor(a.copy(order="C"), requires_grad=True) for a in (x, *first)]
    expected = cell(leaves[0], tuple(leaves[1:]) if kind == "lstm" else leaves[1])
    expected = expected if kind == "lstm" else (expected,)
    for ours, theirs in zip(result, expected, strict=True):
        h.assert_close(ours, theirs, dtype, 10 * scale)
    sum((e * torch.tensor(d)).sum() for e, d in zip(expected, last, strict=True)).backward()
    given_gradients = [d for d in gradients if d is not None]
    for ours, leaf in zip(given_gradients, (*leaves, *cell.parameters()), strict=True):
        h.assert_close(ours, leaf.grad, dtype, 10 * scale)


# ---- against the loops, and other ways to the same -------------------------------------------


@kinds
@settings(deadline=None, max_examples=25)
@given(sizes, st.data(), st.booleans(), h.dtypes, st.booleans(), h.seeds)
def test_equals_the_loops(kind, shape, data, reverse, dtype, with_bias, seed):
    count, batch, n_in, size = shape
    x = h.draw(seed, (count, batch, n_in), dtype)
    arrays = [
        *states(kind, seed + 1, batch, size, dtype),
        *weights(kind, seed + 3, n_in, size, dtype, bias=with_bias),
    ]
    keywords = {"lengths": draw_lengths(data, count, batch), "reverse": reverse}
    expected = function(kind, "_loops")(x, *arrays, **keywords)
    for ours, loops in zip(function(kind)(x, *arrays, **keywords), expected, strict=True):
        h.assert_close(ours, loops, dtype, 10)


@kinds
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_is_padded(kind, reverse):
    """A packed sequence gives the rows of the padded one, gradients too."""
    lengths = np.array([4, 2, 2, 1])
    rows, batch_sizes, _ = kernels.recurrent.packed_rows(lengths, 4)
    np.testing.assert_array_equal(batch_sizes, [4, 3, 1, 1])
    x, dy = h.draw(0, (4, 4, 3), np.float64), h.draw(1, (4, 4, 5), np.float64)
    arrays = [*states(kind, 2, 4, 5), *weights(kind, 4, 3, 5)]
    last = dict(zip(LAST, states(kind, 8, 4, 5), strict=False))
    flat = x.reshape(16, 3)[rows], dy.reshape(16, 5)[rows]
    padded = {"lengths": lengths, "reverse": reverse}
    packed = {"batch_sizes": batch_sizes, "reverse": reverse}
    y, *finals = function(kind)(x, *arrays, **padded)
    y_packed, *finals_packed = function(kind)(flat[0], *arrays, **packed)
    np.testing.assert_array_equal(y.reshape(16, 5)[rows], y_packed)
    assert not np.delete(y.reshape(16, 5), rows, axis=0).any()
    np.testing.assert_array_equal(finals, finals_packed)
    dx, *gradients = function(kind, "_backward")(dy, x, *arrays, **last, **padded)
    dx_packed, *gradients_packed = function(kind, "_backward")(
        flat[1], flat[0], *arrays, **last, **packed
    )
    np.testing.assert_array_equal(dx.reshape(16, 3)[rows], dx_packed)
    assert not np.delete(dx.reshape(16, 3), rows, axis=0).any()
    for ours, theirs in zip(gradients, gradients_packed, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@kinds
def test_padding_is_not_looked_at(kind):
    x, lengths = h.draw(0, (3, 2, 2), np.float64), np.array([1, 3])
    arrays = [*states(kind, 1, 2, 4), *weights(kind, 3, 2, 4)]
    y, *finals = function(kind)(x, *arrays, lengths=lengths)
    spoilt = x.copy()
    spoilt[1:, 0] = np.nan
    y_spoilt, *finals_spoilt = function(kind)(spoilt, *arrays, lengths=lengths)
    np.testing.assert_array_equal(y, y_spoilt)
    np.testing.assert_array_equal(finals, finals_spoilt)
    dy = np.ones_like(y)
    dy[1:, 0] = np.nan
    dx, *gradients = function(kind, "_backward")(dy, spoilt, *arrays, lengths=lengths)
    assert not dx[1:, 0].any()
    assert all(np.isfinite(gradient).all() for gradient in (dx, *gradients))


@kinds
@pytest.mark.parametrize("lengths", [None, np.array([2, 0, 3])])
def test_residuals_spare_work_and_stay_as_they_are(kind, lengths):
    x, dy = h.draw(0, (3, 3, 2), np.float64), h.draw(1, (3, 3, 4), np.float64)
    arrays = [*states(kind, 2, 3, 4), *weights(kind, 4, 2, 4)]
    *results, residuals = function(kind)(x, *arrays, lengths=lengths, return_residuals=True)
    for ours, plain in zip(results, function(kind)(x, *arrays, lengths=lengths), strict=True):
        np.testing.assert_array_equal(ours, plain)
    backward, before = function(kind, "_backward"), [r.copy() for r in residuals]
    expected = backward(dy, x, *arrays, lengths=lengths)
    for _ in range(2):  # a graph may be walked twice
        again = backward(dy, x, *arrays, lengths=lengths, residuals=residuals)
        for ours, theirs in zip(again, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(residuals, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@kinds
def test_only_the_gradients_asked_for(kind):
    arrays = [h.draw(0, (2, 3, 2), np.float64), *states(kind, 2, 3, 2), *weights(kind, 4, 2, 2)]
    dy = h.draw(1, (2, 3, 2), np.float64)
    h.check_output_mask(function(kind, "_backward"), dy, arrays)


def test_simple_gru_is_the_lectures_formula():
    """With the state c joined to x and one matrix for each gate."""
    x, c = h.draw(0, (2, 3), np.float64), h.draw(1, (2, 4), np.float64)
    w_u, w_c = h.draw(2, (4, 7), np.float64), h.draw(3, (4, 7), np.float64)
    b_u, b_c = h.draw(4, (4,), np.float64), h.draw(5, (4,), np.float64)
    joined = np.concatenate([c, x], axis=1)
    gamma = 1 / (1 + np.exp(-(joined @ w_u.T + b_u)))
    candidate = np.tanh(joined @ w_c.T + b_c)
    weight = np.concatenate([w_u, w_c])
    ours = kernels.simple_gru_cell(
        x, c, weight[:, 4:], weight[:, :4], np.concatenate([b_u, b_c]), np.zeros(8)
    )
    np.testing.assert_allclose(ours, gamma * candidate + (1 - gamma) * c, rtol=1e-13)


@kinds
def test_no_steps_leave_the_state_alone(kind):
    arrays = [*states(kind, 1, 2, 3), *weights(kind, 3, 4, 3)]
    y, *finals = function(kind)(np.zeros((0, 2, 4)), *arrays)
    assert y.shape == (0, 2, 3)
    for final, first in zip(finals, arrays, strict=False):
        np.testing.assert_array_equal(final, first)
        assert not np.shares_memory(final, first)
    last = states(kind, 8, 2, 3)
    gradients = function(kind, "_backward")(
        y, np.zeros((0, 2, 4)), *arrays, **dict(zip(LAST, last, strict=False))
    )
    np.testing.assert_array_equal(gradients[1 : 1 + len(last)], last)


@kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs(kind, dtype):
    """Gates that are all 0 or 1: finite, without a warning, and right."""
    x = h.draw(0, (6, 3, 4), dtype, 1e4)
    arrays = [1e4 * s for s in states(kind, 1, 3, 5, dtype)] + weights(kind, 3, 4, 5, dtype)
    y, *_ = function(kind)(x, *arrays)
    doubles = [a.astype(np.float64) for a in (x, *arrays)]
    expected, *_ = function(kind, "_loops")(*doubles)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-9)
    gradients = function(kind, "_backward")(np.ones_like(y), x, *arrays)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


# ---- numeric gradients -----------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, np.array([1, 3, 0])])
def test_numeric_gradient(kind, reverse, lengths):
    """Of the output and the last states, side by side."""
    arrays = [h.draw(0, (3, 3, 2), np.float64), *states(kind, 1, 3, 2), *weights(kind, 3, 2, 2)]
    keywords = {"lengths": lengths, "reverse": reverse}

    def flat(*inputs):
        return np.concatenate([r.reshape(-1) for r in function(kind)(*inputs, **keywords)])

    def backward(dy, *inputs):
        parts = np.split(dy, [18, 24])
        last = [part.reshape(3, 2) for part in parts[1:] if part.size]
        return function(kind, "_backward")(
            parts[0].reshape(3, 3, 2), *inputs, **dict(zip(LAST, last, strict=False)), **keywords
        )

    def loops(*inputs):
        results = function(kind, "_loops")(*inputs, **keywords)
        return np.concatenate([r.reshape(-1) for r in results])

    gradcheck(flat, tuple(arrays), backward=backward, expected=loops)


@kinds
def test_numeric_gradient_of_cells(kind):
    arrays = [h.draw(0, (3, 2), np.float64), *states(kind, 1, 3, 2), *weights(kind, 3, 2, 2)]
    if kind != "lstm":
        cell, backward = function(kind, "_cell"), function(kind, "_cell_backward")
        gradcheck(cell, tuple(arrays), backward=backward)
        return
    gradcheck(
        lambda *inputs: np.stack(kernels.lstm_cell(*inputs)),
        tuple(arrays),
        backward=lambda dy, *inputs: kernels.lstm_cell_backward(dy[0], *inputs, dc=dy[1]),
    )


def test_relu_has_gradient_0_where_it_is_0():
    x, w, b = np.zeros((1, 1)), np.ones((2, 1)), np.array([-1.0, 1.0])
    arrays = (np.zeros((1, 2)), w, np.eye(2), b, np.zeros(2))
    _, dh, *_ = kernels.rnn_cell_backward(np.ones((1, 2)), x, *arrays, "relu")
    np.testing.assert_array_equal(dh, [[0, 1]])
    _, dh, *_ = kernels.rnn_backward(np.ones((1, 1, 2)), x[None], *arrays, "relu")
    np.testing.assert_array_equal(dh, [[0, 1]])


# ---- errors ----------------------------------------------------------------------------------

x, h0, b = np.ones((4, 2, 3)), np.ones((2, 5)), np.ones(15)
w_ih, w_hh = np.ones((15, 3)), np.ones((15, 5))
packed, ones = (x[0], h0, w_ih, w_hh), np.ones((4, 2, 5))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((x[0], h0, w_ih, w_hh), {}, ValueError, "x must have 3 axes"),
        ((x.astype(int), h0, w_ih, w_hh), {}, TypeError, "x must be float32 or float64"),
        ((x, h0[:1], w_ih, w_hh), {}, ValueError, r"h0 must have shape \(2, 5\) \(batch, hidden"),
        ((x, h0, w_ih[:, :2], w_hh), {}, ValueError, r"weight_ih must have shape \(15, 3\)"),
        (
            (x, h0, w_ih, w_hh[:10]),
            {},
            ValueError,
            r"weight_hh must have shape \(15, 5\) \(3 · hid",
        ),
        ((x, h0, w_ih, w_hh, b[:5]), {}, ValueError, r"bias_ih must have shape \(15,\)"),
        ((x, h0, w_ih, w_hh, b, b[:5]), {}, ValueError, r"bias_hh must have shape \(15,\)"),
        ((x, h0.astype(np.float32), w_ih, w_hh), {}, TypeError, "h0 is float32"),
        ((x, h0, w_ih, w_hh), {"lengths": np.array([1, 5])}, ValueError, "lengths must be in 0 … "),
        ((x, h0, w_ih, w_hh), {"lengths": np.array([1])}, ValueError, "lengths must have shape"),
        ((x, h0, w_ih, w_hh), {"lengths": np.ones(2)}, TypeError, "lengths must be an array of i"),
        ((x, h0, w_ih, w_hh), {"lengths": [1, 2]}, TypeError, "array of integers, got list"),
        ((x, h0, w_ih, w_hh), {"reverse": 1}, TypeError, "reverse must be True or False, got int"),
        ((x, h0, w_ih, w_hh), {"batch_sizes": np.array([2])}, ValueError, "x must have 2 axes"),
        (packed, {"batch_sizes": np.array([1, 1])}, ValueError, "must start at the batch of 2"),
        (packed, {"batch_sizes": np.array([2, 1])}, ValueError, "add up to the 2 rows"),
        (packed, {"batch_sizes": b[:2].astype(int), "lengths": b}, ValueError, "lengths must be N"),
    ],
)
def test_bad_input(arguments, keywords, error, message):
    with h.shapes_unchecked():
        with pytest.raises(error, match=message):
            kernels.gru(*arguments, **keywords)
        with pytest.raises(error, match=message):
            kernels.gru_backward(ones, *arguments, **keywords)


def test_batch_sizes_do_not_rise():
    with pytest.raises(ValueError, match="never rise"):
        kernels.gru(np.ones((5, 3)), h0, w_ih, w_hh, batch_sizes=np.array([2, 1, 2]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.gru_cell(x, h0, w_ih, w_hh), ValueError, "x must have 2 axes"),
        (lambda: kernels.gru_cell(x[0], h0[:1], w_ih, w_hh), ValueError, "h must have shape"),
        (lambda: kernels.gru_cell_backward(b, *packed), ValueError, r"dy must have shape \(2, 5"),
        (lambda: kernels.gru_backward(x, x, h0, w_ih, w_hh), ValueError, "dy must have shape"),
        (lambda: backward(dh=h0[:1]), ValueError, r"dh must have shape \(2, 5\)"),
        (lambda: backward(dh=h0.astype(np.float32)), TypeError, "dh is float32"),
        (lambda: backward(output_mask=(True, False)), ValueError, "must have 6 entries, got 2"),
        (lambda: cell(nonlinearity="elu"), ValueError, "one of 'tanh', 'relu', got 'elu'"),
        (
            lambda: kernels.rnn(x, h0, w_ih[:5], w_hh[:5], nonlinearity="elu"),
            ValueError,
            "nonlinearity must be one of",
        ),
    ],
)
def test_bad_calls(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()


def backward(**keywords):
    return kernels.gru_backward(ones, x, h0, w_ih, w_hh, **keywords)


def cell(**keywords):
    return kernels.rnn_cell(x[0], h0, w_ih[:5], w_hh[:5], **keywords)
