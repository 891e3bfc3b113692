"""Visible checks of exercises/05_regularization.ipynb.

Built from solutions/05_regularization.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "Bias, variance, optimism (warm-up)", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q2": {"title": "Honest folds and how far to trust a number", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q3": {"title": "Ridge with an offset that is left alone", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q4": {"title": "The lasso by coordinate descent", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q5": {"title": "Decay, and when to stop", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q6": {"title": "Dropout, forward and backward, and its penalty", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q7": {"title": "Shift, mixup, CutMix", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q8": {"title": "Label smoothing and calibration", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q9": {"title": "One round of AdaBoost, and what averaging leaves", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q10": {"title": "Too good to be true (leakage clinic)", "visible": 3, "hidden": 1.5, "hidden_checks": 2},
    "q11": {"title": "A regression that regularizes itself (open challenge)", "visible": 2.5, "hidden": 2, "hidden_checks": 2},
}


import math


def near(actual, expected, rtol=1e-6, atol=1e-10):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


@test(
    "q1", 1, hint="average over the data sets (axis 0) first, then square, then average over points"
)
def two_parts(s):
    predictions, truth = rng(1).normal(size=(7, 5)) + 2.0, rng(2).normal(size=5)
    with unchanged(predictions=predictions, truth=truth):
        bias2, variance = several(s.bias_and_variance(predictions, truth), "bias_and_variance", 2)
    right = np.mean((predictions.mean(0) - truth) ** 2), np.mean(predictions.var(0))
    assert not near(bias2, np.mean((predictions - truth) ** 2)), (
        "that is the whole error: you squared before you averaged over the data sets"
    )
    assert not near(variance, np.mean(predictions.var(1))), (
        "you took the variance over the points; it is meant over the data sets"
    )
    assert near(bias2, right[0]), f"squared bias: got {bias2}, expected {right[0]:.6f}"
    assert near(variance, right[1]), f"variance: got {variance}, expected {right[1]:.6f}"


@test("q1", 1, hint="the variance σ²p/n is added on new data and subtracted in training")
def too_small_by(s):
    gap = given(s.optimism(6, 40, 0.5), "optimism")
    assert not near(gap, 0.5 * 6 / 40), (
        "σ²p/n is only half of it: the training error falls by as much"
    )
    assert near(gap, 0.15), f"6 parameters, 40 examples, variance 0.5: got {gap}, expected 0.15"


some_writers = np.array([7, 7, 3, 12, 3, 7, 5, 12, 1, 0, 5])


@test("q2", 1, hint="a dictionary from writer to number, filled in order of appearance")
def one_fold_a_writer(s):
    with unchanged(writers=some_writers):
        folds = array(given(s.writer_folds(some_writers, 3), "writer_folds"))
    same_shape(folds, some_writers, "the result")
    for writer in set(some_writers.tolist()):
        found = set(folds[some_writers == writer].tolist())
        assert len(found) == 1, f"writer {writer} is in the folds {sorted(found)}: a leak"
    assert not np.array_equal(folds, some_writers % 3), (
        "that is the writer's own number modulo k: folds would be as uneven as those numbers"
    )
    right = [0, 0, 1, 2, 1, 0, 0, 2, 1, 2, 0]
    assert folds.tolist() == right, f"got {folds.tolist()}, expected {right}"


@test("q2", 1, hint="the variance of a 0/1 variable is a(1 - a)")
def trust(s):
    error = given(s.standard_error(0.9, 400), "standard_error")
    assert not near(error, 0.09 / 400), "that is the variance: take the root"
    assert near(error, 0.015), f"0.9 on 400 examples: got {error}, expected 0.015"


def problem(seed, n, d):
    r = rng(seed)
    return r.normal(size=(n, d)) * r.uniform(0.5, 3, d) + 4.0, r.normal(size=n) + 30.0


@test("q3", 1, hint="centre X and y, solve, and put the means back into b")
def minimum(s):
    X, y = problem(31, 23, 4)
    with unchanged(X=X, y=y):
        w, b = several(s.ridge(X, y, 0.7), "ridge", 2)
    w, b = array(w), float(b)
    same_shape(w, np.zeros(4), "w")
    error = X @ w + b - y
    assert abs(error.mean()) < 1e-6, (
        f"at the minimum the residuals have mean 0, yours {error.mean():.3g}: the offset must not be penalised"
    )
    slope = X.T @ error / 23 + 0.7 * w
    wrong_n = X.T @ error + 0.7 * w
    assert np.abs(wrong_n).max() > 1e-6, (
        "you compared a *sum* of squares with λ: the loss has a mean, 1/2n"
    )
    assert np.abs(slope).max() < 1e-8, f"the gradient at your w is not 0 but {slope}"


@test("q3", 1, hint="the factors μ/(μ + λ), with the eigenvalues of the centred ZᵀZ/n")
def freedom(s):
    X, _ = problem(32, 17, 5)
    df = float(given(s.degrees_of_freedom(X, 0.4), "degrees_of_freedom"))
    Z = X - X.mean(0)
    mu = np.linalg.eigvalsh(Z.T @ Z / 17)
    root = np.linalg.svd(Z, compute_uv=False) / np.sqrt(17)
    assert not near(df, np.sum(root / (root + 0.4))), (
        "the eigenvalues are the *squared* singular values"
    )
    raw = np.linalg.eigvalsh(X.T @ X / 17)
    assert not near(df, np.sum(raw / (raw + 0.4))), (
        "you did not centre X: the offset is counted among the weights"
    )
    assert near(df, np.sum(mu / (mu + 0.4))), f"got {df}, expected {np.sum(mu / (mu + 0.4)):.6f}"


@test("q4", 0.5, hint="the sign of z, times what is left of |z|")
def threshold(s):
    z = np.array([-3.0, -0.4, 0.0, 0.7, 2.5])
    with unchanged(z=z):
        out = array(given(s.soft_threshold(z, 0.5), "soft_threshold"))
    assert not near(out, np.where(np.abs(z) > 0.5, z, 0)), (
        "that is the hard threshold: what stays must shrink by lam as well"
    )
    assert not near(out, np.maximum(z - 0.5, 0)), (
        "negative z vanish in yours: they shrink towards 0 from below"
    )
    assert near(out, [-2.5, 0, 0, 0.2, 2.0]), f"got {out}"


def lasso_loss(X, y, w, lam):
    return np.sum((X @ w - y) ** 2) / (2 * len(y)) + lam * np.sum(np.abs(w))


@test("q4", 1.5, hint="w_j = S(z) / c with c = X_jᵀX_j / n and z = X_jᵀ(residual without j) / n")
def one_pass(s):
    r = rng(41)
    X, y = r.normal(size=(19, 4)) * [0.5, 2.0, 1.0, 3.0] + 0.8, r.normal(size=19) * 3
    w = r.normal(size=4)
    with unchanged(X=X, y=y, w=w):
        out = array(given(s.sweep(X, y, w, 0.3), "sweep"))
    same_shape(out, w, "the result")
    right, old = w.copy(), w.copy()
    for j in range(4):
        c = X[:, j] @ X[:, j] / 19
        for vector, base in ((right, right), (old, w)):
            z = X[:, j] @ (y - X @ base + X[:, j] * base[j]) / 19
            vector[j] = np.sign(z) * max(abs(z) - 0.3, 0) / c
    assert not near(out, old), (
        "you used the old weights throughout: each update must see the ones before it"
    )
    assert near(out[0], right[0]), (
        f"first weight: got {out[0]:.5f}, expected {right[0]:.5f}: are the columns standardised in your formula?"
    )
    assert near(out, right), f"got {out}, expected {right}"


@test("q5", 1, hint="the gradient of λ|w|²/2 is λw; the rate multiplies both parts")
def decays(s):
    w, g = rng(51).normal(size=5), rng(52).normal(size=5)
    with unchanged(w=w, g=g):
        out = array(given(s.decay_step(w, g, 0.1, 0.3), "decay_step"))
    assert not near(out, w - 0.3 * w - 0.1 * g), "you forgot the learning rate on the decay"
    assert not near(out, (1 - 0.03) * (w - 0.1 * g)), (
        "the decay acts on the weights before the step, not on the gradient step too"
    )
    assert near(out, 0.97 * w - 0.1 * g), f"got {out}"


@test("q5", 1, hint="count the epochs since the best one; return the best one's number")
def patience(s):
    losses = [1.0, 0.8, 0.9, 0.7, 0.75, 0.74, 0.73, 0.2]
    run, best = several(s.stop_early(losses, 3), "stop_early", 2)
    assert best != 7, "you restored the last epoch, not the best one"
    assert run != 8, (
        "the loss at epoch 8 would have been lower, but nobody got there: stop after 3 epochs without a new best"
    )
    assert (run, best) == (7, 4), f"got {(run, best)}, expected (7, 4)"
    assert tuple(s.stop_early([0.5, 0.4, 0.3], 2)) == (3, 3), (
        "a loss that only falls runs to the end"
    )


@test("q6", 1, hint="drop where u < p, divide what is left by 1 - p")
def forward(s):
    h, u = rng(61).normal(size=(5, 7)), rng(62).random((5, 7))
    with unchanged(h=h, u=u):
        out = array(given(s.dropout(h, 0.3, u, True), "dropout"))
    same_shape(out, h, "the result")
    assert not near(out, h * (u >= 0.3)), (
        "what is left must be scaled up, or evaluation mode sees larger sums"
    )
    assert not near(out, h * (u >= 0.3) / 0.3), (
        "you divided by p; the share that is *kept* is 1 - p"
    )
    assert not near(out, h * (u < 0.3) / 0.7) and not near(out, h * (u < 0.3) / 0.3), (
        "you kept what should be dropped: p is the share that is dropped"
    )
    assert near(out, h * (u >= 0.3) / 0.7), "entries with u ≥ 0.3 must be h / 0.7, the others 0"
    still = array(given(s.dropout(h, 0.3, u, False), "dropout"))
    assert near(still, h), "evaluation mode: nothing is dropped and nothing scaled"


@test("q6", 1, hint="the same mask and the same scale as forward")
def backward(s):
    dy, u = rng(63).normal(size=(3, 4)), rng(64).random((3, 4))
    out = array(given(s.dropout_backward(dy, 0.6, u), "dropout_backward"))
    assert not near(out, dy * (u >= 0.6)), "the scale 1/(1 - p) belongs into the gradient too"
    assert not near(out, dy), "dropped units get no gradient"
    assert near(out, dy * (u >= 0.6) / 0.4), "got other values than dy · mask / (1 - p)"


def some_images(seed, n=4, h=5, w=6):
    r = rng(seed)
    return r.random((n, h, w)), np.eye(3)[r.integers(0, 3, n)], r.permutation(n)


@test("q7", 1, hint="fill an array of zeros with the part that stays in the picture")
def moved(s):
    x, _, _ = some_images(71)
    for down, right in ((1, 2), (-2, 0), (0, -3), (-1, 1)):
        with unchanged(images=x):
            out = array(given(s.shift(x, down, right), "shift"))
        same_shape(out, x, "the result")
        rolled = np.roll(x, (down, right), (1, 2))
        assert not near(out, rolled), (
            "what leaves on one side comes in on the other (np.roll): zeros must come in"
        )
        wide = np.pad(x, ((0, 0), (5, 5), (6, 6)))
        expected = wide[:, 5 - down : 10 - down, 6 - right : 12 - right]
        opposite = wide[:, 5 + down : 10 + down, 6 + right : 12 + right]
        assert not near(out, opposite), f"shift({down}, {right}) goes the wrong way"
        assert near(out, expected), f"shift({down}, {right}): other pixels than expected"


@test("q7", 1, hint="the same share for images and targets")
def blended(s):
    x, q, partner = some_images(72)
    with unchanged(x=x, q=q, partner=partner):
        a, b = several(s.mixup(x, q, partner, 0.8), "mixup", 2)
    assert near(array(a), 0.8 * x + 0.2 * x[partner]), (
        "images: lam of the image itself, 1 - lam of the partner"
    )
    assert not near(array(b), 0.2 * q + 0.8 * q[partner]), (
        "the targets are mixed the other way round than the images"
    )
    assert not near(array(b), q), "the targets must be mixed as well"
    assert near(array(b), 0.8 * q + 0.2 * q[partner]), (
        "targets: lam of its own, 1 - lam of the partner's"
    )


def by_definition(z, y, eps):
    n, k = z.shape
    q = np.full((n, k), eps / k)
    q[np.arange(n), y] += 1 - eps
    top = z.max(1, keepdims=True)
    return q, z - top - np.log(np.exp(z - top).sum(1, keepdims=True))


@test(
    "q8",
    1,
    hint="q = (1 - ε) one-hot + ε/k for every class; log-softmax with the largest logit subtracted",
)
def loss(s):
    z, y = rng(81).normal(size=(5, 4)) * 2, rng(82).integers(0, 4, 5)
    with unchanged(z=z, y=y):
        value = float(given(s.smoothed_loss(z, y, 0.2), "smoothed_loss"))
    q, log_p = by_definition(z, y, 0.2)
    other = np.where(np.eye(4)[y] > 0, 0.8, 0.2 / 3)
    assert not near(value, -np.sum(other * log_p) / 5), (
        "ε is spread over *all* k classes, the right one included: ε/k each"
    )
    assert not near(value, -np.sum(q * log_p)), "the loss is a mean over the examples"
    assert near(value, -np.sum(q * log_p) / 5), (
        f"got {value}, expected {-np.sum(q * log_p) / 5:.6f}"
    )


@test("q8", 1, hint="softmax minus targets, divided by the number of examples")
def gradient(s):
    z, y = rng(83).normal(size=(3, 5)), np.array([4, 0, 2])
    g = array(given(s.smoothed_gradient(z, y, 0.1), "smoothed_gradient"))
    same_shape(g, z, "the gradient")
    q, log_p = by_definition(z, y, 0.1)
    right = (np.exp(log_p) - q) / 3
    assert not near(g, right * 3), "you forgot to divide by n: the loss is a mean"
    assert not near(g, (np.exp(log_p) - np.eye(5)[y]) / 3), "that is the gradient without smoothing"
    assert near(g, right), "the gradient differs from (softmax - q) / n"


@test("q8", 1, hint="weight each bin by its number of examples")
def calibration(s):
    confidence = np.array([0.95, 0.92, 0.91, 0.99, 0.55, 0.6, 0.31])
    right = np.array([True, True, False, True, True, True, False])
    value = float(given(s.calibration_error(confidence, right, 10), "calibration_error"))
    gaps = [abs(0.75 - 0.9425), abs(1.0 - 0.575), 0.31]
    assert not near(value, np.mean(gaps)), (
        "every bin counts the same in yours: weight it by its number of examples"
    )
    assert not near(value, abs(right.mean() - confidence.mean())), (
        "that is one gap for all: too sure here and too modest there cancel"
    )
    expected = (4 * gaps[0] + 2 * gaps[1] + gaps[2]) / 7
    assert near(value, expected), f"got {value}, expected {expected:.6f}"


def round_data(seed, n=9):
    r = rng(seed)
    u = r.random(n)
    y = np.where(r.random(n) < 0.5, 1.0, -1.0)
    h = y.copy()
    h[[1, 4]] *= -1
    return u / u.sum(), y, h


@test("q9", 1, hint="the error is the *weight* of the wrong examples; half the logarithm")
def vote(s):
    u, y, h = round_data(91)
    with unchanged(u=u, y=y, h=h):
        vote, _ = several(s.boost_round(u, y, h), "boost_round", 2)
    error = u[1] + u[4]
    right = 0.5 * math.log((1 - error) / error)
    assert not near(float(vote), 2 * right), "the vote is *half* the logarithm"
    assert not near(float(vote), 0.5 * math.log(7 / 2)), (
        "you counted the wrong examples; add up their weights"
    )
    assert not near(float(vote), -right), "a good stump must get a positive vote: (1 - ε)/ε"
    assert near(float(vote), right), f"got {vote}, expected {right:.6f}"


@test("q9", 1, hint="multiply by exp(-vote y h), then divide by the sum")
def weights(s):
    u, y, h = round_data(92)
    _, new = several(s.boost_round(u, y, h), "boost_round", 2)
    new = array(new)
    same_shape(new, u, "the new weights")
    assert near(new.sum(), 1.0), f"the weights must sum to 1, yours to {new.sum():.4f}"
    assert new[1] / u[1] > new[0] / u[0], "wrong examples must gain weight, right ones lose it"
    assert near(new[[1, 4]].sum(), 0.5), (
        f"the wrong ones have half the weight after the round, in yours {new[[1, 4]].sum():.4f}"
    )


WORDS = {
    "healthy",
    "duplicates",
    "selection",
    "noisy_labels",
    "too_strong",
    "dropout_on",
    "other_source",
    "rate_too_high",
}


def word(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in WORDS, f"{answer[run]!r} is not one of {', '.join(sorted(WORDS))}"
    return answer[run]


@test("q10", 1, hint="how near are the validation examples to the training examples?")
def run_b(s):
    assert word(s, "B") != "healthy", (
        "B: a validation loss of almost nothing, a fraction of the fresh one: too good"
    )
    assert word(s, "B") != "selection", "B: look at the distance in the title: 0.12"
    assert word(s, "B") == "duplicates", (
        "B: validation and training loss are the same all the way down; why?"
    )


@test("q10", 0.5, hint="the same data, measured twice")
def run_d(s):
    assert word(s, "D") != "rate_too_high", (
        "D: the training loss falls well; it is the *measurement* that is restless"
    )
    assert word(s, "D") == "dropout_on", "D: the same validation data give two different losses"


@test("q10", 0.5, hint="one of them has nothing wrong")
def run_f_and_c(s):
    assert word(s, "F") == "healthy", "F: validation and fresh loss agree and fall together"
    assert word(s, "C") != "rate_too_high", (
        "C: nothing jumps; all losses agree, near that of guessing"
    )
    assert word(s, "C") == "too_strong", "C: something holds the weights near zero"


@test("q10", 1, hint="np.argmin of column 1, then column 2 minus column 1 there")
def gap(s):
    curves = rng(101).random((17, 5))
    with unchanged(curves=curves):
        value = float(given(s.too_good(curves), "too_good"))
    best = int(curves[:, 1].argmin())
    assert not near(value, curves[:, 2].min() - curves[:, 1].min()), (
        "the fresh loss at *the reported epoch* counts, not its own lowest value: nobody could choose by it"
    )
    assert not near(value, curves[-1, 2] - curves[-1, 1]), (
        "the best epoch is reported, not the last"
    )
    assert near(value, curves[best, 2] - curves[best, 1]), f"got {value:.4f}"


def draw(seed, n, d, active, noise):
    r = rng(seed)
    w = np.zeros(d)
    w[r.permutation(d)[:active]] = r.normal(size=active) / np.sqrt(max(active, 1))
    scale = 10.0 ** r.uniform(-1, 1, d)
    X = r.normal(size=(n, d))
    return X * scale, X @ w + noise * r.normal(size=n), w / scale, scale


def shares(s, what, n, d, active, noise, target):
    results = []
    for seed in (1, 2, 3):
        X, y, w, scale = draw(1100 + seed, n, d, active, noise)
        with unchanged(X=X, y=y):
            found = array(given(s.fit(X, y), "fit"))
        same_shape(found, w, "the result")
        assert np.isfinite(found).all(), f"{what}: the weights are not finite"
        base = np.sum((w * scale) ** 2) if active else noise**2
        results.append((np.sum(((found - w) * scale) ** 2) + (0 if active else noise**2)) / base)
    mean = np.mean(results)
    assert mean <= target, (
        f"{what}: the error is {mean:.3g} of that of answering 0, the target is {target}"
    )


@test(
    "q11",
    1,
    hint="a penalty with exact zeros, its strength by cross-validation, columns on one scale",
)
def sparse(s):
    shares(s, "sparse", 60, 100, 5, 0.3, 0.15)


@test(
    "q11", 1, hint="all weights count a little and n = d: ridge, its strength by cross-validation"
)
def dense(s):
    shares(s, "dense", 100, 100, 100, 0.7, 0.8)


@test("q11", 0.5, hint="few features, many examples: hardly any penalty")
def easy(s):
    shares(s, "easy", 200, 5, 5, 0.1, 0.02)
