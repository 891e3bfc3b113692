"""Recurrent networks: the plain one, LSTM, GRU and a simplified GRU; one step, or a sequence.

A cell makes the next state from an input and the state before; a sequence applies one cell, with
the same weights, at every step. `*_cell` is one step, written as the formula; `*_loops` applies it
step by step to one sequence after another; `rnn`, `lstm`, `gru` and `simple_gru` compute the same
fast, and their backward functions go back through time (Werbos, 1990).

Shapes: x (t, b, n_in), states (b, n_h), weight_ih (g · n_h, n_in), weight_hh (g · n_h, n_h), biases
bias_ih and bias_hh (g · n_h,) or None, all of one dtype; h0 and c0 are the states before the first
step; the g blocks of rows are the gates, in torch's order. The output holds the state after each
step, (t, b, n_h). One layer, one direction: layers are for `nn`.

- `lengths` (b,): how many steps of each sequence count. What follows is padding: it is not looked
  at, the output is 0 there, and the last state is that after the last step that counts.
- `batch_sizes` (t,), never rising: x is packed, (n, n_in), as by `nn.utils.rnn`: first the first
  steps of all sequences, the longest sequence first, then the second steps of those that have
  one, and so on; batch_sizes says how many each step has. The output is packed likewise.
- `reverse`: the steps are taken from the last to the first (for each sequence, from its own last).

Cost: 2 · t · b · g · n_h · (n_in + n_h) operations forward, twice that backward; the backward pass
keeps (g + 3) · n_h numbers for each step and sequence. With `return_residuals` the forward function
returns these as well; given as `residuals`, they need not be computed again.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that do not fit.
"""

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Mask
from dlnotes.kernels.activations import relu, sigmoid, tanh
from dlnotes.kernels.linear import linear, linear_backward

Row = Float[np.ndarray, "b n_in"]
Steps = Float[np.ndarray, "*steps n_in"]
States = Float[np.ndarray, "*steps n_h"]
State = Float[np.ndarray, "b n_h"]
InputWeight = Float[np.ndarray, "gates n_in"]
Weight = Float[np.ndarray, "gates n_h"]
Bias = Float[np.ndarray, " gates"] | None
Lengths = Integer[np.ndarray, " b"] | None
Sizes = Integer[np.ndarray, " t"] | None

# ---- one step --------------------------------------------------------------------------------


def rnn_cell(
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
) -> State:
    """Return the next state h' = tanh(W_ih x + b_ih + W_hh h + b_hh) (Elman, 1990).

    nonlinearity: "tanh" or "relu".
    """
    x, (h,) = _check_cell(1, x, {"h": h}, weight_ih, weight_hh, bias_ih, bias_hh)
    _validate.one_of("nonlinearity", nonlinearity, ["tanh", "relu"])
    a = linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh)
    return tanh(a) if nonlinearity == "tanh" else relu(a)


def rnn_cell_backward(
    dy: State,
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
) -> tuple[Row, State, InputWeight, Weight, Bias, Bias]:
    """Return (dx, dh, dweight_ih, dweight_hh, dbias_ih, dbias_hh)."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    new = rnn_cell(x, h, *weights, nonlinearity)
    dy = _check_upstream("dy", dy, new)
    da = dy * (1 - new * new if nonlinearity == "tanh" else new > 0)
    return _cell_gradients(da, da, x, h, *weights)


def lstm_cell(
    x: Row,
    h: State,
    c: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> tuple[State, State]:
    """Return the next state h' and cell c' (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    With i, f, g, o the four blocks of W_ih x + b_ih + W_hh h + b_hh:
    c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c').
    """
    x, (h, c) = _check_cell(4, x, {"h": h, "c": c}, weight_ih, weight_hh, bias_ih, bias_hh)
    i, f, g, o = _lstm_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    c = f * c + i * g
    return o * np.tanh(c), c


def lstm_cell_backward(
    dy: State,
    x: Row,
    h: State,
    c: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    dc: State | None = None,
) -> tuple[Row, State, State, InputWeight, Weight, Bias, Bias]:
    """Return (dx, dh, dc, dweight_ih, dweight_hh, dbias_ih, dbias_hh).

    dy and dc are the gradients of h' and c'; None stands for 0.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _, new = lstm_cell(x, h, c, *weights)
    dy = _check_upstream("dy", dy, new)
    i, f, g, o = _lstm_gates(x, h, *weights)
    tanh_c = np.tanh(new)
    dnew = dy * o * (1 - tanh_c * tanh_c)  # the cell's gradient by way of h'
    if dc is not None:
        dnew += _check_upstream("dc", dc, new)
    da = np.concatenate(
        [
            dnew * g * i * (1 - i),
            dnew * c * f * (1 - f),
            dnew * i * (1 - g * g),
            dy * tanh_c * o * (1 - o),
        ],
        axis=1,
    )
    dx, dh, *dweights = _cell_gradients(da, da, x, h, *weights)
    return dx, dh, dnew * f, *dweights


def gru_cell(
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> State:
    """Return the next state h' = (1 - z) n + z h (Cho et al., 2014).

    With the three blocks of W_ih x + b_ih and of W_hh h + b_hh: r = σ(first + first),
    z = σ(second + second) and n = tanh(third + r · third). As in torch, r multiplies the product
    with h, not h itself.
    """
    x, (h,) = _check_cell(3, x, {"h": h}, weight_ih, weight_hh, bias_ih, bias_hh)
    _, z, n, _ = _gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    return (1 - z) * n + z * h


def gru_cell_backward(
    dy: State,
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> tuple[Row, State, InputWeight, Weight, Bias, Bias]:
    """Return (dx, dh, dweight_ih, dweight_hh, dbias_ih, dbias_hh)."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    x, (h,) = _check_cell(3, x, {"h": h}, *weights)
    dy = _check_upstream("dy", dy, h)
    r, z, n, recalled = _gru_gates(x, h, *weights)
    dn = dy * (1 - z) * (1 - n * n)
    dr = dn * recalled * r * (1 - r)
    dz = dy * (h - n) * z * (1 - z)
    from_x, from_h = np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1)
    dx, dh, *dweights = _cell_gradients(from_x, from_h, x, h, *weights)
    return dx, dh + dy * z, *dweights


def simple_gru_cell(
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> State:
    """Return the next state h' = u n + (1 - u) h: a GRU without the reset gate.

    With the two blocks of W_ih x + b_ih + W_hh h + b_hh: u = σ(first), n = tanh(second). This is
    the form in which lectures introduce the GRU: Γ_u = u, c̃ = n, c = h; u weighs the new
    candidate, where torch's z weighs the old state.
    """
    x, (h,) = _check_cell(2, x, {"h": h}, weight_ih, weight_hh, bias_ih, bias_hh)
    u, n = _simple_gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    return u * n + (1 - u) * h


def simple_gru_cell_backward(
    dy: State,
    x: Row,
    h: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
) -> tuple[Row, State, InputWeight, Weight, Bias, Bias]:
    """Return (dx, dh, dweight_ih, dweight_hh, dbias_ih, dbias_hh)."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    x, (h,) = _check_cell(2, x, {"h": h}, *weights)
    dy = _check_upstream("dy", dy, h)
    u, n = _simple_gru_gates(x, h, *weights)
    da = np.concatenate([dy * (n - h) * u * (1 - u), dy * u * (1 - n * n)], axis=1)
    dx, dh, *dweights = _cell_gradients(da, da, x, h, *weights)
    return dx, dh + dy * (1 - u), *dweights


def _lstm_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    i, f, g, o = np.split(linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh), 4, axis=1)
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


def _gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    """Return r, z, n and the product with h that r multiplies."""
    from_x = np.split(linear(x, weight_ih, bias_ih), 3, axis=1)
    from_h = np.split(linear(h, weight_hh, bias_hh), 3, axis=1)
    r, z = sigmoid(from_x[0] + from_h[0]), sigmoid(from_x[1] + from_h[1])
    return r, z, tanh(from_x[2] + r * from_h[2]), from_h[2]


def _simple_gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    u, n = np.split(linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh), 2, axis=1)
    return sigmoid(u), tanh(n)


def _cell_gradients(from_x, from_h, x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    """Pass the gradients of W_ih x + b_ih and of W_hh h + b_hh on."""
    dx, dweight_ih, dbias_ih = linear_backward(from_x, x, weight_ih, bias_ih)
    dh, dweight_hh, dbias_hh = linear_backward(from_h, h, weight_hh, bias_hh)
    return dx, dh, dweight_ih, dweight_hh, dbias_ih, dbias_hh


# ---- sequences, step by step -----------------------------------------------------------------


def rnn_loops(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
    *,
    lengths: Lengths = None,
    reverse: bool = False,
) -> tuple[States, State]:
    """Return what `rnn` returns, a step of one sequence at a time: the tests' oracle."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _loops(rnn_cell, 1, x, {"h0": h0}, weights, (nonlinearity,), lengths, reverse)


def lstm_loops(
    x: Steps,
    h0: State,
    c0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    reverse: bool = False,
) -> tuple[States, State, State]:
    """Return what `lstm` returns, a step of one sequence at a time: the tests' oracle."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _loops(lstm_cell, 4, x, {"h0": h0, "c0": c0}, weights, (), lengths, reverse)


def gru_loops(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    reverse: bool = False,
) -> tuple[States, State]:
    """Return what `gru` returns, a step of one sequence at a time: the tests' oracle."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _loops(gru_cell, 3, x, {"h0": h0}, weights, (), lengths, reverse)


def simple_gru_loops(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    reverse: bool = False,
) -> tuple[States, State]:
    """Return what `simple_gru` returns, a step of one sequence at a time: the tests' oracle."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _loops(simple_gru_cell, 2, x, {"h0": h0}, weights, (), lengths, reverse)


def _loops(cell, gates, x, states, weights, settings, lengths, reverse):
    x, states = _check(gates, x, states, *weights)
    count, batch = x.shape[:2]
    lengths = [count] * batch if lengths is None else _check_lengths(lengths, count, batch)
    output = np.zeros((*x.shape[:2], states[0].shape[1]), x.dtype)
    last = [state.copy() for state in states]
    for b in range(batch):
        for t in range(lengths[b])[:: -1 if reverse else 1]:
            state = cell(x[t, b : b + 1], *(s[b : b + 1] for s in last), *weights, *settings)
            for held, new in zip(
                last, state if isinstance(state, tuple) else (state,), strict=True
            ):
                held[b] = new[0]
            output[t, b] = last[0][b]
    return output, *last


# ---- sequences, fast -------------------------------------------------------------------------


def rnn(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
    *,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    return_residuals: bool = False,
) -> tuple:
    """Return (output, last state) of `rnn_cell` applied at every step."""
    _validate.one_of("nonlinearity", nonlinearity, ["tanh", "relu"])
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(1, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    return run.results(*_rnn(run, nonlinearity), return_residuals)


def rnn_backward(
    dy: States,
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    nonlinearity: str = "tanh",
    *,
    dh: State | None = None,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    residuals: tuple | None = None,
    output_mask: Mask = (True,) * 6,
) -> tuple:
    """Return (dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh).

    dy is the gradient of the output, dh (None for 0) that of the last state.
    """
    _validate.one_of("nonlinearity", nonlinearity, ["tanh", "relu"])
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(1, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    y, before = _rnn(run, nonlinearity)[-1] if residuals is None else residuals
    slopes = run.by_gate(1 - y * y if nonlinearity == "tanh" else (y > 0).astype(y.dtype))
    _, dh = _one_state_back(run, dy, dh, slopes, None)
    return run.gradients(slopes, slopes, before, (dh,), output_mask)


def lstm(
    x: Steps,
    h0: State,
    c0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    return_residuals: bool = False,
) -> tuple:
    """Return (output, last state, last cell) of `lstm_cell` applied at every step."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(4, x, {"h0": h0, "c0": c0}, weights, (lengths, batch_sizes, reverse))
    return run.results(*_lstm(run), return_residuals)


def lstm_backward(
    dy: States,
    x: Steps,
    h0: State,
    c0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    dh: State | None = None,
    dc: State | None = None,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    residuals: tuple | None = None,
    output_mask: Mask = (True,) * 7,
) -> tuple:
    """Return (dx, dh0, dc0, dweight_ih, dweight_hh, dbias_ih, dbias_hh).

    dy is the gradient of the output; dh and dc (None for 0) are those of the last state and cell.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(4, x, {"h0": h0, "c0": c0}, weights, (lengths, batch_sizes, reverse))
    gates, before, cells, tanh_c = _lstm(run)[-1] if residuals is None else residuals
    i, f, g, o = (gates[:, k] for k in range(4))
    # What each gate's gradient is per gradient of the cell (i, f, g) or of the state (o) …
    slopes = _sigmoid_slopes(gates)
    np.subtract(1, g * g, out=slopes[:, 2])
    for k, factor in enumerate((g, cells, i, tanh_c)):
        slopes[:, k] *= factor
    by_state = tanh_c * tanh_c  # … and the cell's gradient per gradient of the state
    np.subtract(1, by_state, out=by_state)
    by_state *= o
    dy, dh, dc = run.upstream(dy, dh=dh, dc=dc)
    work = np.empty_like(dh)
    for rows, n in reversed(run.steps):
        dstate, dcell, dgates = dh[:n], dc[:n], slopes[rows]
        dstate += dy[rows]
        dcell += np.multiply(dstate, by_state[rows], out=work[:n])
        dgates[:, :3] *= dcell[:, None]
        dgates[:, 3] *= dstate
        np.matmul(dgates.reshape(n, run.weight_hh.shape[0]), run.weight_hh, out=dstate)
        dcell *= f[rows]
    return run.gradients(slopes, slopes, before, (dh, dc), output_mask)


def gru(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    return_residuals: bool = False,
) -> tuple:
    """Return (output, last state) of `gru_cell` applied at every step."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(3, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    return run.results(*_gru(run), return_residuals)


def gru_backward(
    dy: States,
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    dh: State | None = None,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    residuals: tuple | None = None,
    output_mask: Mask = (True,) * 6,
) -> tuple:
    """Return (dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh).

    dy is the gradient of the output, dh (None for 0) that of the last state.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(3, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    gates, before, recalled = _gru(run)[-1] if residuals is None else residuals
    r, z, n = (gates[:, k] for k in range(3))
    candidate = (1 - z) * (1 - n * n)  # gradient of n's argument per gradient of the state
    slopes = _sigmoid_slopes(gates)
    slopes[:, 0] *= candidate
    slopes[:, 0] *= recalled
    slopes[:, 1] *= before - n
    np.multiply(candidate, r, out=slopes[:, 2])
    total, dh = _one_state_back(run, dy, dh, slopes, z.copy())
    from_x = slopes.copy()
    np.multiply(total, candidate, out=from_x[:, 2])
    return run.gradients(from_x, slopes, before, (dh,), output_mask)


def simple_gru(
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    return_residuals: bool = False,
) -> tuple:
    """Return (output, last state) of `simple_gru_cell` applied at every step."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(2, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    return run.results(*_simple_gru(run), return_residuals)


def simple_gru_backward(
    dy: States,
    x: Steps,
    h0: State,
    weight_ih: InputWeight,
    weight_hh: Weight,
    bias_ih: Bias = None,
    bias_hh: Bias = None,
    *,
    dh: State | None = None,
    lengths: Lengths = None,
    batch_sizes: Sizes = None,
    reverse: bool = False,
    residuals: tuple | None = None,
    output_mask: Mask = (True,) * 6,
) -> tuple:
    """Return (dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh).

    dy is the gradient of the output, dh (None for 0) that of the last state.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    run = _Run(2, x, {"h0": h0}, weights, (lengths, batch_sizes, reverse))
    gates, before = _simple_gru(run)[-1] if residuals is None else residuals
    u, n = gates[:, 0], gates[:, 1]
    slopes = _sigmoid_slopes(gates)
    slopes[:, 0] *= n - before
    np.multiply(u, 1 - n * n, out=slopes[:, 1])
    _, dh = _one_state_back(run, dy, dh, slopes, 1 - u)
    return run.gradients(slopes, slopes, before, (dh,), output_mask)


def _rnn(run, nonlinearity):
    """Return the output, the last states and what the backward pass needs; so do those below."""
    (h,) = run.states
    y, weight = run.linear(np.ones(1, h.dtype))
    before, work = np.empty_like(y), np.empty_like(h)
    for rows, n in run.steps:
        before[rows] = h[:n]
        a = y[rows]
        a += np.matmul(h[:n], weight, out=work[:n])
        np.tanh(a, out=a) if nonlinearity == "tanh" else np.maximum(a, 0, out=a)
        h[:n] = a
    return y, run.states, (y, before)


def _lstm(run):
    h, c = run.states
    scale = run.scale(0.5, 0.5, 1, 0.5)
    gates, weight = run.linear(scale)
    y, before, cells, tanh_c = (np.empty((len(gates), h.shape[1]), h.dtype) for _ in range(4))
    work = np.empty((len(h), gates.shape[1]), h.dtype)
    product = np.empty_like(h)
    for rows, n in run.steps:
        state, cell, a = h[:n], c[:n], gates[rows]
        before[rows], cells[rows] = state, cell
        a += np.matmul(state, weight, out=work[:n])
        _squash(a, scale)
        i, f, g, o = run.blocks(a)
        cell *= f
        cell += np.multiply(i, g, out=product[:n])
        np.tanh(cell, out=tanh_c[rows])
        np.multiply(o, tanh_c[rows], out=state)
        y[rows] = state
    return y, run.states, (run.by_gate(gates), before, cells, tanh_c)


def _gru(run):
    (h,) = run.states
    size = h.shape[1]
    scale = run.scale(0.5, 0.5, 1)
    gates, weight = run.linear(scale, apart=size)
    bias = 0 if run.bias_hh is None else run.bias_hh[2 * size :]
    y, before, recalled = (np.empty((len(gates), size), h.dtype) for _ in range(3))
    work = np.empty((len(h), 3 * size), h.dtype)
    for rows, n in run.steps:
        state, a, product = h[:n], gates[rows], work[:n]
        before[rows] = state
        np.matmul(state, weight, out=product)
        np.add(product[:, 2 * size :], bias, out=recalled[rows])
        first, candidate = a[:, : 2 * size], a[:, 2 * size :]
        first += product[:, : 2 * size]
        _squash(first, scale[: 2 * size])
        candidate += np.multiply(a[:, :size], recalled[rows], out=product[:, :size])
        np.tanh(candidate, out=candidate)
        state -= candidate  # h' = n + z (h - n)
        state *= a[:, size : 2 * size]
        state += candidate
        y[rows] = state
    return y, run.states, (run.by_gate(gates), before, recalled)


def _simple_gru(run):
    (h,) = run.states
    scale = run.scale(0.5, 1)
    gates, weight = run.linear(scale)
    y, before = (np.empty((len(gates), h.shape[1]), h.dtype) for _ in range(2))
    work = np.empty((len(h), gates.shape[1]), h.dtype)
    for rows, n in run.steps:
        state, a = h[:n], gates[rows]
        before[rows] = state
        a += np.matmul(state, weight, out=work[:n])
        _squash(a, scale)
        u, candidate = run.blocks(a)
        change = np.subtract(candidate, state, out=y[rows])  # h' = h + u (n - h)
        change *= u
        state += change
        y[rows] = state
    return y, run.states, (run.by_gate(gates), before)


def _squash(a, scale):
    """Turn scaled sums, in place, into gates: σ where the scale is ½, tanh where it is 1.

    σ(a) = ½ + ½ tanh(a / 2): one call for all gates, and NumPy's tanh is vectorised.
    """
    np.tanh(a, out=a)
    a *= scale
    a += 1 - scale


def _sigmoid_slopes(gates):
    """Return the derivative of σ where its value is given: σ (1 - σ)."""
    slopes = 1 - gates
    slopes *= gates
    return slopes


def _one_state_back(run, dy, dh, slopes, keep):
    """Go back through time where the state is all that one step hands to the next.

    slopes (n, gates, n_h), the gates' derivatives per change of the state, turn in place into the
    gradients of W_hh h + b_hh; keep is how much of the old state stays by itself (or None), and is
    used up. Returns the gradient of the state after each step, and that of the first.
    """
    dy, dh = run.upstream(dy, dh=dh)
    total = np.empty_like(dy)
    for rows, n in reversed(run.steps):
        dstate, dgates = np.add(dy[rows], dh[:n], out=total[rows]), slopes[rows]
        dgates *= dstate[:, None]
        np.matmul(dgates.reshape(n, run.gates * dh.shape[1]), run.weight_hh, out=dh[:n])
        if keep is not None:
            keep[rows] *= dstate
            dh[:n] += keep[rows]
    return total, dh


class _Run:
    """The checked arguments of a sequence: packed, and how to come back from there.

    In packed rows, the sequences that are still running at a step are the first of the batch, so
    every step works on one piece of memory, and nothing is computed for padding. Without padding
    packing changes nothing. `states` are copies, which the forward pass carries along.
    """

    def __init__(self, gates, x, states, weights, packing):
        lengths, batch_sizes, reverse = packing
        x, states = _check(gates, x, states, *weights, ndim=3 if batch_sizes is None else 2)
        self.gates, self.shape, batch = gates, x.shape[:-1], len(states[0])
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = weights
        self.order = self.rows = None
        if not isinstance(reverse, bool):
            raise TypeError(f"reverse must be True or False, got {type(reverse).__name__}")
        if batch_sizes is not None:
            if lengths is not None:
                raise ValueError("lengths must be None where batch_sizes are given")
            batch_sizes = _check_batch_sizes(batch_sizes, len(x), batch)
        elif lengths is not None:
            lengths = _check_lengths(lengths, len(x), batch)
            self.rows, batch_sizes, self.order = packed_rows(lengths, len(x))
        else:
            batch_sizes = np.full(len(x), batch)
        self.x, self.states = self.pack(x), [self.sort(state) for state in states]
        sizes, ends = batch_sizes.tolist(), np.cumsum(batch_sizes).tolist()
        steps = [(slice(end - n, end), n) for n, end in zip(sizes, ends, strict=True)]
        self.steps = steps[::-1] if reverse else steps

    def pack(self, x):
        """Return x (t, b, …) or (n, …) as packed rows (n, …)."""
        if x.ndim == 3:
            x = x.reshape(x.shape[0] * x.shape[1], x.shape[2])
        return x if self.rows is None else x[self.rows]

    def unpack(self, packed):
        """Return packed rows in the shape of x, 0 in the place of padding."""
        if self.rows is not None:
            padded = np.zeros((self.shape[0] * self.shape[1], packed.shape[1]), packed.dtype)
            padded[self.rows] = packed
            packed = padded
        return packed.reshape(*self.shape, packed.shape[1])

    def sort(self, state):
        """Return a copy of the state (b, n_h), the longest sequence first."""
        return state.copy() if self.order is None else state[self.order]

    def unsort(self, state):
        """Return the state with the sequences in their order."""
        if self.order is None:
            return state
        unsorted = np.empty_like(state)
        unsorted[self.order] = state
        return unsorted

    def results(self, y, states, residuals, return_residuals):
        """Return what the forward function returns."""
        results = (self.unpack(y), *map(self.unsort, states))
        return (*results, residuals) if return_residuals else results

    def scale(self, *factors):
        """Return a factor for each row of the weights, one for each gate given."""
        return np.repeat(np.array(factors, self.x.dtype), self.weight_hh.shape[1])

    def linear(self, scale, apart=0):
        """Return (W_ih x + b_ih + b_hh) · scale of all steps, and W_hhᵀ · scale for the loop.

        The last `apart` entries of b_hh are left out.
        """
        sums = self.x @ np.ascontiguousarray((self.weight_ih * scale[:, None]).T)
        bias = np.zeros(len(self.weight_hh), self.x.dtype)
        if self.bias_ih is not None:
            bias += self.bias_ih
        if self.bias_hh is not None:
            bias[: len(bias) - apart] += self.bias_hh[: len(bias) - apart]
        sums += bias * scale
        return sums, np.ascontiguousarray((self.weight_hh * scale[:, None]).T)

    def blocks(self, a):
        """Return views of the gates in a (n, gates · n_h)."""
        size = self.weight_hh.shape[1]
        return [a[:, k * size : (k + 1) * size] for k in range(self.gates)]

    def by_gate(self, a):
        """Return a (n, gates · n_h) as (n, gates, n_h)."""
        return a.reshape(len(a), self.gates, self.weight_hh.shape[1])

    def upstream(self, dy, **dstates):
        """Return the gradients of output and last states, checked and packed; None becomes 0."""
        h0 = self.states[0]
        dy = _validate.floats("dy", dy)
        _validate.same_dtype(dy=dy, x=self.x)
        _validate.has_shape("dy", dy, (*self.shape, h0.shape[1]), "the shape of the output")
        packed = [self.pack(dy)]
        for name, value in dstates.items():
            value = np.zeros_like(h0) if value is None else _check_upstream(name, value, h0)
            packed.append(self.sort(value))
        return packed

    def gradients(self, from_x, from_h, before, dstates, output_mask):
        """Return all gradients, from those of W_ih x + b_ih and of W_hh h + b_hh at every step."""
        for_x, *for_states, for_weight_ih, for_weight_hh, for_bias_ih, for_bias_hh = (
            _validate.output_mask(output_mask, 5 + len(dstates))
        )
        shape = (len(self.x), len(self.weight_hh))
        dx, dweight_ih, dbias_ih = linear_backward(
            from_x.reshape(shape),
            *(self.x, self.weight_ih, self.bias_ih),
            output_mask=(for_x, for_weight_ih, for_bias_ih),
        )
        _, dweight_hh, dbias_hh = linear_backward(
            from_h.reshape(shape),
            *(before, self.weight_hh, self.bias_hh),
            output_mask=(False, for_weight_hh, for_bias_hh),
        )
        dx = None if dx is None else self.unpack(dx)
        dstates = [
            self.unsort(d) if wanted else None
            for d, wanted in zip(dstates, for_states, strict=True)
        ]
        return dx, *dstates, dweight_ih, dweight_hh, dbias_ih, dbias_hh


# ---- packing and arguments -------------------------------------------------------------------


def packed_rows(
    lengths: Integer[np.ndarray, " b"], steps: int
) -> tuple[Integer[np.ndarray, " n"], Integer[np.ndarray, " t"], Integer[np.ndarray, " b"]]:
    """Return how sequences of these lengths are packed: (rows, batch_sizes, order).

    `rows` are places in the padded sequences as (steps · b, …), in the order of packing;
    `batch_sizes` says how many there are for each step; `order` sorts the sequences, longest first.
    """
    order = np.argsort(-lengths, kind="stable")
    batch_sizes = np.count_nonzero(lengths > np.arange(steps)[:, None], axis=1)
    by_step = [t * len(lengths) + order[:n] for t, n in enumerate(batch_sizes)]
    return np.concatenate([np.zeros(0, np.int64), *by_step]), batch_sizes, order


def _check_cell(gates, x, states, weight_ih, weight_hh, bias_ih, bias_hh):
    return _check(gates, x, states, weight_ih, weight_hh, bias_ih, bias_hh, ndim=2, cell=True)


def _check(gates, x, states, weight_ih, weight_hh, bias_ih, bias_hh, ndim=3, cell=False):
    """Return x and the states as a list."""
    x = _validate.floats("x", x, ndim=ndim)
    states = {name: _validate.floats(name, state, ndim=2) for name, state in states.items()}
    weight_ih = _validate.floats("weight_ih", weight_ih, ndim=2)
    weight_hh = _validate.floats("weight_hh", weight_hh, ndim=2)
    biases = {
        name: _validate.floats(name, bias, ndim=1)
        for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh))
        if bias is not None
    }
    _validate.same_dtype(x=x, **states, weight_ih=weight_ih, weight_hh=weight_hh, **biases)
    size = weight_hh.shape[1]
    rows = gates * size
    why = f"{gates} · hidden size rows" if gates > 1 else "hidden size rows"
    _validate.has_shape("weight_hh", weight_hh, (rows, size), f"{why}, hidden size columns")
    _validate.has_shape("weight_ih", weight_ih, (rows, x.shape[-1]), f"{why}, x's features")
    for name, bias in biases.items():
        _validate.has_shape(name, bias, (rows,), "one for each row of the weights")
    first = next(iter(states.values()))
    batch = x.shape[1] if ndim == 3 else len(x) if cell else len(first)
    for name, state in states.items():
        _validate.has_shape(name, state, (batch, size), "batch, hidden size")
    return x, list(states.values())


def _check_lengths(lengths, steps, batch):
    return _whole_numbers("lengths", lengths, (batch,), "one for each sequence", steps)


def _check_batch_sizes(sizes, rows, batch):
    sizes = _whole_numbers("batch_sizes", sizes, None, "", batch)
    if sizes.sum() != rows or (np.diff(sizes) > 0).any() or (len(sizes) and sizes[0] != batch):
        raise ValueError(
            f"batch_sizes must start at the batch of {batch}, never rise and add up to the "
            f"{rows} rows of x, got {sizes}"
        )
    return sizes


def _whole_numbers(name, value, shape, why, high):
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, got {_kind(value)}")
    if shape is not None:
        _validate.has_shape(name, value, shape, why)
    if value.size and (value.min() < 0 or value.max() > high):
        raise ValueError(f"{name} must be in 0 … {high}, got {value}")
    return value.astype(np.int64)


def _kind(value) -> str:
    return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__


def _check_upstream(name, value, like):
    value = _validate.floats(name, value)
    _validate.same_dtype(**{name: value, "x": like})
    return _validate.has_shape(name, value, like.shape, "the shape of the state")
