"""Losses with weights, margins and several inputs, against torch and numeric gradients."""

import inspect
import math

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check, kernels, nn
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as ours

reductions = st.sampled_from(["mean", "sum", "none"])
with_batchmean = st.sampled_from(["mean", "sum", "none", "batchmean"])


def torch_of(array, requires_grad=False):
    tensor = torch.tensor(np.array(array, order="C"))
    tensor = tensor if tensor.is_floating_point() else tensor.long()
    return tensor.requires_grad_(requires_grad)


def check_against(expected_loss, name, inputs, constants, reduction, seed, scale=1.0, **keywords):
    """Compare value and gradients of a kernel; `expected_loss` takes and gives torch tensors."""
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    dtype = inputs[0].dtype
    loss = h.assert_pure(
        lambda *a: forward(*a, reduction=reduction, **keywords), *inputs, *constants
    )
    dy = h.draw(seed, np.shape(loss), dtype)
    gradients = h.assert_pure(
        lambda *a: backward(a[-1], *a[:-1], reduction=reduction, **keywords),
        *inputs,
        *constants,
        dy,
    )
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    tensors = [torch_of(x, requires_grad=True) for x in inputs]
    expected = expected_loss(*tensors, *(torch_of(c) for c in constants))
    expected.backward(torch.tensor(dy))
    count = max(1, inputs[0].size) if reduction == "sum" else 1
    h.assert_close(loss, expected, dtype, scale * count, 10)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        h.assert_close(gradient, tensor.grad, dtype, scale, 10)


# ---- regression ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("smooth_l1_loss", "beta"), ("huber_loss", "delta")])
@settings(deadline=None, max_examples=30)
@given(
    h.shapes(), h.dtypes, h.scales, h.layouts, reductions, st.sampled_from([1, 0.3, 20]), h.seeds
)
def test_huber(name, key, shape, dtype, scale, layout, reduction, width, seed):
    inputs = [h.draw(seed + i, shape, dtype, scale, layout) for i in range(2)]
    check_against(
        lambda a, b: getattr(F, name)(a, b, reduction=reduction, **{key: width}),
        *(name, inputs[:1], inputs[1:], reduction, seed, 2 * scale * max(1, width)),
        **{key: width},
    )


# ---- two classes, weighted --------------------------------------------------------------------


def spanned(seed, shape, dtype, layout):
    """Return weights of a shape that broadcasts to `shape`: axes left out, axes of length 1."""
    rng = np.random.default_rng(seed)
    kept = [n if rng.random() < 0.6 else 1 for n in shape[rng.integers(0, len(shape) + 1) :]]
    return h.laid_out(np.asarray(rng.uniform(0, 3, kept), dtype), layout)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("binary_cross_entropy", ["weight"]),
        ("binary_cross_entropy_with_logits", ["weight"]),
        ("binary_cross_entropy_with_logits", ["pos_weight"]),
        ("binary_cross_entropy_with_logits", ["weight", "pos_weight"]),
    ],
)
@settings(deadline=None, max_examples=25)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, reductions, h.seeds)
def test_weights_of_entries(name, names, shape, dtype, scale, layout, reduction, seed):
    scale = 1.0 if name == "binary_cross_entropy" else scale
    input = h.draw(seed, shape, dtype, scale, layout)
    weights = {n: spanned(seed + i, input.shape, dtype, layout) for i, n in enumerate(names)}
    target = np.random.default_rng(seed).uniform(-0.2, 1.2, input.shape).clip(0, 1).astype(dtype)
    if name == "binary_cross_entropy":
        input = np.asarray(0.001 + 0.998 * kernels.sigmoid(input), dtype)
        scale = 100
    torchs = {n: torch_of(w) for n, w in weights.items()}
    check_against(
        lambda a, b: getattr(F, name)(a, b, reduction=reduction, **torchs),
        *(name, [input], [target], reduction, seed, 10 * scale),
        **weights,
    )


def test_smooth_l1_with_beta_0_is_the_absolute_error():
    x, t = h.draw(0, (4,), np.float64), h.draw(1, (4,), np.float64)
    assert kernels.smooth_l1_loss(x, t, beta=0) == kernels.l1_loss(x, t)
    np.testing.assert_array_equal(
        kernels.smooth_l1_loss_backward(1, x, t, beta=0), kernels.l1_loss_backward(1, x, t)
    )


# ---- classes ---------------------------------------------------------------------------------


@st.composite
def labelled(draw, max_rest=2):
    """Draw (input, labels, settings) with weights and ignored labels now and then."""
    n, classes = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    rest = draw(h.shapes(0, max_rest))
    dtype, seed = draw(h.dtypes), draw(h.seeds)
    input = h.draw(seed, (n, classes, *rest), dtype, draw(h.scales), draw(h.layouts))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (n, *rest))
    keywords = {"ignore_index": draw(st.sampled_from([-100, -1, 0, 7]))}
    if draw(st.booleans()):
        labels = np.where(rng.uniform(size=labels.shape) < 0.4, keywords["ignore_index"], labels)
    if draw(st.booleans()):
        keywords["weight"] = rng.uniform(0.1, 2, classes).astype(dtype)
    return input, h.laid_out(labels, draw(h.layouts)), keywords


def torch_settings(keywords):
    return {k: torch.tensor(v) if "weight" in k else v for k, v in keywords.items()}


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@settings(deadline=None, max_examples=50)
@given(labelled(), reductions, st.sampled_from([0, 0.1, 1]), h.seeds)
def test_weights_ignored_labels_and_smoothing(name, drawn, reduction, smoothing, seed):
    input, labels, keywords = drawn
    if name == "cross_entropy":
        keywords = {**keywords, "label_smoothing": smoothing}
    if 0 in input.shape[2:] and input.shape[0] == 0:
        return
    expected = torch_settings(keywords)
    scale = 3 * max(1, float(np.abs(input).max(initial=0)))
    if reduction == "mean" and np.all(labels == keywords["ignore_index"]):
        # The mean over nothing is NaN on both sides; its gradient is 0 here, NaN or 0 in torch.
        assert np.isnan(getattr(kernels, name)(input, labels, **keywords))
        gradient = getattr(kernels, f"{name}_backward")(1.0, input, labels, **keywords)
        np.testing.assert_array_equal(gradient, 0)
        return
    check_against(
        lambda x, t: getattr(F, name)(x, t, reduction=reduction, **expected),
        *(name, [input], [labels], reduction, seed, scale),
        **keywords,
    )


@settings(deadline=None, max_examples=30)
@given(labelled(), reductions, st.sampled_from([0, 0.1, 1]), h.seeds)
def test_probability_targets_with_weights_and_smoothing(drawn, reduction, smoothing, seed):
    input, _, keywords = drawn
    keywords = {**keywords, "ignore_index": -100, "label_smoothing": smoothing}
    if not input.size:
        return
    target = np.random.default_rng(seed).uniform(size=input.shape).astype(input.dtype)
    expected = torch_settings(keywords)
    check_against(
        lambda x, t: F.cross_entropy(x, t, reduction=reduction, **expected),
        *("cross_entropy", [input], [target], reduction, seed, 20 * np.abs(input).max()),
        **keywords,
    )


@settings(deadline=None, max_examples=40)
@given(labelled(0), reductions, st.sampled_from([1, 2]), st.sampled_from([1, 0.3, 0]), h.seeds)
def test_multi_margin(drawn, reduction, p, margin, seed):
    input, labels, keywords = drawn
    if not input.size:
        return
    labels = labels % input.shape[1]
    keywords = {k: v for k, v in keywords.items() if k == "weight"} | {"p": p, "margin": margin}
    expected = torch_settings(keywords)
    check_against(
        lambda x, t: F.multi_margin_loss(x, t, reduction=reduction, **expected),
        *("multi_margin_loss", [input], [labels], reduction, seed),
        scale=(2 * max(1, float(np.abs(input).max()))) ** p,
        **keywords,
    )


# ---- divergences -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
@settings(deadline=None, max_examples=30)
@given(h.shapes(1, 3, 1), h.dtypes, h.scales, h.layouts, with_batchmean, h.seeds)
def test_kl_div_with_log_targets(shape, dtype, scale, layout, reduction, seed):
    input = h.draw(seed, shape, dtype, scale, layout)
    target = kernels.log_softmax(h.draw(seed + 1, shape, dtype))
    check_against(
        lambda a, b: F.kl_div(a, b, reduction=reduction, log_target=True),
        *("kl_div", [input], [target], reduction, seed, 3 * scale),
        log_target=True,
    )


def test_a_probability_of_0_counts_nothing_in_either_form():
    log_q = np.log([0.5, 0.5])
    p = np.array([1.0, 0.0])
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    assert kernels.kl_div(log_q, log_p, "sum", log_target=True) == pytest.approx(np.log(2))
    assert kernels.kl_div(log_q, p, "sum") == pytest.approx(np.log(2))
    np.testing.assert_array_equal(
        kernels.kl_div_backward(1.0, log_q, log_p, "sum", log_target=True), [-1, 0]
    )


@settings(deadline=None, max_examples=30)
@given(h.shapes(1, 3, 1), h.dtypes, with_batchmean, h.seeds)
def test_gaussian_kl_against_torchs_distributions(shape, dtype, reduction, seed):
    mean, log_variance = (h.draw(seed + i, shape, dtype) for i in range(2))

    def expected(m, v):
        normal = torch.distributions.Normal(m, (v / 2).exp())
        standard = torch.distributions.Normal(torch.zeros_like(m), torch.ones_like(m))
        kl = torch.distributions.kl_divergence(normal, standard)
        if reduction == "batchmean":
            return kl.sum() / shape[0]
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction](kl)

    check_against(expected, "gaussian_kl", [mean, log_variance], [], reduction, seed, 10)


# ---- pairs and triplets ----------------------------------------------------------------------


def signs(seed, shape, dtype):
    return np.asarray(np.random.default_rng(seed).choice([-1, 1], shape), dtype)


kinds = st.sampled_from([np.int64, np.float32, np.float64, np.int8])


@settings(deadline=None, max_examples=30)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, reductions, kinds, h.seeds)
def test_margin_ranking(shape, dtype, scale, layout, reduction, kind, seed):
    inputs = [h.draw(seed + i, shape, dtype, scale, layout) for i in range(2)]
    target = signs(seed, np.shape(inputs[0]), kind)
    check_against(
        lambda a, b, t: F.margin_ranking_loss(a, b, t, margin=0.3, reduction=reduction),
        *("margin_ranking_loss", inputs, [target], reduction, seed, 3 * scale),
        margin=0.3,
    )


@settings(deadline=None, max_examples=30)
@given(h.shapes(), h.dtypes, h.scales, h.layouts, reductions, kinds, h.seeds)
def test_hinge_embedding(shape, dtype, scale, layout, reduction, kind, seed):
    input = h.draw(seed, shape, dtype, scale, layout)
    target = signs(seed, np.shape(input), kind)
    check_against(
        lambda x, t: F.hinge_embedding_loss(x, t, margin=0.7, reduction=reduction),
        *("hinge_embedding_loss", [input], [target], reduction, seed, 2 * scale),
        margin=0.7,
    )


@settings(deadline=None, max_examples=30)
@given(h.shapes(1, 1), st.integers(1, 5), h.dtypes, h.scales, h.layouts, reductions, kinds, h.seeds)
def test_cosine_embedding(n, d, dtype, scale, layout, reduction, kind, seed):
    inputs = [h.draw(seed + i, (*n, d), dtype, scale, layout) for i in range(2)]
    target = signs(seed, n, kind)
    check_against(
        lambda a, b, t: F.cosine_embedding_loss(a, b, t, margin=0.2, reduction=reduction),
        *("cosine_embedding_loss", inputs, [target], reduction, seed),
        scale=10 / min(1, scale),  # gradients go as 1/|x|
        margin=0.2,
    )


def test_equal_and_zero_vectors_have_finite_gradients():
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    for a, b in ((zero, zero), (zero, one), (one, one)):
        for label in (1, -1):
            target = np.array([label])
            for name in ("cosine_embedding_loss", "contrastive_loss"):
                gradients = getattr(kernels, f"{name}_backward")(1.0, a, b, target)
                assert np.isfinite(gradients).all()
    ours = kernels.cosine_embedding_loss_backward(1.0, zero, one, np.array([1]))
    tensor = torch_of(zero, requires_grad=True)
    F.cosine_embedding_loss(tensor, torch_of(one), torch.tensor([1])).backward()
    np.testing.assert_allclose(ours[0], tensor.grad, rtol=1e-14)


@settings(deadline=None, max_examples=30)
@given(h.shapes(0, 2), st.integers(1, 5), h.dtypes, h.scales, h.layouts, reductions, h.seeds)
def test_contrastive(shape, d, dtype, scale, layout, reduction, seed):
    inputs = [h.draw(seed + i, (*shape, d), dtype, scale, layout) for i in range(2)]
    target = signs(seed, shape, np.int64)
    margin = 2 * scale

    def expected(a, b, t):
        distance = (a - b).norm(dim=-1)
        loss = torch.where(t > 0, distance**2, (margin - distance).clamp_min(0) ** 2) / 2
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction](loss)

    check_against(
        *(expected, "contrastive_loss", inputs, [target], reduction, seed, 20 * scale**2),
        margin=margin,
    )


@settings(deadline=None, max_examples=60)
@given(
    h.shapes(0, 2),
    st.integers(1, 5),
    h.dtypes,
    h.scales,
    h.layouts,
    reductions,
    st.sampled_from([1, 2, 2.0, 3, 1.5]),
    st.booleans(),
    h.seeds,
)
def test_triplet(shape, d, dtype, scale, layout, reduction, p, swap, seed):
    vectors = [h.draw(seed + i, (*shape, d), dtype, scale, layout) for i in range(3)]
    if seed % 3 == 0:
        vectors[1] = vectors[0].copy()  # with swap, both distances are equal
    settings = {"margin": 0.7, "p": p, "swap": swap}
    check_against(
        lambda a, b, c: F.triplet_margin_loss(a, b, c, reduction=reduction, **settings),
        *("triplet_margin_loss", vectors, [], reduction, seed, 20 * scale),
        **settings,
    )


def test_the_triplet_margin_stands_inside():
    a, p, n = np.array([0.0, 0]), np.array([1.0, 0]), np.array([3.0, 0])
    assert kernels.triplet_margin_loss(a, p, n, margin=1.0) == 0  # 1 - 3 + 1 < 0
    assert kernels.triplet_margin_loss(a, p, n, margin=2.5) == pytest.approx(0.5, abs=1e-5)


# ---- gradients, numerically, all entries -----------------------------------------------------

rng = np.random.default_rng(7)
x, x2, x3 = (rng.standard_normal((4, 3)) for _ in range(3))
labels, some_ignored = np.array([0, 2, 1, 1]), np.array([0, -100, 1, 1])
soft, weight, pairs = rng.uniform(size=(4, 3)), rng.uniform(0.5, 2, 3), np.array([1, -1, -1, 1])
log_soft = np.log(soft)
CASES = {
    "smooth_l1_loss": ([x], [x2], {"beta": 0.5}),
    "huber_loss": ([x], [x2], {"delta": 0.5}),
    "nll_loss": ([x], [some_ignored], {"weight": weight}),
    "cross_entropy": ([x], [some_ignored], {"weight": weight}),
    "cross_entropy smoothed": ([x], [some_ignored], {"weight": weight, "label_smoothing": 0.2}),
    "cross_entropy soft": ([x], [soft], {"weight": weight, "label_smoothing": 0.2}),
    "multi_margin_loss": ([x], [labels], {"weight": weight, "margin": 0.6}),
    "multi_margin_loss squared": ([x], [labels], {"p": 2}),
    "binary_cross_entropy": ([soft], [soft[::-1]], {"weight": soft + 1}),
    "binary_cross_entropy_with_logits": ([x], [soft], {"weight": weight, "pos_weight": soft + 1}),
    "kl_div": ([x], [log_soft], {"log_target": True}),
    "gaussian_kl": ([x, x2], [], {}),
    "margin_ranking_loss": ([x[0], x2[0]], [pairs[:3]], {"margin": 0.2}),
    "hinge_embedding_loss": ([x[:, 0]], [pairs], {}),
    "cosine_embedding_loss": ([x, x2], [pairs], {"margin": -0.5}),
    "contrastive_loss": ([x, x2], [pairs], {"margin": 2.0}),
    "triplet_margin_loss": ([x, x2, x3], [], {}),
    "triplet_margin_loss swap 3": ([x, x2, x3], [], {"swap": True, "p": 3}),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case, reduction):
    inputs, constants, keywords = CASES[case]
    name = case.split()[0]
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    check.gradcheck(
        lambda *a: np.asarray(forward(*a, *constants, reduction=reduction, **keywords)),
        tuple(inputs),
        backward=lambda dy, *a: backward(dy, *a, *constants, reduction=reduction, **keywords),
    )


MODULES = {
    "SmoothL1Loss": ("smooth_l1_loss", {"beta": 0.5}, [x, x2]),
    "HuberLoss": ("huber_loss", {"delta": 0.5}, [x, x2]),
    "BCELoss": ("binary_cross_entropy", {"weight": weight}, [soft, np.round(soft)]),
    "BCEWithLogitsLoss": (
        "binary_cross_entropy_with_logits",
        {"weight": soft + 1, "pos_weight": weight},
        [x, soft],
    ),
    "KLDivLoss": ("kl_div", {"log_target": True}, [x, log_soft]),
    "NLLLoss": ("nll_loss", {"weight": weight, "ignore_index": 2}, [x, labels]),
    "CrossEntropyLoss": (
        "cross_entropy",
        {"weight": weight, "ignore_index": 2, "label_smoothing": 0.1},
        [x, labels],
    ),
    "MultiMarginLoss": (
        "multi_margin_loss",
        {"p": 2, "margin": 0.5, "weight": weight},
        [x, labels],
    ),
    "HingeEmbeddingLoss": ("hinge_embedding_loss", {"margin": 0.5}, [x[:, 0], pairs]),
    "MarginRankingLoss": ("margin_ranking_loss", {"margin": 0.5}, [x[:, 0], x2[:, 0], pairs]),
    "CosineEmbeddingLoss": ("cosine_embedding_loss", {"margin": 0.1}, [x, x2, pairs]),
    "TripletMarginLoss": (
        "triplet_margin_loss",
        {"margin": 0.5, "p": 3.0, "eps": 1e-5, "swap": True},
        [x, x2, x3],
    ),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_equal_torchs(name, reduction):
    function, keywords, arguments = MODULES[name]
    module = getattr(nn, name)(**keywords, reduction=reduction)
    constant = arguments[1:] if len(arguments) == 2 else arguments[3:]
    wants = [a.dtype == float and not any(a is c for c in constant) for a in arguments]
    tensors = [Tensor(a, requires_grad=w) for a, w in zip(arguments, wants, strict=True)]
    loss = module(*tensors)
    loss.backward(np.ones(loss.shape))
    theirs = [torch_of(a, t.requires_grad) for a, t in zip(arguments, tensors, strict=True)]
    expected = getattr(torch.nn, name)(**torch_settings(keywords), reduction=reduction)(*theirs)
    expected.sum().backward()
    h.assert_close(loss.detach().numpy(), expected, np.float64, 10)
    for mine, torchs in zip(tensors, theirs, strict=True):
        if mine.requires_grad:
            h.assert_close(mine.grad, torchs.grad, np.float64, 10)
    direct = getattr(ours, function)(*tensors, **keywords, reduction=reduction)
    np.testing.assert_array_equal(direct.data, loss.data)
    defaults = {k: v.default for k, v in inspect.signature(getattr(nn, name)).parameters.items()}
    in_torch = inspect.signature(getattr(torch.nn, name)).parameters
    assert {k: in_torch[k].default for k in defaults} == defaults


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy", "multi_margin_loss"])
def test_one_sample_without_the_batch_axis(name, reduction):
    targets = [np.array(2)] if name != "cross_entropy" else [np.array(2), soft[0]]
    for target in targets:
        mine, theirs = Tensor(x[0], requires_grad=True), torch_of(x[0], True)
        settings = {"reduction": reduction, "weight": weight}
        loss = getattr(ours, name)(mine, target, **settings)
        settings["weight"] = torch_of(weight)
        expected = getattr(F, name)(theirs, torch_of(target), **settings)
        assert loss.shape == ()
        loss.backward()
        expected.backward()
        h.assert_close(loss.data, expected, np.float64, 10)
        h.assert_close(mine.grad, theirs.grad, np.float64, 10)


def test_contrastive_and_gaussian_kl_on_tensors():
    loss = nn.ContrastiveLoss(2.0)(Tensor(x, requires_grad=True), x2, pairs)
    assert loss.item() == kernels.contrastive_loss(x, x2, pairs, margin=2.0)
    check.gradcheck(lambda m, v: ours.gaussian_kl(m, v, "batchmean"), (x, x2))


def test_targets_and_weights_get_no_gradient():
    wanting = Tensor(weight, requires_grad=True)
    with pytest.raises(ValueError, match=r"weight gets no gradient: pass weight.detach\(\)"):
        ours.cross_entropy(x, labels, weight=wanting)
    with pytest.raises(ValueError, match="target gets no gradient"):
        ours.margin_ranking_loss(x, x2, Tensor(np.ones((4, 3)), requires_grad=True))


# ---- extremes and bad input ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_stay_finite(dtype):
    big = np.array([[1e4, -1e4, 0]], dtype)
    assert np.isfinite(kernels.huber_loss(1e30 * np.sign(big), -big))
    assert np.isfinite(kernels.cosine_embedding_loss(big, -big, np.array([1])))
    assert np.isfinite(kernels.triplet_margin_loss(big, -big, big))
    assert kernels.cross_entropy(big, np.array([1]), label_smoothing=0.3) == pytest.approx(
        0.7 * 2e4 + 0.3 * 1e4, rel=1e-6
    )


@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("weights", [None, [0.0, 1.0, 2.0]])
@pytest.mark.parametrize(
    ("name", "keywords"),
    [("nll_loss", {}), ("cross_entropy", {}), ("cross_entropy", {"label_smoothing": 0.1})],
)
def test_ignored_samples_count_nothing_whatever_their_scores(name, keywords, weights, bad):
    """Neither does the gradient of their losses, as in torch."""
    scores, target = h.draw(0, (4, 3), np.float64), np.array([-100, 0, 2, -100])
    scores[0, 0] = bad
    class_weights = None if weights is None else np.array(weights)
    for reduction in ("mean", "sum", "none"):
        mine, theirs = Tensor(scores, requires_grad=True), torch_of(scores, requires_grad=True)
        loss = getattr(ours, name)(
            mine, target, weight=class_weights, reduction=reduction, **keywords
        )
        expected = getattr(F, name)(
            theirs,
            torch_of(target),
            weight=None if weights is None else torch_of(class_weights),
            reduction=reduction,
            **keywords,
        )
        assert np.isfinite(loss.data).all()
        h.assert_close(loss.data, expected, np.float64, 10)
        dy = np.ones_like(loss.data)
        dy.reshape(-1)[3:] = np.inf  # of the last sample, with "none"
        loss.backward(dy)
        expected.backward(torch.tensor(dy))
        h.assert_close(mine.grad, theirs.grad, np.float64, 10)
        assert not mine.grad[3].any()


PAIR_MARGINS = np.array([-2.0, 0.5, 3.0])
CUT_OFF = {  # name: (inputs, constants, where the loss is cut off)
    "perceptron_loss": ([PAIR_MARGINS], [], [0, 1, 1]),
    "hinge_loss": ([PAIR_MARGINS], [], [0, 0, 1]),
    "zero_one_loss": ([PAIR_MARGINS], [], [1, 1, 1]),
    "hinge_embedding_loss": ([PAIR_MARGINS], [-np.ones(3)], [0, 0, 1]),
    "margin_ranking_loss": ([PAIR_MARGINS, np.zeros(3)], [np.ones(3)], [0, 1, 1]),
    "cosine_embedding_loss": ([np.eye(3), np.eye(3)[[1, 1, 0]]], [-np.ones(3)], [1, 0, 1]),
    "triplet_margin_loss": ([np.eye(3), np.eye(3) + 5, np.eye(3) - 9], [], [1, 1, 1]),
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_an_infinite_gradient_does_not_pass_a_loss_that_is_cut_off(name):
    inputs, constants, cut = CUT_OFF[name]
    keywords = {"margin": 0.5} if name == "cosine_embedding_loss" else {}
    dy = np.where(cut, np.inf, 1.0)
    backward = getattr(kernels, f"{name}_backward")
    gradients = backward(dy, *inputs, *constants, reduction="none", **keywords)
    for gradient in gradients if isinstance(gradients, tuple) else (gradients,):
        np.testing.assert_array_equal(gradient[np.array(cut, bool)], 0)


def test_a_spread_that_overflows_is_infinite_without_a_warning():
    mean, log_variance = np.float32([1e4, -1]), np.float32([1e4, -1e4])
    np.testing.assert_array_equal(
        kernels.gaussian_kl(mean, log_variance, "none"), np.float32([np.inf, 5e3])
    )
    dmean, dlog_variance = kernels.gaussian_kl_backward(1.0, mean, log_variance, "sum")
    np.testing.assert_array_equal(dmean, mean)
    np.testing.assert_array_equal(dlog_variance, np.float32([np.inf, -0.5]))
    noise = np.float32([1, 2])
    y = kernels.reparameterize(mean, log_variance, noise)
    np.testing.assert_array_equal(y, np.float32([np.inf, -1]))
    one = np.ones(2, np.float32)
    _, dlog_var, dnoise = kernels.reparameterize_backward(one, mean, log_variance, noise)
    np.testing.assert_array_equal(dlog_var, np.float32([np.inf, 0]))
    np.testing.assert_array_equal(dnoise, np.float32([np.inf, 0]))


def refused(name, error, message, *arguments, **keywords):
    """Both directions must refuse the same arguments with the same words."""
    with h.shapes_unchecked():
        with pytest.raises(error, match=message):
            getattr(kernels, name)(*arguments, **keywords)
        with pytest.raises(error, match=message):
            getattr(kernels, f"{name}_backward")(1.0, *arguments, **keywords)


def test_bad_weights_and_labels():
    for name in ("nll_loss", "cross_entropy", "multi_margin_loss"):
        refused(
            name, ValueError, r"weight must have shape \(3,\) \(one for", x, labels, weight=x[0, :2]
        )
        refused(name, TypeError, "weight must be a NumPy array", x, labels, weight=[1, 1, 1])
        refused(name, TypeError, "weight is float32", x, labels, weight=weight.astype(np.float32))
        refused(name, ValueError, "target must hold labels in 0 … 2, got 3", x, labels + 1)
    refused("nll_loss", ValueError, "got -1", x, labels - 1, ignore_index=-2)
    refused("nll_loss", TypeError, "ignore_index must be an int", x, labels, ignore_index=0.5)
    name = "cross_entropy"
    refused(name, ValueError, "label_smoothing must be in 0 … 1", x, labels, label_smoothing=2)
    refused(name, ValueError, "ignore_index=0 is for integer labels", x, soft, ignore_index=0)
    refused(name, ValueError, r"weight must have shape", x, soft, weight=weight[:2])
    refused("multi_margin_loss", ValueError, "p must be 1 or 2, got 3", x, labels, p=3)
    refused("multi_margin_loss", ValueError, "input must have 2 axes", x[0], labels[:1])
    for label in (-1, -100):  # no label is ignored
        wrong = np.full(len(x), label)
        refused("multi_margin_loss", ValueError, f"labels in 0 … 2, got {label}", x, wrong)


def test_bad_weights_of_entries():
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        for wrong in (weight[:2], np.ones((2, 4, 3))):
            refused(
                name, ValueError, r"weight must broadcast to \(4, 3\)", soft, soft, weight=wrong
            )
        refused(name, TypeError, "weight must be a NumPy array", soft, soft, weight=[1.0])
        half = weight.astype(np.float32)
        refused(name, TypeError, "weight is float32", soft, soft, weight=half)
    refused(name, ValueError, "pos_weight must broadcast", x, soft, pos_weight=weight[:2])


def test_bad_margins_and_widths():
    refused("huber_loss", ValueError, "delta must be above 0", x, x2, delta=0)
    refused("smooth_l1_loss", ValueError, "beta must be at least 0", x, x2, beta=-1)
    refused("smooth_l1_loss", ValueError, "must have the same shape", x, x2[:, :1])
    refused("gaussian_kl", TypeError, "log_variance must be a NumPy array", x, [1.0])
    refused("gaussian_kl", ValueError, r"mean has \(4, 3\), log_variance has \(3,\)", x, x[0])
    refused("triplet_margin_loss", ValueError, "margin must be above 0", x, x2, x3, margin=0)
    refused("triplet_margin_loss", ValueError, "p must be at least 1", x, x2, x3, p=0.5)
    refused("triplet_margin_loss", ValueError, "p must be finite", x, x2, x3, p=math.inf)
    refused("triplet_margin_loss", ValueError, r"negative has \(3,\)", x, x2, x3[0])


@pytest.mark.parametrize(
    "name", ["margin_ranking_loss", "cosine_embedding_loss", "contrastive_loss"]
)
def test_bad_pairs(name):
    a, b = (x[:, 0], x2[:, 0]) if name == "margin_ranking_loss" else (x, x2)
    refused(name, ValueError, "target must hold 1 and -1, got 0", a, b, pairs * 0)
    refused(name, TypeError, "target must be a NumPy array of 1 and -1, got list", a, b, [1] * 4)
    refused(name, TypeError, "target must be a NumPy array of 1 and -1, got bool", a, b, pairs > 0)
    refused(name, ValueError, r"target must have shape \(4,\)", a, b, pairs[:2])
    refused(name, ValueError, "input1 and input2 must have the same shape", a, b[:2], pairs)
    refused(name, TypeError, "input2 is float32", a, b.astype(np.float32), pairs)
    refused(name, TypeError, "margin must be a number", a, b, pairs, margin="1")
    refused(name, ValueError, "reduction must be one of", a, b, pairs, reduction="average")
