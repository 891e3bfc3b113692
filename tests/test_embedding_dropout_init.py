"""Embedding, bags, one-hot codes, bilinear layers, dropout and initialisers against torch."""

import functools
import math

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes
from dlnotes import check, data, kernels, nn, optim, train
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as ours
from dlnotes.nn import init

kinds = st.sampled_from([np.int64, np.int32, np.uint8])


def integers(seed, high, shape, kind=np.int64, layout="contiguous"):
    values = np.random.default_rng(seed).integers(0, high, shape)
    return h.laid_out(np.asarray(values, kind), layout)


def labels_of(array):
    return torch.tensor(np.array(array, order="C")).long()


# ---- one-hot and scatter-add -----------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(h.shapes(0, 3), st.integers(1, 6), kinds, h.layouts, h.seeds)
def test_one_hot(shape, classes, kind, layout, seed):
    labels = integers(seed, classes, shape, kind, layout)
    actual = h.assert_pure(lambda a: kernels.one_hot(a, classes), labels)
    expected = F.one_hot(labels_of(labels), classes).numpy()
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == np.int64
    if labels.size:
        np.testing.assert_array_equal(kernels.one_hot(labels), F.one_hot(labels_of(labels)))
        np.testing.assert_array_equal(ours.one_hot(Tensor(labels), classes).data, expected)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 120), st.integers(0, 4), st.integers(1, 40), h.dtypes, h.layouts, kinds, h.seeds
)
def test_scatter_add_equals_its_loops(n, d, size, dtype, layout, kind, seed):
    rng = np.random.default_rng(seed)
    values = h.draw(seed, (n, d), dtype, 1.0, layout)
    # Some rows often, some once, some never.
    indices = np.minimum(rng.geometric(0.2, n) - 1, size - 1).astype(kind)
    actual = h.assert_pure(lambda v, i: kernels.scatter_add(v, i, size), values, indices)
    h.assert_close(actual, kernels.scatter_add_loops(values, indices, size), dtype, 20)
    expected = np.zeros((size, d))
    np.add.at(expected, indices, values)
    h.assert_close(actual, expected, dtype, 20)


# ---- embedding -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    h.shapes(0, 3),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([None, 0, -1]),
    st.booleans(),
    h.dtypes,
    h.layouts,
    kinds,
    h.seeds,
)
def test_embedding(shape, rows, d, padding, by_freq, dtype, layout, kind, seed):
    input = integers(seed, rows, shape, kind, layout)
    weight = h.draw(seed, (rows, d), dtype, 1.0, layout)
    dy = h.draw(seed + 1, (*np.shape(input), d), dtype, 1.0, layout)
    y = h.assert_pure(lambda i, w: kernels.embedding(i, w, padding), input, weight)
    dweight = h.assert_pure(
        lambda g, i, w: kernels.embedding_backward(g, i, w, padding, scale_grad_by_freq=by_freq),
        *(dy, input, weight),
    )
    tensor = torch.tensor(weight.copy(), requires_grad=True)
    expected = F.embedding(labels_of(input), tensor, padding, scale_grad_by_freq=by_freq)
    expected.backward(torch.tensor(dy.copy()))
    h.assert_close(y, expected, dtype)
    h.assert_close(dweight, tensor.grad, dtype, 10)


@st.composite
def bags(draw):
    """Draw (input, offsets, include_last_offset), empty bags among them."""
    rows, seed = draw(st.integers(1, 6)), draw(h.seeds)
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)))  # torch refuses length 0
        return integers(seed, rows, shape), None, False, rows, seed
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    input = integers(seed, rows, sum(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    last = draw(st.booleans())
    return input, starts if last else starts[:-1], last, rows, seed


@settings(deadline=None, max_examples=100)
@given(
    bags(),
    st.integers(1, 3),
    st.sampled_from(["sum", "mean", "max", "weighted"]),
    st.sampled_from([None, 0, -1]),
    h.dtypes,
)
def test_embedding_bag(drawn, d, mode, padding, dtype):
    input, offsets, last, rows, seed = drawn
    weight = h.draw(seed, (rows, d), dtype)
    samples = h.draw(seed + 1, input.shape, dtype) if mode == "weighted" else None
    mode = "sum" if mode == "weighted" else mode
    keywords = {"mode": mode, "include_last_offset": last, "padding_idx": padding}

    tensors = [torch.tensor(weight, requires_grad=True)]
    tensors += [] if samples is None else [torch.tensor(samples, requires_grad=True)]
    expected = F.embedding_bag(
        torch.tensor(input),
        tensors[0],
        None if offsets is None else torch.tensor(offsets),
        per_sample_weights=None if samples is None else tensors[1],
        **keywords,
    )
    y = kernels.embedding_bag(input, weight, offsets, per_sample_weights=samples, **keywords)
    h.assert_close(y, expected, dtype, 10)
    dy = h.draw(seed + 2, y.shape, dtype)
    expected.backward(torch.tensor(dy))
    before = weight.copy(), input.copy(), dy.copy()
    gradients = kernels.embedding_bag_backward(
        dy, input, weight, offsets, per_sample_weights=samples, **keywords
    )
    for array, copy in zip((weight, input, dy), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert (gradients[1] is None) == (samples is None)
    for gradient, tensor in zip(gradients, tensors, strict=False):
        h.assert_close(gradient, tensor.grad, dtype, 10)


def test_gradients_numerically():
    rng = np.random.default_rng(0)
    weight, input = rng.standard_normal((5, 3)), np.array([[1, 1, 4], [0, 4, 1]])
    samples = rng.standard_normal(input.shape)
    check.gradcheck(lambda w: ours.embedding(input, w), weight, expected=weight[input])
    for mode in ("sum", "mean", "max"):
        expected = getattr(np, mode)(weight[input], axis=1)
        function = functools.partial(ours.embedding_bag, input, mode=mode)
        check.gradcheck(function, weight, expected=expected)
    check.gradcheck(
        lambda w, s: ours.embedding_bag(input, w, mode="sum", per_sample_weights=s),
        (weight, samples),
        expected=(weight[input] * samples[..., None]).sum(axis=1),
    )
    x1, x2, w, b = (rng.standard_normal(shape) for shape in ((2, 3), (2, 4), (5, 3, 4), (5,)))
    check.gradcheck(
        ours.bilinear, (x1, x2, w, b), expected=np.einsum("ni,kij,nj->nk", x1, w, x2) + b
    )
    keep = rng.uniform(size=(2, 3)) > 0.3
    check.gradcheck(
        lambda x: kernels.dropout(x, keep, 0.3),
        x1,
        backward=lambda dy, x: kernels.dropout_backward(dy, keep, 0.3),
        expected=np.where(keep, x1 / 0.7, 0),
    )


def test_embedding_layers_equal_torchs():
    for padding in (None, 2, -1):
        layer, theirs = nn.Embedding(6, 3, padding), torch.nn.Embedding(6, 3, padding)
        assert repr(layer) == repr(theirs)
        assert (padding is None) or not layer.weight.data[padding].any()
        layer.load_state_dict(theirs.state_dict())
        input = np.array([[1, 2, 2], [5, 0, 2]])
        y, expected = layer(input), theirs(torch.tensor(input))
        (y * y).sum().backward()
        (expected * expected).sum().backward()
        h.assert_close(y.detach().numpy(), expected, np.float32)
        h.assert_close(layer.weight.grad, theirs.weight.grad, np.float32, 10)
    for kind in ("Embedding", "EmbeddingBag"):
        layer, theirs = (getattr(m, kind)(6, 3, max_norm=0.5) for m in (nn, torch.nn))
        assert repr(layer) == repr(theirs)
        layer.load_state_dict(theirs.state_dict())
        h.assert_close(
            layer(input).detach().numpy(), theirs(torch.tensor(input)), np.float32, factor=2
        )
        h.assert_close(layer.weight.data, theirs.weight, np.float32)
    bag, theirs = nn.EmbeddingBag(6, 3, mode="max"), torch.nn.EmbeddingBag(6, 3, mode="max")
    assert repr(bag) == repr(theirs)
    bag.load_state_dict(theirs.state_dict())
    offsets = np.array([0, 2])
    y = bag(Tensor(input[0]), offsets)
    h.assert_close(
        y.detach().numpy(), theirs(torch.tensor(input[0]), torch.tensor(offsets)), np.float32
    )


@settings(deadline=None, max_examples=40)
@given(
    h.shapes(1, 2, 0, 4),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([1.0, 2.0, 3.0]),
    h.dtypes,
    h.scales,
    h.seeds,
)
def test_rows_are_cut_down_to_the_largest_norm(shape, d, max_norm, norm_type, dtype, scale, seed):
    numbers = np.random.default_rng(seed).integers(0, 6, shape)
    table = h.draw(seed, (6, d), dtype, scale)
    mine, theirs = nn.Parameter(table.copy()), torch.nn.Parameter(torch.tensor(table))
    settings = {"max_norm": max_norm, "norm_type": norm_type}
    y = ours.embedding(numbers, mine, **settings)
    expected = F.embedding(torch.tensor(numbers), theirs, **settings)
    h.assert_close(mine.data, theirs, dtype, scale, factor=2)
    h.assert_close(y.data, expected, dtype, scale, factor=2)
    y.sum().backward()
    expected.sum().backward()
    h.assert_close(mine.grad, theirs.grad, dtype, 10)
    if len(shape) == 2 and shape[1]:  # torch has no bags of no indices
        mine, theirs = nn.Parameter(table.copy()), torch.nn.Parameter(torch.tensor(table))
        y = ours.embedding_bag(numbers, mine, mode="sum", **settings)
        expected = F.embedding_bag(torch.tensor(numbers), theirs, mode="sum", **settings)
        h.assert_close(mine.data, theirs, dtype, scale, factor=2)
        h.assert_close(y.data, expected, dtype, scale, factor=4)


def test_a_pretrained_table():
    table = np.arange(6.0).reshape(3, 2)
    layer = nn.Embedding.from_pretrained(table)
    assert not layer.weight.requires_grad
    assert layer.weight.dtype == np.float64
    layer.weight.data[0] = 9
    assert table[0, 0] == 0  # a copy
    tuned = nn.Embedding.from_pretrained(torch.tensor(table), freeze=False, padding_idx=1)
    np.testing.assert_array_equal(tuned(np.array([1, 2])).data, table[1:])
    assert tuned.weight.requires_grad
    with pytest.raises(ValueError, match="embeddings must have 2 axes"):
        nn.Embedding.from_pretrained(np.ones(3))


def test_the_largest_of_a_bag_with_nan_is_nan_and_has_the_gradient():
    weight = np.array([[1.0, np.nan], [3.0, 2.0], [np.nan, 0.0]])
    input = np.array([[0, 1], [1, 2], [2, 2]])
    y = kernels.embedding_bag(input, weight, mode="max")
    np.testing.assert_array_equal(y, [[3, np.nan], [np.nan, 2], [np.nan, 0]])
    dy = np.arange(1.0, 7).reshape(3, 2)
    dweight, _ = kernels.embedding_bag_backward(dy, input, weight, mode="max")
    np.testing.assert_array_equal(dweight, [[0, 2], [1, 4], [8, 6]])


@pytest.mark.parametrize("max_norm", [1.0, 0.0])
def test_rows_that_are_infinite_or_huge_are_cut_down_as_in_torch(max_norm):
    rows = np.float32([[np.inf, 1], [1e20, 1e20], [np.nan, 1], [2, 2]])
    theirs = torch.tensor(rows)
    F.embedding(torch.arange(4), theirs, max_norm=max_norm)
    kernels.embedding_renorm(rows, np.arange(4), max_norm)
    np.testing.assert_allclose(rows, theirs, rtol=1e-6)
    rows.setflags(write=False)
    with pytest.raises(ValueError, match="weight is changed in place, so it must be a writable"):
        kernels.embedding_renorm(rows, np.arange(4), max_norm)


# ---- bilinear --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    h.shapes(0, 2),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.booleans(),
    h.dtypes,
    h.scales,
    h.layouts,
    h.seeds,
)
def test_bilinear(batch, sizes, with_bias, dtype, scale, layout, seed):
    n1, n2, out = sizes
    shapes = [(*batch, n1), (*batch, n2), (out, n1, n2), *([(out,)] if with_bias else [])]
    arrays = [
        h.draw(seed + i, s, dtype, scale if i < 2 else 1, layout) for i, s in enumerate(shapes)
    ]
    dy = h.draw(seed + 9, (*batch, out), dtype)
    y = h.assert_pure(kernels.bilinear, *arrays)
    gradients = h.assert_pure(kernels.bilinear_backward, dy, *arrays)
    tensors = [torch.tensor(a.copy(), requires_grad=True) for a in arrays]
    expected = F.bilinear(*tensors)
    expected.backward(torch.tensor(dy))
    h.assert_close(y, expected, dtype, 100 * scale**2)
    assert (gradients[3] is None) == (not with_bias)
    for i, tensor in enumerate(tensors):
        h.assert_close(gradients[i], tensor.grad, dtype, 100 * scale ** (2 if i == 2 else 1))


def test_bilinear_layer_equals_torchs():
    for bias in (True, False):
        layer, theirs = nn.Bilinear(3, 4, 2, bias), torch.nn.Bilinear(3, 4, 2, bias)
        assert repr(layer) == repr(theirs)
        assert np.abs(layer.weight.data).max() <= 1 / math.sqrt(3)
        layer.load_state_dict(theirs.state_dict())
        x1, x2 = h.draw(0, (5, 3), np.float32), h.draw(1, (5, 4), np.float32)
        h.assert_close(
            layer(x1, x2).detach().numpy(), theirs(*map(torch.tensor, (x1, x2))), np.float32, 10
        )


# ---- dropout ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, st.sampled_from([0, 0.25, 0.9, 1]), h.seeds)
def test_dropout_with_a_given_mask(shape, dtype, scale, layout, p, seed):
    x = h.draw(seed, shape, dtype, scale, layout)
    keep = np.asarray(np.random.default_rng(seed).uniform(size=x.shape) >= p)
    expected = np.where(keep, x / (1 - p) if p < 1 else 0, 0).astype(dtype)
    for function in (kernels.dropout, kernels.dropout_backward):
        y = h.assert_pure(lambda a, k, f=function: f(a, k, p), x, keep)
        h.assert_close(y, expected, dtype, scale)


def test_dropout_of_a_tensor_follows_the_seed_and_its_gradient_the_mask():
    x = Tensor(np.ones((100, 200), np.float32), requires_grad=True)
    dlnotes.manual_seed(3)
    y = ours.dropout(x, 0.3)
    dlnotes.manual_seed(3)
    np.testing.assert_array_equal(ours.dropout(x, 0.3).data, y.data)
    assert (ours.dropout(x, 0.3).data != y.data).any()
    assert y.dtype == np.float32
    np.testing.assert_allclose(np.unique(y.data), [0, 1 / 0.7], rtol=1e-6)
    kept = (y.data > 0).mean()
    assert abs(kept - 0.7) < 5 * math.sqrt(0.21 / y.data.size)  # five standard deviations
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    own = np.random.default_rng(1)
    state = dlnotes.random.get_state()
    ours.dropout(x, 0.3, generator=own)
    assert dlnotes.random.get_state() == state


def test_dropout_is_the_identity_outside_training():
    x = Tensor(h.draw(0, (4, 3), np.float64), requires_grad=True)
    state = dlnotes.random.get_state()
    assert ours.dropout(x, 0.5, training=False) is x
    assert ours.dropout(x, 0) is x
    layer = nn.Dropout(0.5)
    assert layer.eval()(x) is x
    assert (layer.train()(x).data != x.data).any()
    assert not nn.Dropout(1)(x).data.any()
    assert dlnotes.random.get_state() != state


def test_dropout2d_drops_whole_channels():
    dlnotes.manual_seed(0)
    x = Tensor(np.ones((50, 40, 3, 2)), requires_grad=True)
    y = nn.Dropout2d(0.2)(x)
    channels = y.data.reshape(2000, 6)
    assert (channels == channels[:, :1]).all()
    np.testing.assert_allclose(np.unique(channels), [0, 1.25])
    assert abs((channels[:, 0] > 0).mean() - 0.8) < 5 * math.sqrt(0.16 / 2000)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    with pytest.raises(ValueError, match=r"input must have 4 axes \(n, channels, h, w\)"):
        ours.dropout2d(Tensor(np.ones((2, 3))))


def test_dropout_modules_print_as_torchs():
    for name in ("Dropout", "Dropout2d"):
        theirs = repr(getattr(torch.nn, name)(0.2)).replace(", inplace=False", "")
        assert repr(getattr(nn, name)(0.2)) == theirs


def test_a_killed_run_resumes_with_the_same_masks(tmp_path):
    x = h.draw(0, (12, 3), np.float32)
    y = x.sum(axis=1, keepdims=True)

    def run(epochs, checkpoint=None):
        dlnotes.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        loader = data.DataLoader(data.TensorDataset(x, y), batch_size=4, shuffle=True)
        train.fit(
            *(model, loader),
            loss_fn=nn.HuberLoss(),
            optimizer=optim.AdamW(model.parameters(), lr=0.05, amsgrad=True),
            epochs=epochs,
            checkpoint=checkpoint,
            progress=False,
            restore_best=False,
        )
        return model.state_dict()

    whole = run(5)
    run(2, tmp_path / "run.npz")
    resumed = run(5, tmp_path / "run.npz")
    for key in whole:
        np.testing.assert_array_equal(resumed[key], whole[key])


# ---- initialisers ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), h.shapes(1, 3, 1, 4), st.sampled_from([1, 2, 0.5]), h.dtypes, h.seeds)
def test_orthogonal(rows, rest, gain, dtype, seed):
    weight = nn.Parameter(np.empty((rows, *rest), dtype))
    assert init.orthogonal_(weight, gain, np.random.default_rng(seed)) is weight
    matrix = weight.data.reshape(rows, -1).astype(np.float64)
    product = matrix @ matrix.T if rows <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-5)


def test_orthogonal_matrices_are_equally_likely():
    # Without the signs of r's diagonal, the first entry would be negative always.
    rng = np.random.default_rng(0)
    firsts = [init.orthogonal_(nn.Parameter(np.empty((3, 3))), generator=rng).data[0, 0]
              for _ in range(200)]  # fmt: skip
    assert 60 < sum(first > 0 for first in firsts) < 140


def test_truncated_normal():
    weight = nn.Parameter(np.empty((300, 100)))
    init.trunc_normal_(weight, mean=1, std=2, a=-1, b=2, generator=np.random.default_rng(0))
    assert weight.data.min() >= -1
    assert weight.data.max() <= 2
    import scipy.stats

    expected = scipy.stats.truncnorm(-1, 0.5, loc=1, scale=2)
    assert scipy.stats.kstest(weight.data.ravel(), expected.cdf).pvalue > 1e-3


def test_eye_and_dirac_equal_torchs():
    for shape in ((3, 3), (2, 4), (4, 2)):
        mine = init.eye_(nn.Parameter(np.empty(shape, np.float32)))
        np.testing.assert_array_equal(mine.data, torch.nn.init.eye_(torch.empty(shape)))
    for shape in ((4, 3, 3), (6, 2, 3, 2), (2, 2, 1, 3, 5), (2, 5, 4, 4)):
        for groups in (1, 2):
            mine = init.dirac_(nn.Parameter(np.empty(shape, np.float32)), groups)
            expected = torch.nn.init.dirac_(torch.empty(shape), groups)
            np.testing.assert_array_equal(mine.data, expected)


def test_sparse():
    weight = init.sparse_(nn.Parameter(np.empty((10, 50))), 0.35, 0.5, np.random.default_rng(0))
    assert ((weight.data == 0).sum(axis=0) == 4).all()  # 3.5 rounded up, as in torch
    assert abs(weight.data[weight.data != 0].std() - 0.5) < 0.1


# ---- bad input -------------------------------------------------------------------------------

table, x4 = np.ones((3, 2)), np.ones((2, 3))
empty = nn.Parameter(np.empty((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.one_hot(np.array([3]), 3), ValueError, "labels must be in 0 … 2, got 3"),
        (lambda: kernels.one_hot(np.array([-1])), ValueError, "labels must be at least 0, got -1"),
        (lambda: kernels.one_hot(np.array([], int)), ValueError, "num_classes must be given"),
        (lambda: kernels.one_hot(np.array([0.5]), 3), TypeError, "labels must hold integers, got"),
        (lambda: kernels.embedding([0], table), TypeError, "input must be a NumPy array of int"),
        (lambda: kernels.embedding(np.array([3]), table), ValueError, "input must be in 0 … 2"),
        (lambda: kernels.embedding(np.array([-1]), table), ValueError, "input must be in 0 … 2"),
        (lambda: kernels.embedding(np.array([0]), table[0]), ValueError, "weight must have 2 axes"),
        (lambda: kernels.embedding(np.array([0]), table, 3), ValueError, "padding_idx must be in"),
        (
            lambda: kernels.embedding_backward(np.ones((1, 3)), np.array([0]), table),
            ValueError,
            r"dy must have shape \(1, 2\)",
        ),
        (
            lambda: kernels.scatter_add(table, np.array([0, 1]), 5),
            ValueError,
            r"indices must have shape \(3,\)",
        ),
        (lambda: kernels.embedding_bag(np.array([0]), table), ValueError, "1 axis with offsets"),
        (
            lambda: kernels.embedding_bag(np.array([[0]]), table, np.array([0])),
            ValueError,
            "offsets must be None when input has 2 axes",
        ),
        (
            lambda: kernels.embedding_bag(np.array([0, 1]), table, np.array([1])),
            ValueError,
            "offsets must rise from 0, got",
        ),
        (
            lambda: kernels.embedding_bag(
                np.array([0, 1]), table, np.array([0, 1]), include_last_offset=True
            ),
            ValueError,
            "offsets must rise from 0 to 2, got",
        ),
        (
            lambda: kernels.embedding_bag(
                np.array([[0]]), table, per_sample_weights=np.ones((1, 1))
            ),
            ValueError,
            "per_sample_weights need mode=\"sum\", got 'mean'",
        ),
        (
            lambda: kernels.embedding_bag(np.array([[0]]), table, mode="median"),
            ValueError,
            "mode must be one of",
        ),
        (
            lambda: kernels.embedding_renorm(table, np.array([0]), -1),
            ValueError,
            "max_norm must be",
        ),
        (
            lambda: kernels.embedding_renorm(table, np.array([0]), 1, 0.5),
            ValueError,
            "norm_type must be at least 1",
        ),
        (lambda: nn.Embedding(0, 3), ValueError, "num_embeddings must be at least 1"),
        (lambda: nn.Embedding(3, 3, 5), ValueError, "padding_idx must be in -3 … 2"),
        (lambda: nn.EmbeddingBag(3, 3, mode="all"), ValueError, "mode must be one of"),
        (
            lambda: kernels.bilinear(x4, x4[:1], np.ones((1, 3, 3))),
            ValueError,
            r"got \(2, 3\), \(1, 3\) and \(1, 3, 3\)",
        ),
        (lambda: kernels.bilinear(x4, x4, np.ones((1, 3, 2))), ValueError, "x1 .* and x2 .* must"),
        (lambda: kernels.bilinear(x4, x4, np.ones((3, 3))), ValueError, "weight must have 3 axes"),
        (lambda: kernels.dropout(x4, x4), TypeError, "keep must be a NumPy array of bool, got flo"),
        (lambda: kernels.dropout(x4, x4[0] > 0), ValueError, "keep must have x's shape"),
        (lambda: kernels.dropout(x4, x4 > 0, 1.5), ValueError, r"p must be in 0 … 1, got 1\.5"),
        (lambda: nn.Dropout(-0.1), ValueError, "p must be in 0 … 1"),
        (lambda: ours.dropout(x4, 0.5, 1), TypeError, "training must be True or False, got int"),
        (lambda: init.orthogonal_(nn.Parameter(np.ones(3))), ValueError, "two or more axes"),
        (lambda: init.eye_(nn.Parameter(np.ones(3))), ValueError, "tensor must have 2 axes"),
        (lambda: init.dirac_(empty), ValueError, "tensor must have 3, 4 or 5 axes"),
        (
            lambda: init.dirac_(nn.Parameter(np.ones((3, 2, 1))), 2),
            ValueError,
            "groups must divide the 3 output channels, got 2",
        ),
        (lambda: init.sparse_(empty, 2), ValueError, "sparsity must be in 0 … 1"),
        (lambda: init.trunc_normal_(empty, a=1, b=1), ValueError, "a must be below b"),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
