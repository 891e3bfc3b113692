"""The tape: order, accumulation, broadcasting, every operation against torch, and errors."""

import gc
import weakref

import core_helpers as h
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import autograd
from dlnotes.autograd import Tensor, no_grad, tensor
from dlnotes.check import gradcheck

# ---- the tape --------------------------------------------------------------------------------


def test_topological_order_trap():
    """A naive walk passes b's gradient on before both uses of b have been counted."""
    a = tensor(1.0, requires_grad=True)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad == 4
    assert b.grad == 2
    assert c.grad == 1


def test_a_short_and_a_long_way_to_the_same_leaf():
    a = tensor(2.0, requires_grad=True)
    b = a * a
    d = b * a + b + a  # a³ + a² + a
    d.backward()
    assert a.grad == 3 * 4 + 2 * 2 + 1


def test_computational_graph_of_the_book():
    a, b, c = (tensor(v, requires_grad=True) for v in (5.0, 3.0, 2.0))
    j = 3 * (a + b * c)
    j.backward()
    assert j.item() == 33
    assert [t.grad.item() for t in (a, b, c)] == [3, 6, 9]
    assert j.op == "mul"
    assert [node.op for node in autograd.topological_order(j) if node.op] == ["mul", "add", "mul"]


def test_each_node_comes_after_its_parents_and_once():
    a = tensor([1.0, 2.0], requires_grad=True)
    b = a * 2
    c = (b + a) * (b - a) + b
    order = autograd.topological_order(c)
    assert order[-1] is c
    assert len(order) == len(set(order)) == 6
    for node in order:
        for parent in node.parents:
            assert not parent.requires_grad or order.index(parent) < order.index(node)


def test_leaves_accumulate_and_inner_nodes_do_not():
    a = tensor(3.0, requires_grad=True)
    b = a * a
    c = 1 * b
    c.backward()
    c.backward()
    assert a.grad == 12
    assert b.grad == 1
    a.zero_grad()
    assert a.grad is None
    c.backward()
    assert a.grad == 6


def test_deep_graphs_neither_recurse_nor_leak():
    a = tensor(1.0, requires_grad=True)
    b = a
    for _ in range(20_000):
        b = b + 0.5
    b.backward()
    assert a.grad == 1
    node = weakref.ref(b.parents[0])
    del b
    gc.disable()  # freed by counting references alone: a graph holds no cycles
    try:
        assert node() is None
    finally:
        gc.enable()


def test_gradients_do_not_alias():
    a, b = (tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    upstream = np.ones(2, np.float32)
    (a + b).backward(upstream)
    assert not np.shares_memory(a.grad, b.grad)
    a.grad *= 7
    np.testing.assert_array_equal(b.grad, 1)
    np.testing.assert_array_equal(upstream, 1)
    c = a * 2
    c.backward(upstream)
    assert not np.shares_memory(c.grad, upstream)
    a.reshape(2, 1).sum().backward()
    assert a.grad.flags.writeable


def test_constants_get_no_gradient():
    a, constant = tensor(2.0, requires_grad=True), tensor(3.0)
    (a * constant).backward()
    assert constant.grad is None
    assert not (constant * 2).requires_grad
    assert (constant * 2).parents == ()


def test_no_grad_records_nothing_and_ends():
    a = tensor(2.0, requires_grad=True)
    with no_grad():
        assert not (a * a).requires_grad
        with no_grad():
            pass
        assert not (a * a).requires_grad
    with pytest.raises(RuntimeError, match="left by an error"), no_grad():
        raise RuntimeError("left by an error")
    assert (a * a).requires_grad

    @no_grad()
    def square(x):
        return x * x

    assert not square(a).requires_grad


def test_detach_shares_data_without_history():
    a = tensor([1.0], requires_grad=True)
    b = (a * 2).detach()
    assert not b.requires_grad
    assert np.shares_memory(a.detach().numpy(), a.data)


def test_tensor_copies_and_Tensor_shares():
    data = np.ones(3)
    assert np.shares_memory(Tensor(data).data, data)
    assert not np.shares_memory(tensor(data).data, data)


def test_backward_seeds():
    a = tensor([1.0, 2.0], requires_grad=True)
    for gradient in ([3.0, 4.0], np.float32([3, 4]), tensor([3.0, 4.0])):
        a.zero_grad()
        (a * 2).backward(gradient)
        np.testing.assert_array_equal(a.grad, [6, 8])
        assert a.grad.dtype == np.float32


def test_an_operation_may_keep_residuals(operations):
    """What forward puts aside comes back to backward, and the next call has its own."""

    def forward(x, power):
        logarithm = np.log(x)
        return np.exp(power * logarithm), logarithm

    def backward(dy, y, x, power, residuals):
        np.testing.assert_array_equal(residuals, np.log(x))
        return (dy * power * np.exp((power - 1) * residuals),)

    autograd.register("power by logarithm", forward, backward, keeps=True)
    a, b = (tensor(np.array(v), requires_grad=True) for v in ([2.0, 3.0], [5.0]))
    y = autograd.apply("power by logarithm", a, power=2)
    z = autograd.apply("power by logarithm", b, power=3)
    (y.sum() + z.sum()).backward()
    np.testing.assert_allclose(a.grad, [4, 6])
    np.testing.assert_allclose(b.grad, [75])
    assert not autograd.apply("power by logarithm", a.detach(), power=2).requires_grad


def test_selective_operations_learn_which_gradients_are_wanted(operations):
    asked = []

    def backward(dy, y, a, b, output_mask):
        asked.append(output_mask)
        return [dy if wanted else None for wanted in output_mask]

    autograd.register("sum of two", np.add, backward, selective=True)
    weight, constant = tensor([1.0], requires_grad=True), tensor([2.0])
    autograd.apply("sum of two", weight, constant).backward()
    autograd.apply("sum of two", constant, weight).backward()
    autograd.apply("sum of two", weight, weight).backward()
    assert asked == [(True, False), (False, True), (True, True)]
    assert constant.grad is None
    assert weight.grad == 4
    # What counts is what is wanted at the time of the backward pass.
    y = autograd.apply("sum of two", weight, constant)
    constant.requires_grad, weight.requires_grad = True, False
    y.backward()
    assert asked[-1] == (False, True)
    assert (weight.grad, constant.grad) == (4, 1)


@pytest.mark.parametrize("name", ["mul", "div", "matmul", "linear", "conv1d"])
def test_constants_cost_no_gradient(name, monkeypatch):
    shapes = {"linear": [(2, 3), (4, 3), (4,)], "conv1d": [(2, 3, 4), (4, 3, 2), (4,)]}
    arrays = [h.draw(i, s, np.float64) for i, s in enumerate(shapes.get(name, [(3, 3), (3, 3)]))]
    operation, computed = autograd.OPERATIONS[name], []

    def backward(*given, **settings):
        gradients = operation.backward(*given, **settings)
        computed.append([gradient is not None for gradient in gradients])
        return gradients

    monkeypatch.setitem(autograd.OPERATIONS, name, operation._replace(backward=backward))
    for i in range(len(arrays)):
        inputs = [tensor(a, requires_grad=i == j) for j, a in enumerate(arrays)]
        autograd.apply(name, *inputs).sum().backward()
        assert computed[-1] == [i == j for j in range(len(arrays))]


@pytest.fixture
def operations(monkeypatch):
    """Let a test register operations of its own."""
    monkeypatch.setattr(autograd, "OPERATIONS", dict(autograd.OPERATIONS))


def test_every_operation_is_registered_once():
    with pytest.raises(ValueError, match="'add' is registered already"):
        autograd.register("add", np.add, lambda dy, y, a, b: (dy, dy))


# ---- operations against torch ----------------------------------------------------------------


def check(function, *arrays, scale=10.0):
    """Run the function on our tensors and on torch's; values and gradients must agree."""
    ours = [tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(np.array(a, order="C"), requires_grad=True) for a in arrays]
    y, expected = function(*ours), function(*theirs)
    dtype = arrays[0].dtype
    h.assert_close(y.data, expected, dtype, scale)
    dy = h.draw(0, y.shape, dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    for mine, torchs in zip(ours, theirs, strict=True):
        assert isinstance(mine.grad, np.ndarray)
        h.assert_close(mine.grad, torchs.grad, dtype, scale)


BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 1),
    "both sides": lambda a, b: a * b + a,
}


@st.composite
def broadcastable(draw):
    """Two shapes that broadcast: axes dropped from the front, or shrunk to 1."""
    shape = draw(h.shapes(0, 4, 0, 4))
    result = []
    for _ in range(2):
        part = shape[draw(st.integers(0, len(shape))) :]
        result.append(tuple(1 if draw(st.booleans()) else n for n in part))
    return result


@pytest.mark.parametrize("name", BINARY)
@settings(deadline=None, max_examples=30)
@given(broadcastable(), h.dtypes, h.layouts, h.seeds)
def test_arithmetic_broadcasts_as_torch(name, both, dtype, layout, seed):
    a, b = (h.draw(seed + i, shape, dtype, 1, layout) for i, shape in enumerate(both))
    check(BINARY[name], a, b, scale=100)


UNARY = {
    "neg": lambda x: -x,
    "abs": lambda x: abs(x) + x.abs(),
    "exp": lambda x: x.exp(),
    "log": lambda x: (x * x + 1).log(),
    "sqrt": lambda x: (x * x + 1).sqrt(),
    "tanh": lambda x: x.tanh(),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "power 0": lambda x: x**0,
    "power 1": lambda x: x**1,
    "power -1": lambda x: (x * x + 1) ** -1,
    "power 1.5": lambda x: (x * x + 1) ** 1.5,
    "right-hand": lambda x: 2 - x + 3 / (x * x + 1) + 2 * x + 1,
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(),
    "T": lambda x: x.permute(*reversed(range(x.ndim))),
    "reshape": lambda x: x.reshape(-1) if 0 not in x.shape else x,
    "list reshape": lambda x: x.reshape([*x.shape, 1]),
}


@pytest.mark.parametrize("name", UNARY)
@settings(deadline=None, max_examples=15)
@given(h.shapes(1, 3), h.dtypes, h.layouts, h.seeds)
def test_functions_of_one_tensor_as_torch(name, shape, dtype, layout, seed):
    if name == "mean" and 0 in shape:
        return  # NaN, tested below
    check(UNARY[name], h.draw(seed, shape, dtype, 1, layout), scale=100)


@pytest.mark.parametrize("name", ["sum", "mean", "amax"])
@settings(deadline=None, max_examples=25)
@given(
    h.shapes(1, 4, 1, 4),
    st.data(),
    st.booleans(),
    h.dtypes,
    h.seeds,
)
def test_reductions_as_torch(name, shape, data, keepdim, dtype, seed):
    axes = data.draw(st.sets(st.integers(-len(shape), -1), min_size=1))
    dim = next(iter(axes)) if len(axes) == 1 else tuple(axes)
    values = np.round(h.draw(seed, shape, dtype, 2))  # rounded: maxima tie
    if name == "amax":
        check(lambda x: x.max(dim=dim, keepdim=keepdim) if isinstance(x, Tensor)
              else x.amax(dim=dim, keepdim=keepdim), values)  # fmt: skip
    else:
        check(lambda x: getattr(x, name)(dim=dim, keepdim=keepdim), values)
        ours = getattr(Tensor(values), name)(axis=dim, keepdims=keepdim)
        h.assert_close(ours.data, getattr(values, name)(dim, keepdims=keepdim), dtype, 10)


MATMUL = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("a", "b"), MATMUL)
def test_matmul_as_torch(a, b, dtype):
    check(lambda x, y: x @ y, h.draw(1, a, dtype), h.draw(2, b, dtype))


INDICES = {
    "row": lambda x: x[1],
    "element": lambda x: x[1, 2],
    "slice": lambda x: x[:, 1:3],
    "steps": lambda x: x[::2],
    "newaxis": lambda x: x[:, None],
    "ellipsis": lambda x: x[..., 0],
    "the same row twice": lambda x: x[[0, 2, 0]],
    "pairs, one twice": lambda x: x[[0, 1, 0], [2, 3, 2]],
    "nothing": lambda x: x[0:0],
    "iteration": lambda x: sum(row * i for i, row in enumerate(x)),
}


@pytest.mark.parametrize("name", INDICES)
def test_indexing_as_torch(name):
    check(INDICES[name], h.draw(0, (3, 4), np.float64))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (4, 0), (4,)])
@pytest.mark.parametrize("rows", [[0, -1, 3, -4, 0], [], [[1, 1], [2, 0]], [True, False] * 2])
def test_picking_rows_as_torch(shape, rows):
    index = torch.tensor(rows) if rows else torch.tensor(rows).long()
    for dtype in (np.float32, np.float64):
        check(lambda x: x[rows if isinstance(x, Tensor) else index], h.draw(0, shape, dtype))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint64])
def test_picking_rows_by_integers_of_any_kind(kind):
    x = tensor(np.ones((300, 2)), requires_grad=True)
    rows = [1, 100, 1] if np.dtype(kind).kind == "u" else [1, -1, 1]
    x[np.array(rows, kind)].sum().backward()
    expected = np.zeros((300, 2))
    np.add.at(expected, rows, 1)
    np.testing.assert_array_equal(x.grad, expected)


def test_infinite_and_undefined_results_come_without_a_warning():
    """As in torch; in the tests warnings are errors."""
    values = np.float32([-1e4, -1.0, 0.0, 1e4, np.inf, np.nan])
    for name in ("exp", "log", "sqrt"):
        check(lambda x, name=name: getattr(x, name)(), values)
    for function in (
        lambda x: 1 / x,
        lambda x: x / 0,
        lambda x: x * x * x * x * x * x * x * x * x * x,
        lambda x: x - x,
        lambda x: x**-0.5,
        lambda x: x**3,
        lambda x: x @ x,
        lambda x: (x * 0).sum(),
        lambda x: x * float("inf"),
    ):
        check(function, values)


def test_indexing_by_arrays_tensors_and_masks():
    x = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows = np.array([0, 1])
    for index in ((rows, [1, 0]), (Tensor(rows), Tensor(np.array([1, 0])))):
        np.testing.assert_array_equal(x[index].data, [2, 3])
    x[x.data > 2].sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 0], [1, 1]])


def test_views_share_memory_as_in_torch():
    x = torch.zeros(2, 3, 4)
    for view in (
        lambda x: x.detach(),
        lambda x: x.reshape(6, 4),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.transpose(0, 1).transpose(0, 1).flatten(),
        lambda x: x[1, :, 1:3],
        lambda x: x.unsqueeze(1).squeeze(),
        lambda x: x.split(2, -1)[1],
        lambda x: x.transpose(0, 1).reshape(6, 4),  # here both must copy
        lambda x: x[[0, 1]],
    ):
        mine = Tensor(x.numpy())
        theirs = view(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        assert np.shares_memory(view(mine).data, mine.data) == theirs


def test_axes_exchanged_as_torch():
    check(lambda x: x.transpose(0, 2), h.draw(0, (2, 3, 4), np.float64))
    check(lambda x: x.transpose(-1, 1), h.draw(0, (2, 3, 4), np.float64))
    check(lambda x: x.permute(2, 0, 1), h.draw(0, (2, 3, 4), np.float64))
    check(lambda x: x.permute((2, 0, 1)), h.draw(0, (2, 3, 4), np.float64))
    check(lambda x: x.T, h.draw(0, (2, 3), np.float64))


SHAPES = {
    "flatten": lambda x: x.flatten(),
    "flatten from 1": lambda x: x.flatten(1),
    "flatten two": lambda x: x.flatten(start_dim=-3, end_dim=1),
    "view": lambda x: x.view(3, 2, -1),
    "view of a list": lambda x: x.view([1, 12]),
    "unsqueeze": lambda x: x.unsqueeze(0).unsqueeze(-1).unsqueeze(2),
    "squeeze": lambda x: x.squeeze(),
    "squeeze one": lambda x: x.squeeze(1),
    "squeeze none": lambda x: x.squeeze(0),
    "squeeze some": lambda x: x.squeeze((1, -1)),
    "split": lambda x: sum(part.sum() * i for i, part in enumerate(x.split(2, dim=2))),
    "split by sizes": lambda x: x.split([1, 0, 3], dim=-2)[2],
    "chunk": lambda x: sum(part.sum() * i for i, part in enumerate(x.chunk(3, dim=2))),
    "clamp": lambda x: x.clamp(-0.5, 1),
    "clamp below": lambda x: x.clamp(min=0.25),
    "clamp above": lambda x: x.clamp(max=-0.25),
    "clamp to nothing": lambda x: x.clamp(0.5, -0.5),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_bounds_as_torch(name, dtype):
    check(SHAPES[name], h.draw(0, (3, 1, 4, 1) if name != "split by sizes" else (3, 4, 2), dtype))


@pytest.mark.parametrize("n", [0, 1, 5, 6, 7])
def test_pieces_are_as_large_as_torchs(n):
    x = np.arange(2 * n).reshape(2, n)
    for cut in ("split", "chunk"):
        for size in (1, 2, 3, 10):
            ours = getattr(Tensor(x), cut)(size, dim=1)
            theirs = getattr(torch.tensor(x), cut)(size, dim=1)
            assert isinstance(ours, tuple)
            assert [p.shape for p in ours] == [tuple(p.shape) for p in theirs]
            for mine, torchs in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine.data, torchs)


def test_derivative_at_the_bounds_and_nan():
    values = np.array([-1.0, -0.5, 0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])
    for low, high in ((-0.5, 1), (None, 1.0), (-0.5, None)):
        ours = tensor(values, requires_grad=True)
        theirs = torch.tensor(values, requires_grad=True)
        ours.clamp(low, high).backward(np.ones(8))
        theirs.clamp(low, high).backward(torch.ones(8).double())
        np.testing.assert_array_equal(ours.grad, theirs.grad)


@settings(deadline=None, max_examples=40)
@given(h.shapes(1, 4, 0, 3), st.data(), h.dtypes, h.layouts, h.seeds)
def test_cat_and_stack_as_torch(shape, data, dtype, layout, seed):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = []
    for i, length in enumerate(lengths):
        part = list(shape)
        part[dim] = length
        parts.append(h.draw(seed + i, part, dtype, 1, layout))
    if (0,) not in [part.shape for part in parts]:  # torch gives those no gradient
        check(lambda *x: (autograd if isinstance(x[0], Tensor) else torch).cat(x, dim=dim), *parts)
    same = [h.draw(seed + i, shape, dtype, 1, layout) for i in range(len(lengths))]
    new = data.draw(st.integers(-len(shape) - 1, len(shape)))
    check(lambda *x: (autograd if isinstance(x[0], Tensor) else torch).stack(x, new), *same)


@settings(deadline=None, max_examples=30)
@given(broadcastable(), h.shapes(0, 2, 1, 1), h.dtypes, h.seeds)
def test_where_as_torch(both, extra, dtype, seed):
    a, b = (h.draw(seed + i, shape, dtype) for i, shape in enumerate(both))
    mask = np.random.default_rng(seed).random((*extra, *np.broadcast_shapes(*both))) < 0.5
    if a.size:
        a[...] = np.where(a > 1, np.inf, a)  # infinities where they are not chosen do no harm

    def choose(x, y):
        if isinstance(x, Tensor):
            return autograd.where(mask, x, y)
        return torch.where(torch.tensor(mask), x, y)

    check(choose, a, b)


def test_masked_fill_as_torch():
    x, mask = h.draw(0, (2, 3, 3), np.float32), np.tri(3, dtype=bool)

    def fill(x):
        return x.masked_fill(Tensor(mask) if isinstance(x, Tensor) else torch.tensor(mask), 2)

    check(fill, x)
    scores = tensor(x, requires_grad=True).masked_fill(~mask, -np.inf)
    assert scores.dtype == np.float32
    assert (scores.data[:, ~mask] == -np.inf).all()


MASK = np.array([[True, False, True], [False, False, True]])
NUMERIC = {
    "cat": lambda a, b: autograd.cat([a, b * b, a], dim=1),
    "stack": lambda a, b: autograd.stack([a, b * b, a], dim=-1),
    "where": lambda a, b: autograd.where(MASK, a * a, b),
    "masked_fill": lambda a, b: (a * b).masked_fill(MASK, 3.0),
    "clamp": lambda a, b: (a * b).clamp(-0.2, 0.3),
    "rows": lambda a, b: (a * b)[[1, 0, 1, 1]],
    "columns": lambda a, b: (a * b)[:, [2, 0, 2]],
    "mask": lambda a, b: (a * b)[MASK],
    "chunk": lambda a, b: a.chunk(2, dim=1)[0] * b.chunk(2, dim=1)[0],
}


@pytest.mark.parametrize("name", NUMERIC)
def test_gradients_are_the_numeric_ones(name):
    arrays = [h.draw(i, (2, 3), np.float64) for i in range(2)]
    gradcheck(NUMERIC[name], tuple(arrays))


def test_comparisons_and_sizes():
    a, b = tensor([1.0, 2.0, 3.0]), tensor([3.0, 2.0, 1.0])
    for ours, expected in (
        (a < b, [True, False, False]),
        (a <= 2, [True, True, False]),
        (a > b.data, [False, False, True]),
        (b.data <= a, [False, True, True]),
    ):
        assert ours.dtype == np.bool_
        assert not ours.requires_grad
        np.testing.assert_array_equal(ours.data, expected)
    np.testing.assert_array_equal(a[a > 1].data, [2, 3])
    assert a != b
    assert a == a
    assert tensor(np.ones((2, 3))).size() == (2, 3)
    assert tensor(np.ones((2, 3))).size(-1) == 3


def is_tested_here(name):
    """Losses and the layers of images and words have tests of their own."""
    own = ["loss", "conv", "pool", "norm", "fold", "gaussian", "embedding", "dropout", "bilin"]
    own += ["attention", "roi", "gram", "variation", "reparam", "pad", "rnn", "gru", "lstm"]
    return not any(word in name for word in own)


@pytest.mark.parametrize("name", list(filter(is_tested_here, autograd.OPERATIONS)))
def test_every_operation_keeps_float32(name):
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0.1, 0.9, (2, 2)).astype(np.float32)]
    constants = {
        "pow": {"exponent": 2},
        "sum": {"axis": 0, "keepdims": False},
        "mean": {"axis": 0, "keepdims": False},
        "max": {"axis": 0, "keepdims": False},
        "reshape": {"shape": (4,)},
        "permute": {"dims": (1, 0)},
        "getitem": {"index": 0},
        "maxout": {"pool_size": 2},
        "cat": {"dim": 0},
        "stack": {"dim": 0},
        "where": {"condition": np.array([True, False])},
        "clamp": {"min": 0.3, "max": None},
        "cross_entropy": {"target": np.array([0, 1])},
    }.get(name, {})
    if name in ("add", "sub", "mul", "div", "matmul", "linear", "cat", "stack", "where"):
        inputs = inputs * 2
    if name in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div"):
        constants = {"target": inputs[0]}
    tensors = [tensor(x, requires_grad=True) for x in inputs]
    y = autograd.apply(name, *tensors, **constants)
    assert y.dtype == np.float32
    y.backward(np.ones_like(y.data))
    assert all(t.grad.dtype == np.float32 for t in tensors)


# ---- values and types ------------------------------------------------------------------------


def test_dtypes():
    assert tensor(1.0).dtype == np.float32
    assert tensor([1.0, 2.0]).dtype == np.float32
    assert tensor(np.ones(2)).dtype == np.float64
    assert tensor([1, 2]).dtype == np.int64
    x32 = tensor([1.0], requires_grad=True)
    for other in (2, 2.0, True, np.float64(2), np.int64(2), np.array([2]), [2.0]):
        assert (x32 * other).dtype == np.float32
        assert (other * x32).dtype == np.float32
        assert (other - x32).dtype == np.float32
    assert (Tensor(np.array([2])) * x32).dtype == np.float32
    x64 = tensor(np.ones(1), requires_grad=True)
    assert (x64 * 2.0).dtype == np.float64
    for product in (x64 * 0.1, 0.1 * x64, x64 * [0.1]):  # 0.1 is not rounded to float32 on the way
        assert product.data[0] == 0.1


def test_arrays_on_the_left():
    w = tensor(np.ones((3, 2)), requires_grad=True)
    x = np.arange(6.0).reshape(2, 3)
    y = x @ w
    assert isinstance(y, Tensor)
    y.sum().backward()
    np.testing.assert_array_equal(w.grad, np.outer(x.sum(axis=0), [1, 1]))
    assert isinstance(np.ones((3, 2)) + w, Tensor)


def test_leaving_the_tape():
    x = tensor([1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(x), [1, 2])
    assert x.numpy() is x.data
    assert len(x) == 2
    assert float(tensor(2.5)) == tensor([[2.5]]).item() == 2.5
    assert isinstance(tensor(2).item(), int)
    assert tensor(2.5).shape == ()


def test_mean_of_nothing_is_nan():
    x = tensor(np.ones((0, 2)), requires_grad=True)
    y = x.mean()
    assert np.isnan(y.item())
    y.backward()
    assert x.grad.shape == (0, 2)


def test_repr():
    x = tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == "tensor([1. , 2.5], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 5.], op='mul')"
    assert repr(tensor([1, 2])) == "tensor([1, 2])"
    assert repr(tensor(np.ones(1))) == "tensor([1.], dtype=float64)"


x = tensor([[1.0, 2.0]], requires_grad=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Tensor("text"), TypeError, "data must be float32, float64, integers or bool"),
        (lambda: Tensor(np.ones(2, np.float16)), TypeError, "got float16"),
        (lambda: Tensor([1j]), TypeError, "got complex128"),
        (lambda: Tensor(None), TypeError, "got object"),
        (lambda: Tensor(x), TypeError, "got a Tensor; use detach"),
        (lambda: Tensor([1, 2], requires_grad=True), TypeError, "only float tensors"),
        (lambda: x.backward(), ValueError, r"shape \(1, 2\) needs a gradient of that shape"),
        (lambda: x.backward([1.0, 2.0]), ValueError, r"gradient must have shape \(1, 2\)"),
        (lambda: x.backward(np.ones((1, 2))), TypeError, "gradient is float64, tensor is float32"),
        (lambda: x.detach().backward(), RuntimeError, "requires a gradient, this one does not"),
        (lambda: x.numpy(), RuntimeError, r"detach\(\).numpy\(\)"),
        (lambda: np.asarray(x), RuntimeError, r"detach\(\).numpy\(\)"),
        (lambda: x.item(), ValueError, r"item\(\) needs one element, got shape \(1, 2\)"),
        (lambda: x + np.ones(2), TypeError, "both sides must have the same dtype, got float32 and"),
        (lambda: np.ones(2) * x, TypeError, "both sides must have the same dtype"),
        (lambda: x + "1", TypeError, "data must be float32"),
        (lambda: x**x, TypeError, "the exponent must be a number, got Tensor"),
        (lambda: x**True, TypeError, "the exponent must be a number, got bool"),
        (lambda: np.exp(x), TypeError, "does not support ufuncs"),
        (lambda: x.sum(axis=2), ValueError, "axis must be in -2 … 1, got 2"),
        (lambda: x.sum(axis=(0, -2)), ValueError, "axis must name each axis at most once"),
        (lambda: x.mean(axis=0, dim=0), TypeError, "either axis or dim"),
        (lambda: x.max(axis="0"), TypeError, "axis must be an int"),
        (lambda: x.reshape(3), ValueError, r"hold the 2 elements of \(1, 2\), got \(3,\)"),
        (lambda: x.flatten(1, 0), ValueError, "start_dim must not come after end_dim, got 1 and 0"),
        (lambda: x.unsqueeze(3), ValueError, "dim must be in -3 … 2, got 3"),
        (lambda: x.squeeze(2), ValueError, "dim must be in"),
        (lambda: x.size(2), ValueError, "dim must be in"),
        (lambda: x.split(0), ValueError, "split_size must be at least 1, got 0"),
        (lambda: x.split([1, 2], 1), ValueError, r"split_size must add up to axis 1's 2, got \[1"),
        (lambda: x.chunk(0), ValueError, "chunks must be at least 1"),
        (lambda: x.clamp(), ValueError, "min or max must be given"),
        (lambda: x.clamp(x), TypeError, "min must be a number or None, got Tensor"),
        (lambda: x.clamp(max=True), TypeError, "max must be a number or None, got bool"),
        (lambda: x.masked_fill(x, 0), TypeError, "mask must be bool, got float32"),
        (lambda: x.masked_fill(x > 1, x), ValueError, "value must be one number"),
        (lambda: x < "1", TypeError, "data must be"),
        (lambda: autograd.where(x, x, x), TypeError, "condition or mask must be bool"),
        (lambda: autograd.cat([]), ValueError, r"tensors must hold at least one tensor, got \[\]"),
        (lambda: autograd.cat(x), TypeError, "list or tuple of tensors, got Tensor"),
        (lambda: autograd.cat([x, np.ones((1, 2))]), TypeError, "got float32 and float64"),
        (lambda: autograd.cat([x, x], dim=2), ValueError, "dim must be in"),
        (lambda: autograd.cat([x, x.T]), ValueError, r"axis but 0, got \(1, 2\) and \(2, 1\)"),
        (lambda: autograd.cat([x, x[0]]), ValueError, r"axis but 0, got \(1, 2\) and \(2,\)"),
        (lambda: autograd.stack([x, x.T]), ValueError, r"one shape, got \(1, 2\) and \(2, 1\)"),
        (lambda: x.transpose(0, 2), ValueError, "dim1 must be in"),
        (lambda: x.permute(0), ValueError, "dims must name each of the 2 axes once"),
        (lambda: x @ x, ValueError, r"columns on the left .* got shapes \(1, 2\) and \(1, 2\)"),
        (lambda: x @ tensor(2.0), ValueError, r"at least 1 axis on each side, got \(1, 2\) and"),
        (
            lambda: tensor(np.ones((2, 3, 2), np.float32)) @ x.reshape(1, 2, 1).data.repeat(3, 0),
            ValueError,
            r"the shapes \(2,\) and \(3,\) do not broadcast",
        ),
        (lambda: x + np.ones(3, np.float32), ValueError, r"\(1, 2\) and \(3,\) do not broadcast"),
        (lambda: x < np.ones(3, np.float32), ValueError, r"\(1, 2\) and \(3,\) do not broadcast"),
        (
            lambda: x.masked_fill(np.ones(3, bool), 0),
            ValueError,
            r"\(3,\), \(\) and \(1, 2\) do not",
        ),
        (lambda: x.reshape(-1, -1), ValueError, r"one length of -1, got \(-1, -1\)"),
        (lambda: x.reshape(4, -1), ValueError, r"hold the 2 elements of \(1, 2\), got \(4, -1\)"),
        (lambda: x.reshape(2.0), TypeError, "shape must be an int, got float"),
        (lambda: x[5], IndexError, "out of bounds"),
        (lambda: autograd.apply("no such", x), ValueError, "op must be one of"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
