"""The metrics equal scikit-learn's and SciPy's, and refuse what cannot be meant."""

import math

import numpy as np
import pytest
import scipy.stats
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
