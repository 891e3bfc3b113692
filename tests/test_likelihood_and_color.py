"""Gaussian likelihood, Jensen-Shannon divergence, ranks, confident learning, colours."""

import math

import core_helpers as h
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch

from dlnotes import check, kernels, metrics, models, nn
from dlnotes.autograd import tensor

# ---- Gaussian likelihood -------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussian_likelihood_as_torchs(full, reduction, dtype):
    x, y = h.draw(0, (4, 3), dtype), h.draw(1, (4, 3), dtype)
    var = np.abs(h.draw(2, (4, 3), dtype)) + dtype(0.1)
    var[0, 0] = 0  # cut off at eps
    ours = nn.GaussianNLLLoss(full=full, eps=0.05, reduction=reduction)
    theirs = torch.nn.GaussianNLLLoss(full=full, eps=0.05, reduction=reduction)
    a, v = tensor(x, requires_grad=True), tensor(var, requires_grad=True)
    torch_a, torch_v = (torch.tensor(one, requires_grad=True) for one in (x, var))
    loss, expected = ours(a, y, v), theirs(torch_a, torch.tensor(y), torch_v)
    h.assert_close(loss.data, expected, dtype, 100)
    dy = h.draw(3, loss.shape, dtype)
    loss.backward(dy)
    expected.backward(torch.tensor(dy))
    h.assert_close(a.grad, torch_a.grad, dtype, 100)
    h.assert_close(v.grad, torch_v.grad, dtype, 1000)


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (3,)])
def test_variances_broadcast_as_in_torch(shape):
    """(3,) of an input (3, 3) is one variance for each sample, not for each column."""
    x, y, var = (
        h.draw(0, (3, 3), np.float64),
        h.draw(1, (3, 3), np.float64),
        h.draw(2, shape, float),
    )
    v, torch_v = tensor(var**2, requires_grad=True), torch.tensor(var**2, requires_grad=True)
    loss = nn.functional.gaussian_nll_loss(x, y, v)
    expected = torch.nn.functional.gaussian_nll_loss(torch.tensor(x), torch.tensor(y), torch_v)
    h.assert_close(loss.data, expected, np.float64, factor=100)
    loss.backward()
    expected.backward()
    h.assert_close(v.grad, torch_v.grad, np.float64, factor=1000)


def test_full_is_the_likelihood():
    x, y, var = (h.draw(i, (5,), np.float64) for i in range(3))
    expected = scipy.stats.norm.logpdf(y, x, np.sqrt(var**2)).sum()
    ours = kernels.gaussian_nll_loss(x, y, var**2, full=True, reduction="sum")
    assert ours == pytest.approx(-expected)
    check.gradcheck(
        lambda x, v: kernels.gaussian_nll_loss(x, y, v),
        (x, var**2 + 0.1),
        backward=lambda dy, x, v: kernels.gaussian_nll_loss_backward(dy, x, y, v),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(2), np.ones(2), -np.ones(2)), "var must be at least 0, got -1"),
        ((np.ones(2), np.ones(2), np.ones(3)), r"var must broadcast to the shape \(2,\) of input"),
        ((np.ones(2), np.ones(2), np.ones(2), False, 0), "eps must be above 0"),
    ],
)
def test_gaussian_likelihood_refuses(arguments, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        kernels.gaussian_nll_loss(*arguments)


# ---- divergence and ranks ------------------------------------------------------------------------


def test_jensen_shannon_as_scipys():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(5, 0.3), (2, 4))
    expected = scipy.spatial.distance.jensenshannon(p, q, axis=1) ** 2
    np.testing.assert_allclose(metrics.js_divergence(p, q), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.js_divergence(q, p), expected, rtol=1e-9)
    assert metrics.js_divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.log(2))
    assert metrics.js_divergence([0.3, 0.7], [0.3, 0.7]) == 0
    with pytest.raises(ValueError, match="p and q must have the same shape"):
        metrics.js_divergence([0.5, 0.5], [1.0])
    with pytest.raises(ValueError, match="p"):
        metrics.js_divergence([0.5, 0.6], [0.5, 0.5])


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_as_scipys(ties):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(30)
    y = x + rng.standard_normal(30)
    x, y = (np.round(one) for one in (x, y)) if ties else (x, y)
    expected = scipy.stats.spearmanr(x, y).statistic
    assert metrics.spearman_correlation(x, y) == pytest.approx(expected)
    assert metrics.spearman_correlation([1, 2, 3], [9, 99, 999]) == pytest.approx(1)
    assert metrics.spearman_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert np.isnan(metrics.spearman_correlation([1, 1], [1, 2]))
    with pytest.raises(ValueError, match="first and second must have the same shape"):
        metrics.spearman_correlation([1, 2], [1, 2, 3])


# ---- confident learning --------------------------------------------------------------------------


def test_confident_joint_by_hand():
    labels = [0, 0, 0, 1, 1]
    p = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]]
    # Thresholds: 0.6 for class 0, 0.75 for class 1. The fourth sample reaches neither.
    np.testing.assert_allclose(metrics.confident_joint(labels, p), [[2, 1], [0, 2]])
    assert metrics.label_issues(labels, p).tolist() == [2]


def test_confident_learning_finds_planted_errors():
    """A tenth of 2,000 labels is wrong; most are found, and most that are found are wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2000)
    logits = 2.0 * rng.standard_normal((2000, 3)) * 0.6
    logits[np.arange(2000), truth] += 3
    probabilities = kernels.softmax(logits)
    labels = truth.copy()
    wrong = rng.permutation(2000)[:200]
    labels[wrong] = (labels[wrong] + 1) % 3  # 0 → 1, 1 → 2, 2 → 0
    found = metrics.label_issues(labels, probabilities)
    hits = np.isin(found, wrong)
    assert hits.mean() > 0.8
    assert hits.sum() > 0.7 * len(wrong)
    assert hits[:50].mean() > 0.95  # the most suspicious first
    joint = metrics.confident_joint(labels, probabilities)
    np.testing.assert_allclose(joint.sum(axis=1), np.bincount(labels))
    off = joint - np.diag(np.diag(joint))
    for label in range(3):  # a wrong label says the next class
        assert off[label].argmax() == (label - 1) % 3


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 0], [[0.5, 0.5]] * 2, "labels must name each class, class 1 has no sample"),
        ([0, 2], [[0.5, 0.5]] * 2, "labels must be below the 2 classes, got 2"),
        ([0], [[0.5, 0.5]] * 2, r"labels must hold class indices of shape \(2,\)"),
        ([0, 1], [0.5, 0.5], r"probabilities must have shape \(n, c\)"),
    ],
)
def test_confident_learning_refuses(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metrics.confident_joint(labels, probabilities)


# ---- colours -------------------------------------------------------------------------------------


def moments(image):
    pixels = image.reshape(3, -1)
    return pixels.mean(axis=1), np.cov(pixels, bias=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matched_colors_have_the_moments_of_the_reference(dtype):
    rng = np.random.default_rng(0)
    image = rng.random((3, 9, 7)).astype(dtype)
    mix = np.array([[1, 0.3, 0], [0, 0.8, 0.2], [0.1, 0, 0.5]])
    reference = np.tensordot(mix, rng.random((3, 5, 6)), 1).astype(dtype)
    matched = models.match_colors(image, reference)
    assert matched.dtype == dtype
    assert matched.shape == image.shape
    for ours, theirs in zip(moments(matched), moments(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(models.match_colors(image, image), image, atol=1e-5)
    gray = np.full((3, 4, 4), 0.5, dtype)  # of one colour: there is nothing to spread
    np.testing.assert_allclose(moments(models.match_colors(gray, reference))[1], 0, atol=1e-6)


def test_kept_colors_change_the_light_only():
    rng = np.random.default_rng(1)
    painted, photo = rng.random((2, 3, 4, 5))
    mixed = models.keep_colors(painted, photo)
    weights = np.array([0.299, 0.587, 0.114])
    light = [np.tensordot(weights, one, 1) for one in (mixed, painted, photo)]
    np.testing.assert_allclose(light[0], light[1])
    # The colour is what is left of light: the differences of the channels stay those of the photo.
    for a, b in ((0, 1), (1, 2)):
        np.testing.assert_allclose(mixed[a] - mixed[b], photo[a] - photo[b], atol=5e-3)
    np.testing.assert_allclose(models.keep_colors(photo, photo), photo, atol=1e-12)


def test_colors_refuse():
    with h.shapes_unchecked():
        with pytest.raises(ValueError, match=r"image must have shape \(3, h, w\)"):
            models.match_colors(np.ones((4, 2, 2)), np.ones((3, 2, 2)))
        with pytest.raises(TypeError, match="photo must be float32 or float64, got uint8"):
            models.keep_colors(np.ones((3, 2, 2)), np.ones((3, 2, 2), np.uint8))
        with pytest.raises(ValueError, match="painted and photo must have the same shape"):
            models.keep_colors(np.ones((3, 2, 2)), np.ones((3, 2, 3)))
