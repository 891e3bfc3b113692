"""Recurrent layers, cells and packed sequences against torch's, and step by step in training."""

import math

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import rnn as torch_rnn

import dlnotes
from dlnotes import check, kernels, nn, optim
from dlnotes.autograd import Tensor, no_grad, tensor
from dlnotes.nn import functional as F
from dlnotes.nn.utils import rnn

TORCH = {"RNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}
TORCH_DTYPE = {np.float32: torch.float32, np.float64: torch.float64}


def pair(name, *arguments, dtype=np.float64, **keywords):
    """Return a layer or cell and torch's with the same weights."""
    theirs = getattr(torch.nn, name)(*arguments, **keywords).to(TORCH_DTYPE[dtype])
    ours = getattr(nn, name)(*arguments, **keywords, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def both(array):
    """Return the array as a tensor of each side."""
    return tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


def flat(result):
    """Return the tensors in (output, state) or (output, (state, cell)), packed or not."""
    output, last = result
    output = output.data if isinstance(output, rnn.PackedSequence) else output
    output = output.data if isinstance(output, torch_rnn.PackedSequence) else output
    return [output, *(last if isinstance(last, tuple) else (last,))]


def compare(ours, theirs, leaves, layers, dtype, scale=10.0):
    """Compare results, and the gradients of leaves and parameters for a random upstream one."""
    ours, theirs = flat(ours), flat(theirs)
    loss, expected = 0, 0
    for i, (mine, wanted) in enumerate(zip(ours, theirs, strict=True)):
        h.assert_close(mine.data, wanted, dtype, scale)
        dy = h.draw(i, mine.shape, dtype)
        loss, expected = loss + (mine * dy).sum(), expected + (wanted * torch.tensor(dy)).sum()
    loss.backward()
    expected.backward()
    for mine, wanted in leaves:
        h.assert_close(mine.grad, wanted.grad, dtype, scale)
    layer, reference = layers
    parameters = dict(layer.named_parameters())
    for name, wanted in reference.named_parameters():
        h.assert_close(parameters[name].grad, wanted.grad, dtype, 3 * scale)


# ---- layers ----------------------------------------------------------------------------------


@st.composite
def layers(draw):
    """A layer's class, sizes and settings."""
    keywords = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    name = draw(st.sampled_from(sorted(TORCH)))
    if name == "RNN":
        keywords["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return name, (draw(st.integers(1, 4)), draw(st.integers(1, 5))), keywords


def draw_states(name, seed, shape, dtype):
    """Return the pairs of leaves and what each side takes as hx."""
    leaves = [both(h.draw(seed + i, shape, dtype)) for i in range(2 if name == "LSTM" else 1)]
    if name == "LSTM":
        return leaves, *zip(*leaves, strict=True)
    return leaves, *leaves[0]


@settings(deadline=None, max_examples=60)
@given(
    layers(),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 4)),
    st.booleans(),
    h.dtypes,
    h.seeds,
)
def test_layers_as_torch(layer, steps, batch, with_states, dtype, seed):
    name, sizes, keywords = layer
    torch.manual_seed(seed % 2**31)
    ours, theirs = pair(name, *sizes, dtype=dtype, **keywords)
    shape = (steps, sizes[0])
    if batch is not None:
        first = keywords["batch_first"]
        shape = (batch, steps, sizes[0]) if first else (steps, batch, sizes[0])
    x, expected_x = both(h.draw(seed, shape, dtype))
    leaves, hx, expected_hx = [], None, None
    if with_states:
        rows = keywords["num_layers"] * (1 + keywords["bidirectional"])
        shape = (rows, sizes[1]) if batch is None else (rows, batch, sizes[1])
        leaves, hx, expected_hx = draw_states(name, seed + 1, shape, dtype)
    leaves.append((x, expected_x))
    compare(ours(x, hx), theirs(expected_x, expected_hx), leaves, (ours, theirs), dtype)


@settings(deadline=None, max_examples=40)
@given(
    layers(),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    h.dtypes,
    h.seeds,
)
def test_packed_layers_as_torch(layer, lengths, enforce_sorted, with_states, dtype, seed):
    name, sizes, keywords = layer
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    torch.manual_seed(seed % 2**31)
    ours, theirs = pair(name, *sizes, dtype=dtype, **keywords)
    x, expected_x = both(h.draw(seed, (max(lengths), len(lengths), sizes[0]), dtype))
    leaves, hx, expected_hx = [], None, None
    if with_states:
        rows = keywords["num_layers"] * (1 + keywords["bidirectional"])
        shape = (rows, len(lengths), sizes[1])
        leaves, hx, expected_hx = draw_states(name, seed + 1, shape, dtype)
    leaves.append((x, expected_x))
    packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    expected = torch_rnn.pack_padded_sequence(expected_x, lengths, enforce_sorted=enforce_sorted)
    result, wanted = ours(packed, hx), theirs(expected, expected_hx)
    for mine, torchs in zip(result[0][1:], wanted[0][1:], strict=True):
        assert (mine is None) == (torchs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine.data, torchs)
    compare(result, wanted, leaves, (ours, theirs), dtype)


CELLS = ["RNNCell", "LSTMCell", "GRUCell"]


@pytest.mark.parametrize("name", CELLS)
@settings(deadline=None, max_examples=25)
@given(
    st.one_of(st.none(), st.integers(0, 3)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    h.dtypes,
    h.seeds,
)
def test_cells_as_torch(name, batch, n_in, size, bias, with_states, dtype, seed):
    torch.manual_seed(seed % 2**31)
    settings = {"nonlinearity": "relu"} if name == "RNNCell" and seed % 2 else {}
    ours, theirs = pair(name, n_in, size, bias, dtype=dtype, **settings)
    leading = () if batch is None else (batch,)
    x, expected_x = both(h.draw(seed, (*leading, n_in), dtype))
    leaves, hx, expected_hx = [], None, None
    if with_states:
        leaves, hx, expected_hx = draw_states(name[:-4], seed + 1, (*leading, size), dtype)
    leaves.append((x, expected_x))
    result, expected = ours(x, hx), theirs(expected_x, expected_hx)
    if name != "LSTMCell":
        result, expected = (result,), (expected,)
    compare((result[0], result[1:]), (expected[0], expected[1:]), leaves, (ours, theirs), dtype)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "SimpleGRU"])
def test_a_layer_is_its_cell_step_by_step(name):
    layer = getattr(nn, name)(3, 4, dtype=np.float64)
    cell = getattr(nn, f"{name}Cell")(3, 4, dtype=np.float64)
    cell.load_state_dict({k[: -len("_l0")]: v for k, v in layer.state_dict().items()})
    x = h.draw(0, (5, 2, 3), np.float64)
    output, last = layer(x)
    state, states = None, []
    for row in x:
        state = cell(row, state)
        states.append((state[0] if name == "LSTM" else state).data)
    np.testing.assert_allclose(output.data, np.stack(states), rtol=1e-12, atol=1e-13)
    ends = zip(last, state, strict=True) if name == "LSTM" else [(last, state)]
    for mine, wanted in ends:
        np.testing.assert_allclose(mine.data[0], wanted.data, rtol=1e-12, atol=1e-13)


def test_simple_gru_in_layers_is_its_loops():
    layer = nn.SimpleGRU(3, 4, num_layers=2, bidirectional=True, dtype=np.float64)
    x = h.draw(0, (5, 2, 3), np.float64)
    weights, data, ends = layer.state_dict(), x, []
    for k in range(2):
        outputs = []
        for direction in ("", "_reverse"):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            own = [weights[f"{name}_l{k}{direction}"] for name in names]
            y, end = kernels.simple_gru_loops(data, np.zeros((2, 4)), *own, reverse=bool(direction))
            outputs.append(y)
            ends.append(end)
        data = np.concatenate(outputs, axis=2)
    output, last = layer(x)
    np.testing.assert_allclose(output.data, data, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(last.data, np.stack(ends), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "SimpleGRU"])
def test_numeric_gradient_through_a_packed_bidirectional_layer(name):
    layer = getattr(nn, name)(2, 2, bidirectional=True, dtype=np.float64)

    def run(x):
        packed = rnn.pack_padded_sequence(x, [1, 3, 2], enforce_sorted=False)
        output, last = layer(packed)
        padded, _ = rnn.pad_packed_sequence(output, padding_value=0.5)
        ends = [(state * state).sum() for state in flat((output, last))[1:]]
        return padded * sum(ends)

    with h.shapes_unchecked():
        check.gradcheck(run, h.draw(0, (3, 3, 2), np.float64))


# ---- weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_state_dict_is_torchs(name):
    keywords = {"num_layers": 2, "bidirectional": True}
    ours, theirs = getattr(nn, name)(3, 4, **keywords), TORCH[name](3, 4, **keywords)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(expected)
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    x = h.draw(0, (2, 1, 3), np.float32)
    h.assert_close(ours(x)[0].data, theirs(torch.tensor(x))[0], np.float32)
    plain = getattr(nn, name)(3, 4, bias=False)
    assert list(plain.state_dict()) == ["weight_ih_l0", "weight_hh_l0"]


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "SimpleGRU", *CELLS, "SimpleGRUCell"])
def test_weights_start_as_torchs(name):
    """Uniform between ±1/√hidden_size, biases too, and again after reset_parameters."""
    dlnotes.manual_seed(3)
    layer = getattr(nn, name)(50, 64)
    drawn = np.concatenate([p.data.reshape(-1) for p in layer.parameters()])
    bound = 1 / math.sqrt(64)
    assert drawn.dtype == np.float32
    assert abs(drawn).max() <= bound
    assert abs(drawn.mean()) < 0.02 * bound
    assert abs(drawn.std() - bound / math.sqrt(3)) < 0.02 * bound
    first = layer.state_dict()
    layer.reset_parameters()
    assert all((layer.state_dict()[key] != value).any() for key, value in first.items())
    dlnotes.manual_seed(3)
    for key, value in getattr(nn, name)(50, 64).state_dict().items():
        np.testing.assert_array_equal(value, first[key])


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("LSTM", {}),
        ("GRU", {"num_layers": 2, "dropout": 0.5, "bidirectional": True, "batch_first": True}),
        ("RNN", {"bias": False}),
        ("GRUCell", {}),
        ("LSTMCell", {"bias": False}),
        ("RNNCell", {"nonlinearity": "relu"}),
    ],
)
def test_repr_is_torchs(name, keywords):
    assert repr(getattr(nn, name)(3, 4, **keywords)) == repr(
        getattr(torch.nn, name)(3, 4, **keywords)
    )
    assert repr(nn.RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity=relu)"


# ---- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twenty_steps_of_training_as_torch(name, dtype):
    """The last state classifies; both sides walk through the same weights."""
    torch.manual_seed(0)
    layer, reference = pair(name, 3, 8, dtype=dtype, num_layers=2)
    head, reference_head = pair("Linear", 8, 2, dtype=dtype)
    optimizer = optim.SGD([*layer.parameters(), *head.parameters()], lr=0.3, momentum=0.9)
    reference_optimizer = torch.optim.SGD(
        [*reference.parameters(), *reference_head.parameters()], lr=0.3, momentum=0.9
    )
    x = h.draw(0, (7, 16, 3), dtype)
    target = (x.sum((0, 2)) > 0).astype(np.int64)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(head(layer(x)[0][-1]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        output, _ = reference(torch.tensor(x))
        expected = torch.nn.functional.cross_entropy(
            reference_head(output[-1]), torch.tensor(target)
        )
        reference_optimizer.zero_grad()
        expected.backward()
        reference_optimizer.step()
        losses.append(loss.item())
        h.assert_close(loss.data, expected, dtype, 5)
        for (key, mine), theirs in zip(
            layer.named_parameters(), reference.parameters(), strict=True
        ):
            h.assert_close(mine.data, theirs, dtype, 5)
            assert mine.grad is not None, key
    assert losses[-1] < 0.8 * losses[0]


def test_dropout_acts_between_layers_and_only_in_training():
    x = h.draw(0, (4, 3, 2), np.float64)
    layer = nn.GRU(2, 5, num_layers=2, dropout=0.5, dtype=np.float64)
    plain = nn.GRU(2, 5, num_layers=2, dtype=np.float64)
    plain.load_state_dict(layer.state_dict())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].data, plain(x)[0].data)
    layer.train()
    dlnotes.manual_seed(1)
    output, last = layer(x)
    lower, upper = nn.GRU(2, 5, dtype=np.float64), nn.GRU(5, 5, dtype=np.float64)
    weights = layer.state_dict()
    lower.load_state_dict({k: v for k, v in weights.items() if "l0" in k})
    upper.load_state_dict({k.replace("l1", "l0"): v for k, v in weights.items() if "l1" in k})
    dlnotes.manual_seed(1)
    between, first = lower(x)
    # Packed rows and padded steps lie in memory alike, so the same entries drop.
    expected, second = upper(F.dropout(between, 0.5))
    np.testing.assert_allclose(output.data, expected.data, rtol=1e-12)
    np.testing.assert_allclose(last.data, np.concatenate([first.data, second.data]), rtol=1e-12)
    with pytest.warns(UserWarning, match="num_layers=1"):
        nn.LSTM(2, 3, dropout=0.1)


def test_an_input_that_needs_no_gradient_gets_none_computed(monkeypatch):
    asked, layer = [], nn.LSTM(2, 3)
    operation = dlnotes.autograd.OPERATIONS["lstm"]

    def backward(*arrays, **settings):
        asked.append(settings["output_mask"])
        return operation.backward(*arrays, **settings)

    monkeypatch.setitem(dlnotes.autograd.OPERATIONS, "lstm", operation._replace(backward=backward))
    x = h.draw(0, (4, 1, 2), np.float32)
    layer(x)[0].sum().backward()
    layer(tensor(x, requires_grad=True))[0].sum().backward()
    assert asked == [(False,) * 3 + (True,) * 4, (True, False, False) + (True,) * 4]
    with no_grad():
        assert not layer(x)[0].requires_grad


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "SimpleGRU"])
def test_nothing_to_do(name):
    """No sequences, or no steps."""
    layer = getattr(nn, name)(2, 3, bidirectional=True)
    output, *last = flat(layer(np.zeros((4, 0, 2), np.float32)))
    assert output.shape == (4, 0, 6)
    assert all(state.shape == (2, 0, 3) for state in last)
    output, *last = flat(layer(np.zeros((0, 4, 2), np.float32)))
    assert output.shape == (0, 4, 6)
    assert all(state.shape == (2, 4, 3) and not state.data.any() for state in last)


# ---- packed and padded -----------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(0, 2),
    h.shapes(0, 2, 1, 3),
    st.booleans(),
    st.booleans(),
    h.dtypes,
    h.layouts,
    h.seeds,
)
def test_packing_and_padding_as_torch(
    lengths, spare, rest, batch_first, enforce_sorted, dtype, layout, seed
):
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    steps = max(lengths) + spare
    leading = (len(lengths), steps) if batch_first else (steps, len(lengths))
    x = h.draw(seed, (*leading, *rest), dtype, 1, layout)
    mine, theirs = tensor(x, requires_grad=True), torch.tensor(x.copy(), requires_grad=True)
    packed = rnn.pack_padded_sequence(mine, lengths, batch_first, enforce_sorted)
    expected = torch_rnn.pack_padded_sequence(theirs, lengths, batch_first, enforce_sorted)
    for ours, wanted in zip(packed, expected, strict=True):
        assert (ours is None) == (wanted is None)
        if ours is not None:
            np.testing.assert_array_equal(ours.data, wanted.detach())
    total = None if spare == 2 else steps
    padded, sizes = rnn.pad_packed_sequence(packed, batch_first, -1.5, total)
    wanted, wanted_sizes = torch_rnn.pad_packed_sequence(expected, batch_first, -1.5, total)
    h.assert_close(padded.data, wanted, dtype)
    np.testing.assert_array_equal(sizes.data, wanted_sizes)
    np.testing.assert_array_equal(sizes.data, lengths)
    dy = h.draw(seed + 1, padded.shape, dtype)
    padded.backward(dy)
    wanted.backward(torch.tensor(dy))
    h.assert_close(mine.grad, theirs.grad, dtype)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
def test_pad_sequence_as_torch(batch_first, side, rest):
    lengths = [3, 1, 4, 0]
    arrays = [h.draw(i, (length, *rest), np.float64) for i, length in enumerate(lengths)]
    pairs = [both(a) for a in arrays]
    ours = rnn.pad_sequence([p[0] for p in pairs], batch_first, 9.0, side)
    theirs = torch_rnn.pad_sequence([p[1] for p in pairs], batch_first, 9.0, side)
    h.assert_close(ours.data, theirs, np.float64)
    dy = h.draw(9, ours.shape, np.float64)
    ours.backward(dy)
    theirs.backward(torch.tensor(dy))
    for mine, wanted in pairs:
        h.assert_close(mine.grad, wanted.grad, np.float64)


def test_words_are_padded_too():
    words = [np.array([3, 1, 4]), np.array([1])]
    padded = rnn.pad_sequence(words, batch_first=True)
    assert padded.dtype == np.int64
    np.testing.assert_array_equal(padded.data, [[3, 1, 4], [1, 0, 0]])
    for lengths in ([3, 1], np.array([3, 1]), Tensor(np.array([3, 1])), torch.tensor([3, 1])):
        packed = rnn.pack_padded_sequence(padded, lengths, batch_first=True)
        np.testing.assert_array_equal(packed.data.data, [3, 1, 1, 4])


# ---- errors ----------------------------------------------------------------------------------

x = np.ones((4, 2, 3), np.float32)
lstm, gru, cell = nn.LSTM(3, 5), nn.GRU(3, 5), nn.GRUCell(3, 5)
state = np.zeros((1, 2, 5), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.GRU(0, 5), ValueError, "input_size must be at least 1, got 0"),
        (lambda: nn.GRU(3, 5.0), TypeError, "hidden_size must be an int"),
        (lambda: nn.GRU(3, 5, 0), ValueError, "num_layers must be at least 1"),
        (lambda: nn.GRU(3, 5, 2, dropout=1.5), ValueError, "dropout must be in 0 … 1"),
        (lambda: nn.GRU(3, 5, bias=1), TypeError, "bias must be True or False, got int"),
        (lambda: nn.GRU(3, 5, batch_first=1), TypeError, "batch_first must be True or False"),
        (lambda: nn.GRU(3, 5, bidirectional=2), TypeError, "bidirectional must be True or False"),
        (lambda: nn.RNN(3, 5, nonlinearity="elu"), ValueError, "one of 'tanh', 'relu', got 'elu'"),
        (lambda: nn.RNNCell(3, 5, nonlinearity="elu"), ValueError, "one of 'tanh', 'relu'"),
        (lambda: gru(x[0, 0]), ValueError, r"input must have 2 or 3 axes, got shape \(3,\)"),
        (lambda: gru(x[..., :2]), ValueError, "last axis of input must have length 3, got 2"),
        (lambda: gru(x.astype(np.float64)), TypeError, "x is float64, h0 is float64, weight_ih is"),
        (lambda: gru(x, state[0]), ValueError, r"h_0 must have shape \(1, 2, 5\), got \(2, 5\)"),
        (lambda: gru(x[:, 0], state), ValueError, r"h_0 must have shape \(1, 1, 5\)"),
        (lambda: lstm(x, state), TypeError, r"hx must be the tensors \(h_0, c_0\), got ndarray"),
        (lambda: lstm(x, (state,)), TypeError, r"hx must be the tensors \(h_0, c_0\), got tuple"),
        (lambda: lstm(x, (state, state[0])), ValueError, "c_0 must have shape"),
        (lambda: cell(x), ValueError, "input must have 1 or 2 axes"),
        (lambda: cell(x[0], state), ValueError, r"h_0 must have shape \(2, 5\), got \(1, 2, 5\)"),
        (lambda: rnn.pack_padded_sequence(x[0, 0], [1]), ValueError, "at least 2 axes"),
        (lambda: rnn.pack_padded_sequence(x, [1, 2]), ValueError, "must not rise, got .* enforce"),
        (lambda: rnn.pack_padded_sequence(x, [5, 2]), ValueError, "lengths must be in 1 … 4"),
        (lambda: rnn.pack_padded_sequence(x, [4, 0]), ValueError, "lengths must be in 1 … 4"),
        (lambda: rnn.pack_padded_sequence(x, [4]), ValueError, r"lengths must have shape \(2,\)"),
        (lambda: rnn.pack_padded_sequence(x, [4.0, 1]), TypeError, "lengths must hold integers"),
        (lambda: rnn.pad_packed_sequence(x), TypeError, "must be a PackedSequence, got ndarray"),
        (
            lambda: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [4, 1]), total_length=3),
            ValueError,
            "total_length must be at least 4, got 3",
        ),
        (lambda: rnn.pad_sequence([]), TypeError, "list or tuple with at least one, got list"),
        (lambda: rnn.pad_sequence(x), TypeError, "list or tuple with at least one, got ndarray"),
        (lambda: rnn.pad_sequence([x, 1.0]), ValueError, "at least 1 axis, got a number"),
        (lambda: rnn.pad_sequence([x], padding_side="top"), ValueError, "one of 'right', 'left'"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
