"""The metrics equal scikit-learn's and SciPy's, and refuse what cannot be meant."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlnotes import metrics

CLASSES = 5


def pairs_of_labels():
    """Predicted and true class indices of the same length; classes may be missing in either."""
    length = st.integers(1, 40)
    label = hnp.arrays(np.int64, length, elements=st.integers(0, CLASSES - 1))
    return label.flatmap(
        lambda a: st.tuples(
            st.just(a), hnp.arrays(np.int64, len(a), elements=st.integers(0, CLASSES - 1))
        )
    )


def pairs_of_numbers(dtype=np.float64, most_axes=2):
    shapes = hnp.array_shapes(min_dims=1, max_dims=most_axes, min_side=2, max_side=9)
    # Multiples of 1/8: a generated difference is never lost in rounding.
    element = st.integers(-80_000, 80_000).map(lambda i: i / 8)
    return shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(dtype, shape, elements=element), hnp.arrays(dtype, shape, elements=element)
        )
    )


def distributions(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


@settings(deadline=None)
@given(pairs_of_labels())
def test_accuracy_equals_sklearn(pair):
    predicted, target = pair
    assert metrics.accuracy(predicted, target) == sk.accuracy_score(target, predicted)


@settings(deadline=None)
@given(pairs_of_labels())
def test_confusion_matrix_equals_sklearn(pair):
    predicted, target = pair
    got = metrics.confusion_matrix(predicted, target, num_classes=CLASSES)
    expected = sk.confusion_matrix(target, predicted, labels=range(CLASSES))
    np.testing.assert_array_equal(got, expected)


@settings(deadline=None)
@given(pairs_of_labels(), st.sampled_from(["macro", "micro", "weighted", "none"]))
def test_precision_recall_f1_equal_sklearn(pair, average):
    predicted, target = pair
    for ours, theirs in [
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
        (metrics.f1, sk.f1_score),
    ]:
        classes = max(predicted.max(), target.max()) + 1
        expected = theirs(
            target,
            predicted,
            average=None if average == "none" else average,
            labels=range(classes) if average == "none" else None,
            zero_division=0,
        )
        np.testing.assert_allclose(ours(predicted, target, average=average), expected, rtol=1e-12)


@settings(deadline=None)
@given(hnp.arrays(np.int64, 12, elements=st.integers(0, 1)), st.integers(0, 2**12 - 1))
def test_binary_average_equals_sklearn(predicted, bits):
    target = (bits >> np.arange(12)) & 1
    for ours, theirs in [
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
        (metrics.f1, sk.f1_score),
    ]:
        expected = theirs(target, predicted, average="binary", zero_division=0)
        assert ours(predicted, target, average="binary") == pytest.approx(expected, rel=1e-12)


def test_binary_without_any_positive_is_zero():
    assert metrics.f1([0, 0], [0, 0], average="binary") == 0.0


def test_scores_are_turned_into_their_largest():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(50, CLASSES)).astype(np.float32)
    target = rng.integers(0, CLASSES, 50)
    assert metrics.accuracy(scores, target) == metrics.accuracy(scores.argmax(axis=1), target)
    # The number of classes comes from the scores, even if the last one never occurs.
    assert metrics.confusion_matrix(scores[:1], target[:1]).shape == (CLASSES, CLASSES)


@settings(deadline=None)
@given(pairs_of_numbers())
def test_regression_equals_sklearn(pair):
    prediction, target = pair
    for ours, theirs in [
        (metrics.mean_squared_error, sk.mean_squared_error),
        (metrics.root_mean_squared_error, sk.root_mean_squared_error),
        (metrics.mean_absolute_error, sk.mean_absolute_error),
        (metrics.r2_score, sk.r2_score),
    ]:
        assert ours(prediction, target) == pytest.approx(theirs(target, prediction), rel=1e-9)


@settings(deadline=None)
@given(pairs_of_numbers(np.float32))
def test_float32_is_summed_in_float64(pair):
    prediction, target = pair
    exact = np.mean((prediction.astype(np.float64) - target.astype(np.float64)) ** 2)
    assert metrics.mean_squared_error(prediction, target) == pytest.approx(exact, rel=1e-12)


def test_float16_does_not_overflow():
    prediction = np.full(100, 300, dtype=np.float16)  # 300² is beyond float16
    assert metrics.mean_squared_error(prediction, np.zeros(100, np.float16)) == 90_000


@pytest.mark.parametrize(
    ("prediction", "expected"), [([2.0, 2.0, 2.0], 1.0), ([2.0, 2.0, 3.0], 0.0)]
)
def test_r2_of_constant_targets(prediction, expected):
    assert metrics.r2_score(prediction, [2.0, 2.0, 2.0]) == expected
    assert sk.r2_score([2.0, 2.0, 2.0], prediction) == expected


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 8))
def test_cross_entropy_equals_sklearn(seed, n, c):
    p = distributions(seed, (n, c))
    target = np.random.default_rng(seed).integers(0, c, n)
    expected = sk.log_loss(target, p, labels=range(c))
    assert metrics.cross_entropy(p, target) == pytest.approx(expected, rel=1e-9)
    one_hot = np.eye(c)[target]
    assert metrics.cross_entropy(p, one_hot) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_binary_cross_entropy_equals_sklearn(seed, n):
    rng = np.random.default_rng(seed)
    p, target = rng.uniform(0.01, 0.99, n), rng.integers(0, 2, n)
    expected = sk.log_loss(target, p, labels=[0, 1])
    assert metrics.cross_entropy(p, target) == pytest.approx(expected, rel=1e-9)
    assert metrics.cross_entropy(p, target.astype(bool)) == pytest.approx(expected, rel=1e-9)


def test_cross_entropy_of_an_excluded_class_is_infinite():
    assert metrics.cross_entropy([[1.0, 0.0]], [1]) == math.inf
    assert metrics.cross_entropy([[1.0, 0.0]], [0]) == 0.0
    assert metrics.cross_entropy([[1.0, 0.0]], [[0.5, 0.5]]) == math.inf


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 8))
def test_entropy_and_kl_equal_scipy(seed, n, c):
    p, q = distributions(seed, (n, c)), distributions(seed + 1, (n, c))
    np.testing.assert_allclose(
        metrics.entropy(p), scipy.stats.entropy(p, axis=-1), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        metrics.kl_divergence(p, q), scipy.stats.entropy(p, q, axis=-1), rtol=1e-9, atol=1e-12
    )


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_cross_entropy_is_entropy_plus_kl(seed, c):
    p, q = distributions(seed, (1, c)), distributions(seed + 1, (1, c))
    total = metrics.entropy(p[0]) + metrics.kl_divergence(p[0], q[0])
    assert metrics.cross_entropy(q, p) == pytest.approx(total, rel=1e-9)


def test_zero_probabilities():
    assert metrics.entropy([1.0, 0.0]) == 0.0
    assert math.copysign(1, metrics.entropy([1.0, 0.0])) == 1
    assert metrics.kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert metrics.kl_divergence([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert metrics.kl_divergence([1.0, 0.0], [1.0, 0.0]) == 0.0
    # A quotient of 1e300 / 1e-300 would overflow; the difference of the logarithms does not.
    assert np.isfinite(metrics.kl_divergence([1.0, 0.0], [1e-320, 1.0]))


# --- Perplexity, calibration, verification, text ----------------------------------------------


def test_perplexity_of_a_uniform_guess_is_the_number_of_words():
    assert metrics.perplexity(np.full((3, 5), np.log(50.0))) == pytest.approx(50)
    assert metrics.perplexity(0.0) == 1.0
    assert metrics.perplexity([np.inf, 1.0]) == np.inf
    assert metrics.perplexity(np.full(4, 800.0)) == np.inf


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 12), st.booleans())
def test_calibration_curve_and_brier_score_equal_sklearn(seed, n, bins, quantile):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(n), 2)  # with ties, and on the edges of bins
    y = rng.integers(0, 2, n)
    strategy = "quantile" if quantile else "uniform"
    confidence, accuracy, count = metrics.calibration_curve(p, y, n_bins=bins, strategy=strategy)
    share, mean = sklearn.calibration.calibration_curve(y, p, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(confidence, mean)
    np.testing.assert_allclose(accuracy, share)
    assert count.sum() == n
    assert metrics.brier_score(p, y) == pytest.approx(np.mean((p - y) ** 2))
    if len(set(y)) == 2:
        assert metrics.brier_score(p, y) == pytest.approx(sk.brier_score_loss(y, p))
    # Of two classes the sum over both counts every error twice.
    both = np.stack([1 - p, p], axis=1)
    assert metrics.brier_score(both, y) == pytest.approx(2 * metrics.brier_score(p, y))


def test_expected_calibration_error_by_hand():
    # Two samples sure to 0.9, one of them right; two sure to 0.6, both right.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    y = np.array([0, 1, 1, 1])
    assert metrics.expected_calibration_error(p, y) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    # In a single bin the errors of the two groups partly cancel: it depends on the bins.
    single = abs(0.75 - 0.75)
    assert metrics.expected_calibration_error(p, y, n_bins=1) == pytest.approx(single)


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_has_not():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.5, 1, 20_000)
    right = rng.random(20_000) < p
    p = np.stack([p, 1 - p], axis=1)
    y = np.where(right, 0, 1)
    assert metrics.expected_calibration_error(p, y) < 0.02
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert metrics.expected_calibration_error(sharper, y) > 0.08


def scored_pairs():
    return st.tuples(st.integers(0, 999), st.integers(2, 40), st.sampled_from([1, 0, 8])).map(
        lambda t: (np.random.default_rng(t[0]), *t[1:])
    )


@settings(deadline=None)
@given(scored_pairs())
def test_roc_equals_sklearn(drawn):
    rng, n, decimals = drawn
    scores, y = np.round(rng.standard_normal(n), decimals), rng.integers(0, 2, n)
    y[:2] = 0, 1
    actual = metrics.roc_curve(scores, y)
    expected = sk.roc_curve(y, scores, drop_intermediate=False)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    auc = metrics.roc_auc(scores, y)
    assert auc == pytest.approx(sk.roc_auc_score(y, scores))
    above = scores[y == 1][:, None] - scores[y == 0]
    assert auc == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())


@settings(deadline=None)
@given(scored_pairs())
def test_equal_error_rate_lies_on_the_curve(drawn):
    rng, n, decimals = drawn
    scores, y = np.round(rng.standard_normal(n), decimals), rng.integers(0, 2, n)
    y[:2] = 0, 1
    rate, threshold = metrics.equal_error_rate(scores, y)
    false_rate, true_rate, _ = metrics.roc_curve(scores, y)
    steps = np.linspace(0, len(false_rate) - 1, 4001)  # along the curve
    wrong = np.interp(steps, range(len(false_rate)), false_rate)
    missed = 1 - np.interp(steps, range(len(false_rate)), true_rate)
    assert wrong[np.abs(wrong - missed).argmin()] == pytest.approx(rate, abs=0.02)
    at = [(scores[y == 0] >= threshold).mean(), (scores[y == 1] < threshold).mean()]
    assert min(at) - 1e-12 <= rate <= max(at) + 1e-12
    assert threshold in scores


def test_equal_error_rate_of_two_bells():
    """Scores N(0, 1) and N(d, 1) cross half way: the rate is Φ(-d/2)."""
    grid = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    scores, y = np.append(grid, grid + 2), np.repeat([0, 1], 4000)
    rate, threshold = metrics.equal_error_rate(scores, y)
    assert rate == pytest.approx(scipy.stats.norm.cdf(-1), abs=1e-3)
    assert threshold == pytest.approx(1, abs=0.01)
    apart = metrics.equal_error_rate([0.0, 1.0, 5.0, 6.0], [0, 0, 1, 1])
    assert apart == (0.0, 5.0)
    backwards = metrics.equal_error_rate([5.0, 6.0, 0.0, 1.0], [0, 0, 1, 1])
    assert backwards[0] == 1.0


def test_true_accept_rate():
    scores, y = [9, 8, 7, 6, 5, 4], [1, 0, 1, 1, 0, 1]
    rates = [metrics.true_accept_rate(scores, y, false_accept_rate=f) for f in (0, 0.49, 0.5, 1)]
    assert rates == [0.25, 0.25, 0.75, 1.0]


def words(sentence):
    return sentence.split()


def test_bleu_clips_counts_as_in_the_paper():
    # Papineni et al. (2002), example 2: 2/7 with clipping, 7/7 without.
    candidate = words("the the the the the the the")
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert metrics.bleu([candidate], [references], max_n=1) == pytest.approx(2 / 7)
    assert metrics.bleu([candidate], [references]) == 0.0


def test_bleu_by_hand():
    candidate = words("the cat sat on the mat")
    reference = words("the cat is on the mat today now")
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, 0 of 3 fours; 6 words for 8.
    brevity = np.exp(1 - 8 / 6)
    expected = brevity * (5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3)
    assert metrics.bleu([candidate], [[reference]], max_n=3) == pytest.approx(expected)
    smoothed = brevity * (5 / 6 * 4 / 6 * 2 / 5 * 1 / 4) ** (1 / 4)
    assert metrics.bleu([candidate], [[reference]], smooth=True) == pytest.approx(smoothed)
    assert metrics.bleu([reference], [[reference, candidate]]) == 1.0


def test_bleu_of_a_corpus_pools_the_counts():
    good, bad = words("a b c d"), words("x y z")
    truth = [[good], [words("p q r")]]
    # Words 4 of 7, pairs 3 of 5; the mean of the sentences' own values would be 1/2.
    assert metrics.bleu([good, bad], truth, max_n=2) == pytest.approx((4 / 7 * 3 / 5) ** 0.5)
    assert metrics.bleu([[], good], [[bad], [good]], max_n=1) == pytest.approx(np.exp(1 - 7 / 4))


def test_sample_precision_and_recall():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((60, 3)), 50 + rng.standard_normal((60, 3))])
    one_mode = rng.standard_normal((60, 3))
    precise, covering = metrics.sample_precision_recall(real, one_mode)
    assert precise > 0.7
    assert covering < 0.5  # half of the real points are in the mode that was dropped
    assert metrics.sample_precision_recall(real, real) == (1.0, 1.0)
    assert metrics.sample_precision_recall(real, real + 1000.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: metrics.perplexity([0.5, -0.1]), ValueError, "loss .*-0.1"),
        (lambda: metrics.perplexity([np.nan]), ValueError, "loss .*nan"),
        (lambda: metrics.perplexity([]), ValueError, "loss must not be empty"),
        (lambda: metrics.calibration_curve([0.5, 1.5], [0, 1]), ValueError, "probabilities .*1.5"),
        (lambda: metrics.calibration_curve([0.5], [2]), ValueError, "target .*2"),
        (lambda: metrics.calibration_curve([0.5], [1], n_bins=0), ValueError, "n_bins"),
        (lambda: metrics.brier_score([[2.0, -1.0]], [0]), ValueError, "look like logits"),
        (lambda: metrics.roc_curve([0.1, 0.2], [1, 1]), ValueError, "both classes, got only 1"),
        (lambda: metrics.roc_auc([0.1, 0.2], [0, 2]), ValueError, "target must hold 0 and 1"),
        (lambda: metrics.roc_auc([[0.1, 0.2]], [1]), ValueError, r"scores .*\(1, 2\)"),
        (
            lambda: metrics.true_accept_rate([1, 0], [1, 0], false_accept_rate=2),
            ValueError,
            "false_accept_rate",
        ),
        (lambda: metrics.bleu(["a cat"], [[["a"]]]), TypeError, "candidates .*index 0"),
        (lambda: metrics.bleu([["a"]], [["a"]]), TypeError, "references .*index 0"),
        (lambda: metrics.bleu([["a"]], []), ValueError, "1 and 0"),
        (lambda: metrics.bleu([["a"]], [[]]), ValueError, "none at 0"),
        (
            lambda: metrics.sample_precision_recall(np.ones((5, 2)), np.ones((5, 3))),
            ValueError,
            r"generated .*\(5, 3\)",
        ),
        (
            lambda: metrics.sample_precision_recall(np.ones((3, 2)), np.ones((5, 2))),
            ValueError,
            "k must be",
        ),
    ],
)
def test_bad_input_of_these_names_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_inputs_are_not_changed_and_may_be_strided():
    rng = np.random.default_rng(0)
    p = distributions(0, (8, 3))
    backwards = np.ascontiguousarray(p[::-1])[::-1]
    target = rng.integers(0, 3, 8).astype(np.uint8)
    before = p.copy(), target.copy()
    assert metrics.cross_entropy(backwards, target) == metrics.cross_entropy(p, target)
    metrics.confusion_matrix(p, target)
    np.testing.assert_array_equal(p, before[0])
    np.testing.assert_array_equal(target, before[1])


def test_small_integer_labels_do_not_overflow():
    target = np.full(3, 200, dtype=np.uint8)
    assert metrics.confusion_matrix(target, target)[200, 200] == 3


GOOD = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: metrics.accuracy(GOOD, GOOD[:2]), ValueError, r"prediction .*\(2,\).*\(3,\)"),
        (lambda: metrics.accuracy(GOOD, GOOD[:, None]), ValueError, r"target .*\(3, 1\)"),
        (lambda: metrics.accuracy([0.2, 0.9], [0, 1]), TypeError, "prediction .*threshold"),
        (lambda: metrics.accuracy([0, -1], [0, 1]), ValueError, "prediction .*-1"),
        (lambda: metrics.accuracy([], []), ValueError, "prediction must not be empty"),
        (lambda: metrics.accuracy(["a"], ["a"]), TypeError, "prediction must hold numbers"),
        (lambda: metrics.confusion_matrix(GOOD, GOOD, num_classes=1), ValueError, "num_classes"),
        (lambda: metrics.f1(GOOD, GOOD, average="mean"), ValueError, "average must be one of"),
        (lambda: metrics.f1([0, 2], [0, 1], average="binary"), ValueError, "binary"),
        (
            lambda: metrics.mean_squared_error(np.ones(3), np.ones((3, 1))),
            ValueError,
            r"prediction has \(3,\), target has \(3, 1\)",
        ),
        (
            lambda: metrics.mean_absolute_error([1.0, np.nan], [1.0, 2.0]),
            ValueError,
            "prediction must be finite",
        ),
        (lambda: metrics.r2_score([1.0], [1.0]), ValueError, "two samples"),
        (lambda: metrics.cross_entropy([[2.0, -1.0]], [0]), ValueError, "look like logits"),
        (lambda: metrics.cross_entropy([[0.5, 0.4]], [0]), ValueError, "a sum of 0.9"),
        (lambda: metrics.cross_entropy([1.5], [0]), ValueError, "look like logits"),
        (lambda: metrics.cross_entropy([[0.5, 0.5]], [2]), ValueError, "class index 2"),
        (lambda: metrics.cross_entropy([[0.5, 0.5]], [0, 1]), ValueError, r"target .*\(1,\)"),
        (lambda: metrics.kl_divergence([0.5, 0.5], [1.0]), ValueError, "p and q"),
        (lambda: metrics.entropy([0.5, np.inf]), ValueError, "p must be finite"),
        (lambda: metrics.entropy(np.array(1.0)), ValueError, "p .*single number"),
    ],
)
def test_bad_input_names_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- Word vectors -----------------------------------------------------------------------------


def cosines_loops(vectors, query):
    lengths = [np.linalg.norm(v) * np.linalg.norm(query) for v in vectors]
    return np.array([v @ query / n if n else 0.0 for v, n in zip(vectors, lengths, strict=True)])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.data(), st.integers(0, 999))
def test_nearest_neighbours(v, d, q, drawn, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (v, d)).astype(np.float32)  # zeros and equal rows among them
    queries = rng.standard_normal((q, d))
    barred = rng.integers(0, v, (q, drawn.draw(st.integers(0, 3))))
    k = drawn.draw(st.integers(1, v))
    best, cosines = metrics.nearest_neighbours(vectors, queries, k, exclude=barred)
    assert (best.shape, best.dtype, cosines.dtype) == ((q, k), np.int64, np.float64)
    for i in range(q):
        expected = cosines_loops(vectors.astype(float), queries[i])
        expected[barred[i]] = -np.inf
        np.testing.assert_allclose(cosines[i], np.sort(expected)[::-1][:k], atol=1e-12)
        np.testing.assert_allclose(expected[best[i]], cosines[i], atol=1e-12)
        assert len(set(best[i])) == k
        one = metrics.nearest_neighbours(vectors, queries[i], k, exclude=barred[i])
        np.testing.assert_array_equal(one[0], best[i])
        np.testing.assert_allclose(one[1], cosines[i], atol=1e-12)


def test_nearest_neighbours_of_equal_rank_stay_in_order():
    vectors = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    best, cosines = metrics.nearest_neighbours(vectors, [3.0, 0.0], 4)
    np.testing.assert_array_equal(best, [1, 2, 0, 3])
    np.testing.assert_array_equal(cosines, [1, 1, 0, 0])
    sk_cosines = sk.pairwise.cosine_similarity([[3.0, 0.0]], vectors)[0]
    np.testing.assert_allclose(cosines, sk_cosines[best])


@settings(deadline=None, max_examples=40)
@given(st.integers(4, 12), st.integers(1, 4), st.integers(1, 300), st.integers(0, 999))
def test_analogy_accuracy(v, d, n, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((v, d))
    questions = np.array([rng.permutation(v)[:4] for _ in range(n)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    right = 0
    for a, b, c, wanted in questions:
        similar = cosines_loops(unit, unit[b] - unit[a] + unit[c])
        similar[[a, b, c]] = -np.inf
        right += similar.argmax() == wanted
    assert metrics.analogy_accuracy(vectors, questions) == right / n


def test_an_analogy_that_needs_its_own_words_left_out():
    # b - a + c lies nearest to b itself; d is the best of the others.
    vectors = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.1], [0.9, 0.5], [-1.0, 0.0]])
    assert metrics.analogy_accuracy(vectors, [[0, 1, 2, 3], [0, 1, 2, 4]]) == 0.5


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 999))
def test_weat_effect_size(n, m, seed):
    rng = np.random.default_rng(seed)
    x, y, a, b = (rng.standard_normal((count, 5)) for count in (n, n, m, m + 1))

    def association(word):
        return cosines_loops(a, word).mean() - cosines_loops(b, word).mean()

    s, t = ([association(word) for word in words] for words in (x, y))
    expected = (np.mean(s) - np.mean(t)) / np.std(s + t)
    effect = metrics.weat_effect_size(x, y, a, b)
    assert effect == pytest.approx(expected, rel=1e-9)
    assert abs(effect) <= 2 + 1e-9
    assert metrics.weat_effect_size(y, x, a, b) == pytest.approx(-effect, rel=1e-9)
    assert metrics.weat_effect_size(x, y, b, a) == pytest.approx(-effect, rel=1e-9)
    # Lengths do not count.
    assert metrics.weat_effect_size(3 * x, y, a / 7, b) == pytest.approx(effect, rel=1e-9)


def test_weat_of_two_poles_and_of_no_difference():
    up, right = np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])
    assert metrics.weat_effect_size(up, right, up, right) == pytest.approx(2)
    assert math.isnan(metrics.weat_effect_size(up, up, up, right))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.nearest_neighbours(np.ones((3, 2)), np.ones((1, 3))),
            ValueError,
            r"queries must have vectors of 2, got \(1, 3\)",
        ),
        (
            lambda: metrics.nearest_neighbours(np.ones((3, 2)), np.ones(2), 4),
            ValueError,
            "k must be in 1 … 3, got 4",
        ),
        (
            lambda: metrics.nearest_neighbours(np.ones((3, 2)), np.ones(2), 1, exclude=[3]),
            ValueError,
            "exclude must be in 0 … 2",
        ),
        (
            lambda: metrics.nearest_neighbours(np.ones((3, 2)), np.ones((2, 2)), 1, exclude=[[0]]),
            ValueError,
            "exclude must have one row for each query, got 1",
        ),
        (
            lambda: metrics.analogy_accuracy(np.ones((3, 2)), [[0, 1, 2]]),
            ValueError,
            r"questions must have shape \(n, 4\)",
        ),
        (
            lambda: metrics.analogy_accuracy(np.ones((3, 2)), [[0.0, 1, 2, 3]]),
            TypeError,
            "questions must be integers in rows",
        ),
        (
            lambda: metrics.weat_effect_size(*[np.ones((1, d)) for d in (2, 2, 2, 3)]),
            ValueError,
            "must have vectors of one length",
        ),
    ],
)
def test_word_metrics_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
