"""Negative sampling, hierarchical softmax and GloVe against torch, their formulas and optima."""

import itertools
import math

import core_helpers as h
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels
from dlnotes.nn import functional as ours

reductions = st.sampled_from(["mean", "sum", "none"])
kinds = st.sampled_from([np.int64, np.int32, np.uint8])
# Multiples of a power of two: their products are exact, so that no rounding is blown up where a
# score of thousands cancels to almost nothing.
steps = st.sampled_from([1 / 8, 1.0, 32.0, 8192.0])


def exact(seed, shape, dtype, step, layout="contiguous"):
    values = np.random.default_rng(seed).integers(-4, 5, shape) * step
    return h.laid_out(values.astype(dtype), layout)


def integers(seed, high, shape, kind=np.int64, layout="contiguous"):
    values = np.random.default_rng(seed).integers(0, high, shape)
    return h.laid_out(np.asarray(values, kind), layout)


def torch_of(array, requires_grad=False):
    tensor = torch.tensor(np.array(array, order="C"))
    tensor = tensor if tensor.is_floating_point() else tensor.long()
    return tensor.requires_grad_(requires_grad)


def reduced(loss, reduction):
    return loss if reduction == "none" else getattr(loss, reduction)()


def torch_negative_sampling(hidden, weight, target, noise, reduction, remove):
    positive = F.logsigmoid((hidden * weight[target]).sum(1))
    negative = F.logsigmoid(-(weight[noise] * hidden[:, None]).sum(2))
    if remove:
        negative = negative.masked_fill(noise == target[:, None], 0)
    return reduced(-positive - negative.sum(1), reduction)


def torch_hierarchical_softmax(hidden, weight, target, codes, points, reduction):
    scores = (weight[points[target]] * hidden[:, None]).sum(2)
    codes = codes[target]
    costs = -F.logsigmoid(torch.where(codes == 0, scores, -scores))
    return reduced(torch.where(codes >= 0, costs, torch.zeros_like(costs)).sum(1), reduction)


def compare(name, reference, hidden, weight, constants, reduction, seed, scale, **keywords):
    """Hold loss, loops and both gradients against torch's own gradient of `reference`."""
    dtype = hidden.dtype
    loss = h.assert_pure(
        lambda *a: getattr(kernels, name)(*a, reduction, **keywords), hidden, weight, *constants
    )
    loops = getattr(kernels, f"{name}_loops")(hidden, weight, *constants, reduction, **keywords)
    dy = h.draw(seed, np.shape(loss), dtype)
    gradients = h.assert_pure(
        lambda *a: getattr(kernels, f"{name}_backward")(*a, reduction, **keywords),
        *(dy, hidden, weight, *constants),
    )
    given = [torch_of(x, requires_grad=True) for x in (hidden, weight)]
    expected = reference(*given, *map(torch_of, constants), reduction, *keywords.values())
    expected.backward(torch.tensor(dy))
    size = scale * (1 + constants[-1].shape[1]) * (max(1, len(hidden)))
    if reduction == "mean" and not len(hidden):
        assert np.isnan(loss)
        assert np.isnan(loops)
    else:
        h.assert_close(loss, expected, dtype, scale * size, 10)
        h.assert_close(loops, expected, dtype, scale * size, 10)
    for gradient, tensor in zip(gradients, given, strict=True):
        h.assert_close(gradient, tensor.grad, dtype, size, 10)


# ---- negative sampling -----------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    *(st.integers(0, 6), st.integers(0, 4), st.integers(0, 5), st.integers(1, 7)),
    *(h.dtypes, steps, h.layouts, kinds, reductions, st.booleans(), h.seeds),
)
def test_negative_sampling(n, k, d, words, dtype, step, layout, kind, reduction, remove, seed):
    hidden, weight = (
        exact(seed + i, shape, dtype, step, layout) for i, shape in enumerate([(n, d), (words, d)])
    )
    constants = [integers(seed, words, s, kind, layout) for s in ((n,), (n, k))]
    compare(
        *("negative_sampling_loss", torch_negative_sampling, hidden, weight, constants),
        *(reduction, seed, 20 * step),
        remove_accidental_hits=remove,
    )


def test_accidental_hits():
    hidden, weight = np.ones((1, 1)), np.array([[2.0], [0.5]])
    target, noise = np.array([0]), np.array([[0, 1]])
    parts = [np.logaddexp(0, -2), np.logaddexp(0, 2), np.logaddexp(0, 0.5)]
    loss = kernels.negative_sampling_loss(hidden, weight, target, noise)
    assert loss == pytest.approx(sum(parts))
    loss = kernels.negative_sampling_loss(
        hidden, weight, target, noise, remove_accidental_hits=True
    )
    assert loss == pytest.approx(parts[0] + parts[2])


def test_gradients_numerically():
    rng = np.random.default_rng(0)
    hidden, weight = rng.standard_normal((4, 3)), rng.standard_normal((6, 3))
    target, noise = np.array([0, 5, 5, 2]), np.array([[1, 1], [5, 0], [3, 4], [2, 2]])
    codes, points = kernels.huffman_codes(np.array([9, 1, 5, 2, 2, 1, 1]))
    for reduction in ("mean", "sum", "none"):
        for remove in (True, False):
            keywords = {"reduction": reduction, "remove_accidental_hits": remove}
            expected = torch_negative_sampling(
                *map(torch_of, (hidden, weight, target, noise)), reduction, remove
            )
            check.gradcheck(
                lambda a, w, keywords=keywords: ours.negative_sampling_loss(
                    a, w, target, noise, **keywords
                ),
                (hidden, weight),
                expected=expected.numpy(),
            )
        expected = torch_hierarchical_softmax(
            *map(torch_of, (hidden, weight, target, codes, points)), reduction
        )
        check.gradcheck(
            lambda a, w, reduction=reduction: ours.hierarchical_softmax_loss(
                a, w, target, codes, points, reduction
            ),
            (hidden, weight),
            expected=expected.numpy(),
        )
        vectors = [rng.standard_normal(s) for s in ((4, 3), (4, 3), 4, 4)]
        counts = np.array([0.5, 3.0, 99.0, 200.0])
        expected = torch_glove(*map(torch_of, (*vectors, counts)), reduction, 100, 0.75)
        check.gradcheck(
            lambda *a, reduction=reduction, counts=counts: ours.glove_loss(*a, counts, reduction),
            tuple(vectors),
            expected=expected.numpy(),
        )


def test_the_optimum_is_the_shifted_pointwise_mutual_information():
    """w·c = PMI(w, c) - log k where the vectors are long enough (Levy and Goldberg, 2014).

    Every pair of a small table of counts is there as often as it counts, and its noise words are
    all words, as often as they occur: k of them, so that nothing is left to chance.
    """
    pairs = np.array([[4, 1, 2], [1, 3, 1], [2, 2, 6]])
    word_counts, context_counts = pairs.sum(axis=1), pairs.sum(axis=0)
    k = context_counts.sum()
    center = np.repeat(np.repeat(np.arange(3), 3), pairs.reshape(-1))
    context = np.repeat(np.tile(np.arange(3), 3), pairs.reshape(-1))
    noise = np.tile(np.repeat(np.arange(3), context_counts), (len(center), 1))
    assert noise.shape == (k, k)

    def loss(tables):
        words, contexts = tables.reshape(2, 3, 4)
        arguments = (words[center], contexts, context, noise, "sum")
        value = kernels.negative_sampling_loss(*arguments)
        dhidden, dcontexts = kernels.negative_sampling_loss_backward(1.0, *arguments)
        dwords = kernels.scatter_add(dhidden, center, 3)
        return value, np.stack([dwords, dcontexts]).reshape(-1)

    start = np.random.default_rng(0).standard_normal(24)
    best = scipy.optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
    words, contexts = best.reshape(2, 3, 4)
    pmi = np.log(pairs * pairs.sum() / np.outer(word_counts, context_counts))
    np.testing.assert_allclose(words @ contexts.T, pmi - np.log(k), atol=1e-6)


# ---- hierarchical softmax --------------------------------------------------------------------

frequencies = st.lists(st.integers(0, 20), min_size=1, max_size=7).map(np.array)


def mean_way(counts):
    codes, _ = kernels.huffman_codes(counts)
    return ((codes >= 0).sum(axis=1) * counts).sum()


def shortest(counts):
    """Return the cost of the best binary tree: all ways of joining two groups are tried."""
    if len(counts) == 1:
        return 0
    costs = []
    for i, j in itertools.combinations(range(len(counts)), 2):
        rest = [c for index, c in enumerate(counts) if index not in (i, j)]
        costs.append(
            counts[i] + counts[j] + shortest(tuple(sorted([*rest, counts[i] + counts[j]])))
        )
    return min(costs)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).map(np.array))
def test_no_binary_tree_is_shorter(counts):
    assert mean_way(counts) == shortest(tuple(counts.tolist()))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=200).map(np.array))
def test_the_mean_way_is_within_one_bit_of_the_entropy(counts):
    p = counts / counts.sum()
    entropy = -(p * np.log2(p)).sum()
    assert entropy - 1e-9 <= mean_way(counts) / counts.sum() < entropy + 1


def test_powers_of_two_reach_the_entropy():
    counts = np.array([8, 4, 2, 1, 1])
    codes, points = kernels.huffman_codes(counts)
    np.testing.assert_array_equal((codes >= 0).sum(axis=1), [1, 2, 3, 4, 4])
    assert mean_way(counts) / 16 == -(counts / 16 * np.log2(counts / 16)).sum()
    assert codes.dtype == np.int8
    assert points.dtype == np.int64


def test_branch_1_leads_to_the_more_frequent_side():
    codes, points = kernels.huffman_codes(np.array([2, 9, 4]))
    np.testing.assert_array_equal(codes, [[0, 0], [1, -1], [0, 1]])
    np.testing.assert_array_equal(points, [[1, 0], [1, 0], [1, 0]])


@settings(deadline=None, max_examples=60)
@given(frequencies)
def test_codes_and_points_describe_one_tree(counts):
    codes, points = kernels.huffman_codes(counts)
    words = len(counts)
    assert codes.shape == points.shape
    assert codes.shape[1] == (codes >= 0).sum(axis=1).max(initial=0)
    branches, fork_of = set(), {}
    for code, point in zip(codes.tolist(), points.tolist(), strict=True):
        length = sum(c >= 0 for c in code)
        assert code[length:] == [-1] * (len(code) - length)
        assert point[length:] == [0] * (len(code) - length)
        for depth in range(length):
            # The same branches always lead to the same fork.
            assert fork_of.setdefault(tuple(code[:depth]), point[depth]) == point[depth]
            branches.add((point[depth], code[depth]))
    assert len({tuple(code) for code in codes.tolist()}) == words
    assert sorted(fork_of.values()) == list(range(words - 1))
    assert branches == {(fork, code) for fork in range(words - 1) for code in (0, 1)}
    if words > 1:
        assert fork_of[()] == words - 2


@settings(deadline=None, max_examples=80)
@given(
    *(st.integers(0, 6), st.integers(0, 5), frequencies),
    *(h.dtypes, steps, h.layouts, kinds, reductions, h.seeds),
)
def test_hierarchical_softmax(n, d, counts, dtype, step, layout, kind, reduction, seed):
    codes, points = kernels.huffman_codes(counts)
    shapes = [(n, d), (len(counts) - 1, d)]
    hidden, weight = (exact(seed + i, s, dtype, step, layout) for i, s in enumerate(shapes))
    target = integers(seed, len(counts), n, kind, layout)
    constants = (target, h.laid_out(codes, layout), h.laid_out(points, layout))
    compare(
        *("hierarchical_softmax_loss", torch_hierarchical_softmax, hidden, weight, constants),
        *(reduction, seed, 20 * step),
    )
    arguments = (hidden, weight, *constants[1:])
    log_p = h.assert_pure(kernels.hierarchical_softmax_log_probs, *arguments)
    assert log_p.dtype == dtype
    assert log_p.shape == (n, len(counts))
    np.testing.assert_allclose(np.exp(log_p.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)
    loss = kernels.hierarchical_softmax_loss(hidden, weight, *constants, "none")
    size = 400 * step**2 * max(1, codes.shape[1])
    h.assert_close(
        -np.take_along_axis(log_p, target.astype(int)[:, None], 1)[:, 0], loss, dtype, size
    )


# ---- steps -----------------------------------------------------------------------------------


def sgd(tables, gradients, lr):
    return [table - lr * gradient for table, gradient in zip(tables, gradients, strict=True)]


@st.composite
def batches(draw):
    """Draw (tables, words of each sample, offsets, target, noise, tree); words occur often."""
    n, words, d, k = (draw(st.integers(low, 5)) for low in (0, 1, 1, 0))
    seed, dtype, layout = draw(h.seeds), draw(h.dtypes), draw(h.layouts)
    layout = "reversed" if layout == "read-only" else layout
    shapes = [(words + 2, d), (words, d)]
    tables = [h.draw(seed + i, s, dtype, 1, layout) for i, s in enumerate(shapes)]
    sizes = np.random.default_rng(seed).integers(0, 4, n)
    offsets = np.cumsum(sizes) - sizes
    drawn = [integers(seed + i, high, s) for i, (high, s) in enumerate(
        [(words + 2, sizes.sum()), (words + 2, n), (words, n), (words, (n, k))])]  # fmt: skip
    tree = kernels.huffman_codes(integers(seed, 9, words))
    return (tables, offsets, sizes, *drawn, tree)


@settings(deadline=None, max_examples=60)
@given(batches(), st.booleans(), st.booleans(), st.booleans())
def test_a_step_is_gradient_descent_on_the_sum_of_the_losses(drawn, cbow, tree, other):
    """Both tables as after one step of SGD with the gradients of the losses, tested above."""
    (inputs, outputs), offsets, sizes, contexts, center, target, noise, paths = drawn
    loss, keywords = ("hierarchical_softmax", {}) if tree else ("negative_sampling", {})
    questions = (target, *paths) if tree else (target, noise)
    if not tree:
        keywords["remove_accidental_hits"] = other
    forks = len(paths[0]) - 1
    outputs = outputs[:forks].copy() if tree else outputs
    backward = getattr(kernels, f"{loss}_loss_backward")
    hidden = kernels.embedding_bag(contexts, inputs, offsets) if cbow else inputs[center]
    arguments = (hidden, outputs, *questions)
    expected_loss = getattr(kernels, f"{loss}_loss")(*arguments, **keywords)
    dhidden, doutputs = backward(1.0, *arguments, "sum", **keywords)
    if cbow:
        keywords["divide_gradient"] = other
        if other:
            dinputs, _ = kernels.embedding_bag_backward(dhidden, contexts, inputs, offsets)
        else:
            dinputs = kernels.scatter_add(np.repeat(dhidden, sizes, axis=0), contexts, len(inputs))
    else:
        dinputs = kernels.scatter_add(dhidden, center, len(inputs))
    expected = sgd((inputs, outputs), (dinputs, doutputs), 0.1)

    before = [inputs.copy(), outputs.copy()]
    words = (contexts, offsets) if cbow else (center,)
    constants = [np.array(a) for a in (*words, *questions)]
    step = getattr(kernels, f"{'cbow' if cbow else 'skip_gram'}_{loss}_step")
    got = step(inputs, outputs, *words, *questions, lr=0.1, **keywords)
    np.testing.assert_equal(got, expected_loss)  # of the tables as they were; NaN for n = 0
    dtype = inputs.dtype
    for table, wanted, old in zip((inputs, outputs), expected, before, strict=True):
        h.assert_close(table, wanted, dtype, 10, 5)
        still = (wanted == old).all(axis=1)
        np.testing.assert_array_equal(table[still], old[still])
    for given_, copy in zip((*words, *questions), constants, strict=True):
        np.testing.assert_array_equal(given_, copy)


@pytest.mark.parametrize("layout", ["C", "F", "every second row"])
def test_a_step_of_more_rows_than_are_read_at_once(layout):
    rng = np.random.default_rng(0)
    tables = [rng.standard_normal((4000, 3)) for _ in range(2)]
    if layout == "F":
        tables = [np.asfortranarray(table) for table in tables]
    elif layout == "every second row":
        tables = [np.repeat(table, 2, axis=0)[::2] for table in tables]
    center, context = (rng.integers(0, 4000, 1500) for _ in range(2))
    noise = rng.integers(0, 4000, (1500, 2))
    dhidden, doutput = kernels.negative_sampling_loss_backward(
        1.0, tables[0][center], tables[1], context, noise, "sum"
    )
    dinput = kernels.scatter_add(dhidden, center, 4000)
    expected = sgd(tables, (dinput, doutput), 0.3)
    kernels.skip_gram_negative_sampling_step(*tables, center, context, noise, lr=0.3)
    for table, wanted in zip(tables, expected, strict=True):
        np.testing.assert_allclose(table, wanted, atol=1e-13)


def test_one_pair_by_hand():
    inputs, outputs = np.array([[1.0, 2.0]]), np.array([[0.5, -1.0], [2.0, 1.0]])
    one = np.array([0])
    kernels.skip_gram_negative_sampling_step(*(inputs, outputs, one, one, np.array([[1]])), lr=0.1)
    g = np.array([1 / (1 + math.exp(1.5)) - 1, 1 / (1 + math.exp(-4.0))])  # σ(h·w) - label
    np.testing.assert_allclose(
        inputs[0], [1 - 0.1 * (g[0] * 0.5 + g[1] * 2), 2 - 0.1 * (-g[0] + g[1])]
    )
    np.testing.assert_allclose(outputs, [[0.5, -1.0], [2.0, 1.0]] - 0.1 * np.outer(g, [1, 2]))


# ---- GloVe -----------------------------------------------------------------------------------


def torch_glove(center, context, center_bias, context_bias, counts, reduction, x_max, alpha):
    error = (center * context).sum(1) + center_bias + context_bias - counts.log()
    weight = torch.where(counts < x_max, (counts / x_max) ** alpha, torch.ones_like(counts))
    return reduced(weight * error**2, reduction)


@settings(deadline=None, max_examples=60)
@given(
    *(st.integers(0, 6), st.integers(0, 5), h.dtypes, st.sampled_from([1, 1e-3, 30])),
    *(h.layouts, reductions, st.sampled_from([100, 2.5]), st.sampled_from([0.75, 1, 0]), h.seeds),
)
def test_glove(n, d, dtype, scale, layout, reduction, x_max, alpha, seed):
    shapes = [(n, d), (n, d), (n,), (n,)]
    inputs = [h.draw(seed + i, s, dtype, scale, layout) for i, s in enumerate(shapes)]
    counts = np.exp(h.draw(seed + 4, (n,), dtype, 3, layout))
    keywords = {"reduction": reduction, "x_max": x_max, "alpha": alpha}
    loss = h.assert_pure(lambda *a: kernels.glove_loss(*a, **keywords), *inputs, counts)
    given_ = [torch_of(x, requires_grad=True) for x in inputs]
    expected = torch_glove(*given_, torch_of(counts), reduction, x_max, alpha)
    dy = h.draw(seed, np.shape(loss), dtype)
    gradients = h.assert_pure(
        lambda *a: kernels.glove_loss_backward(*a, **keywords), dy, *inputs, counts
    )
    expected.backward(torch.tensor(dy))
    size = (d + 2) * max(scale, 1) ** 2 * 10
    if n or reduction != "mean":
        h.assert_close(loss, expected, dtype, size**2 * max(n, 1), 10)
    else:
        assert np.isnan(loss)
    for gradient, tensor in zip(gradients, given_, strict=True):
        h.assert_close(gradient, tensor.grad, dtype, size * max(scale, 1), 10)


def test_the_weight_of_a_pair():
    np.testing.assert_allclose(
        kernels.glove_weight(np.array([100 / 16, 100.0, 1e6])), [1 / 8, 1, 1], rtol=1e-15
    )
    weight = kernels.glove_weight(np.array([1.0, 8.0, 10.0]), x_max=8, alpha=1 / 3)
    np.testing.assert_allclose(weight, [0.5, 1, 1])


def test_vectors_that_are_long_enough_fit_the_counts_exactly():
    counts = np.random.default_rng(0).uniform(0.2, 300, (5, 5))
    center, context = (a.reshape(-1) for a in np.indices((5, 5)))

    def loss(values):
        tables = np.split(values, [25, 50, 55])
        rows = (tables[0].reshape(5, 5)[center], tables[1].reshape(5, 5)[context])
        biases = (tables[2][center], tables[3][context])
        arguments = (*rows, *biases, counts.reshape(-1))
        value = kernels.glove_loss(*arguments, "sum")
        gradients = kernels.glove_loss_backward(1.0, *arguments, "sum")
        sums = [
            kernels.scatter_add(g.reshape(25, -1), words, 5).reshape(-1)
            for g, words in zip(gradients, (center, context, center, context), strict=True)
        ]
        return value, np.concatenate(sums)

    start = np.random.default_rng(1).standard_normal(60)
    options = {"maxiter": 2000, "ftol": 0, "gtol": 1e-10}
    best = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    assert best.fun < 1e-16
    words, contexts, b, c = np.split(best.x, [25, 50, 55])
    fitted = words.reshape(5, 5) @ contexts.reshape(5, 5).T + b[:, None] + c
    np.testing.assert_allclose(fitted, np.log(counts), atol=1e-6)


@pytest.mark.parametrize("first", [np.uint64, np.int32, np.uint8])
@pytest.mark.parametrize("second", [np.uint64, np.int64, np.int8])
def test_words_and_noise_may_be_integers_of_two_kinds(first, second):
    """NumPy joins uint64 and int64 to floats, which are no indices."""
    words, drawn = np.array([0, 1]), np.array([[2], [3]])
    expected = kernels.negative_sampling_loss(x, table, words, drawn)
    words, drawn = words.astype(first), drawn.astype(second)
    assert kernels.negative_sampling_loss(x, table, words, drawn) == expected
    tables = [np.ones((4, 3)), np.ones((4, 3))]
    loss = kernels.skip_gram_negative_sampling_step(*tables, words, words, drawn, lr=0.1)
    assert loss == pytest.approx(np.log1p(np.exp(-3)) + np.log1p(np.exp(3)))
    kernels.cbow_negative_sampling_step(*tables, words, words, words, drawn, lr=0.1)


# ---- the alias method ------------------------------------------------------------------------


def represented(table):
    """Return the probabilities that a table stands for, from its columns."""
    keep, alias = table
    return (keep + np.bincount(alias, 1 - keep, len(keep))) / len(keep)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), h.dtypes, h.layouts)
def test_an_alias_table_holds_the_probabilities(weights, dtype, layout):
    weights[0] += 1
    weights = h.laid_out(np.array(weights, dtype), layout)
    keep, alias = h.assert_pure(kernels.alias_table, weights)
    assert (keep.dtype, alias.dtype) == (dtype, np.int64)
    assert keep.min() >= 0
    assert keep.max() <= 1
    p = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    np.testing.assert_allclose(
        represented((keep.astype(np.float64), alias)), p, atol=h.TOLERANCE[np.dtype(dtype)]
    )
    # An outcome of probability 0 is never drawn: its column is all another's, and it no alias.
    never = np.flatnonzero(p == 0)
    assert not keep[never].any()
    assert not np.isin(alias[keep < 1], never).any()


def test_sixteenths_are_held_exactly():
    weights = np.array([7.0, 0.0, 4.0, 3.0, 1.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(represented(kernels.alias_table(weights)), weights / 16)


def test_draws_have_the_distribution_and_follow_the_generator():
    p = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0])
    table = kernels.alias_table(p)
    draws = kernels.alias_sample(table, (200, 1000), np.random.default_rng(0))
    assert (draws.shape, draws.dtype) == ((200, 1000), np.int64)
    counts = np.bincount(draws.reshape(-1), minlength=6)
    assert counts[5] == 0
    assert scipy.stats.chisquare(counts[:5], p[:5] * draws.size).pvalue > 0.01
    # Successive draws are independent: the table of pairs is the product.
    pairs = np.bincount(draws[:, :-1].reshape(-1) * 5 + draws[:, 1:].reshape(-1), minlength=25)
    expected = np.outer(p[:5], p[:5]).reshape(-1) * pairs.sum()
    assert scipy.stats.chisquare(pairs, expected).pvalue > 0.01
    again = kernels.alias_sample(table, (200, 1000), np.random.default_rng(0))
    np.testing.assert_array_equal(again, draws)
    assert kernels.alias_sample(table, 0, np.random.default_rng(0)).shape == (0,)


# ---- bad input -------------------------------------------------------------------------------

x, table, two = np.ones((2, 3)), np.ones((4, 3)), np.array([0, 1])
noise = np.array([[1], [2]])
ALIAS, RNG = (np.array([0.5, 1.0]), np.array([1, 1])), np.random.default_rng(0)
codes, points = kernels.huffman_codes(np.array([1, 2, 3, 4, 5]))


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: kernels.negative_sampling_loss(x, table[:, :2], two, noise),
            ValueError,
            r"hidden and weight must have vectors of one length, got shapes \(2, 3\) and \(4, 2\)",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two + 3, noise),
            ValueError,
            "target must be in 0 … 3, got 4",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two, -noise),
            ValueError,
            "noise must be in 0 … 3, got -1",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two, two),
            ValueError,
            r"noise must have shape \(2, k\), got \(2,\)",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two[:1], noise),
            ValueError,
            r"target must have shape \(2,\) \(one word for each sample\), got \(1,\)",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two.astype(float), noise),
            TypeError,
            "target must hold integers",
        ),
        (
            lambda: kernels.negative_sampling_loss(x, table, two, noise, "median"),
            ValueError,
            "reduction must be one of",
        ),
        (
            lambda: kernels.hierarchical_softmax_loss(x, table, two + 4, codes, points),
            ValueError,
            "target must be in 0 … 4, got 5",
        ),
        (
            lambda: kernels.hierarchical_softmax_loss(x, table[:3], two, codes, points),
            ValueError,
            "points must be in 0 … 2, got 3",
        ),
        (
            lambda: kernels.hierarchical_softmax_loss(x, table, two, codes, points[:, :1]),
            ValueError,
            "points must have shape",
        ),
        (
            lambda: kernels.hierarchical_softmax_loss(x, table, two, 2 * codes, points),
            ValueError,
            "codes must hold 0, 1 and -1",
        ),
        (
            lambda: kernels.hierarchical_softmax_log_probs(x, table, codes + 0.0, points),
            TypeError,
            "codes must be a NumPy array of signed integers",
        ),
        (lambda: kernels.huffman_codes(np.array([1, -1])), ValueError, "counts must be at least 0"),
        (lambda: kernels.huffman_codes(np.array([], int)), ValueError, "one word or more"),
        (lambda: kernels.huffman_codes(np.array([0.5])), TypeError, "counts must hold integers"),
        (
            lambda: kernels.glove_loss(x, x, x[:, 0], x[:, 0], 0 * x[:, 0]),
            ValueError,
            r"counts must be above 0, got 0\.0: leave those pairs out",
        ),
        (
            lambda: kernels.glove_loss(x, x, x[:, 0], x[0], x[:, 0]),
            ValueError,
            r"context_bias must have shape \(2,\) \(one for each pair\), got \(3,\)",
        ),
        (lambda: kernels.glove_weight(x, x_max=0), ValueError, "x_max must be above 0, got 0"),
        (lambda: kernels.alias_table(np.array([0.5, -0.1])), ValueError, "must be at least 0"),
        (lambda: kernels.alias_table(np.zeros(2)), ValueError, "at least 0 and not all 0"),
        (lambda: kernels.alias_table(np.ones(0)), ValueError, "at least 0 and not all 0"),
        (lambda: kernels.alias_table(np.array([1, np.nan])), ValueError, "must be finite"),
        (lambda: kernels.alias_table(two), TypeError, "probabilities must be float32 or float64"),
        (lambda: kernels.alias_sample(ALIAS, 2, None), TypeError, "generator must be a numpy"),
        (lambda: kernels.alias_sample(ALIAS, -1, RNG), ValueError, "size must be at least 0"),
        (lambda: kernels.alias_sample(ALIAS, 2.0, RNG), TypeError, "size must be an int"),
        (lambda: kernels.alias_sample(3, 2, RNG), TypeError, "table must be the pair .* got int"),
        (lambda: kernels.alias_sample(ALIAS[:1], 2, RNG), TypeError, "table must be the pair"),
        (lambda: kernels.alias_sample((1, 2), 2, RNG), TypeError, "keep of table must be a NumPy"),
        (
            lambda: kernels.alias_sample((ALIAS[0], ALIAS[0]), 2, RNG),
            TypeError,
            "alias of table must be a NumPy array of integers, got float64",
        ),
        (
            lambda: kernels.alias_sample((ALIAS[0], ALIAS[1][:1]), 2, RNG),
            ValueError,
            r"two arrays of one length above 0, got \(2,\) and \(1,\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_weight": read_only(table)}, ValueError, "input_weight is changed in place"),
        ({"output_weight": read_only(table)}, ValueError, "output_weight is changed in place"),
        ({"output_weight": table.astype(np.float32)}, TypeError, "must have the same dtype"),
        ({"output_weight": np.ones((4, 2))}, ValueError, "must have vectors of one length"),
        ({"center": two + 3}, ValueError, "center must be in 0 … 3"),
        ({"center": noise}, ValueError, r"center must have 1 axis, got shape \(2, 1\)"),
        ({"context": two[:1]}, ValueError, "context must have shape"),
        ({"noise": noise + 3}, ValueError, "noise must be in 0 … 3"),
        ({"lr": -0.1}, ValueError, "lr must be at least 0"),
        ({"lr": math.nan}, ValueError, "lr must be finite"),
    ],
)
def test_a_step_that_is_refused_changes_nothing(change, error, message):
    tables = {"input_weight": table.copy(), "output_weight": 2 * table}
    arguments = {"center": two, "context": two, "noise": noise, "lr": 0.1}
    given_ = {**tables, **arguments, **change}
    before = {name: given_[name].copy() for name in tables}
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        kernels.skip_gram_negative_sampling_step(**given_)
    for name, old in before.items():
        np.testing.assert_array_equal(given_[name], old)


def test_a_step_needs_two_tables():
    tied = table.copy()
    with pytest.raises(ValueError, match="must be two tables, got the same memory"):
        kernels.skip_gram_negative_sampling_step(tied, tied, two, two, noise, lr=0.1)
    with (
        h.shapes_unchecked(),
        pytest.raises(ValueError, match="offsets must rise from 0"),
    ):
        kernels.cbow_negative_sampling_step(tied, table.copy(), two, two + 1, two, noise, lr=0.1)
