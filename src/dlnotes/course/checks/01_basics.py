"""Visible checks of exercises/01_basics.ipynb.

Built from solutions/01_basics.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "Three ways to measure an error (warm-up)", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q2": {"title": "Losses of the margin", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q3": {"title": "Entropy, cross-entropy, KL divergence, likelihood", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q4": {"title": "Linear regression in closed form, with basis functions", "visible": 2, "hidden": 1.5, "hidden_checks": 2},
    "q5": {"title": "One trainer, any criterion", "visible": 3, "hidden": 1.5, "hidden_checks": 2},
    "q6": {"title": "Softmax regression (derivation)", "visible": 3, "hidden": 3, "hidden_checks": 3},
    "q7": {"title": "Mini-batches", "visible": 1.5, "hidden": 1.5, "hidden_checks": 2},
    "q8": {"title": "How much model do the data carry? (experiment, open challenge)", "visible": 1, "hidden": 1.5, "hidden_checks": 2},
    "q9": {"title": "What is wrong with these training runs? (bug clinic)", "visible": 2, "hidden": 0.5, "hidden_checks": 1},
}


def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


def finite(value, name):
    assert np.all(np.isfinite(value)), f"{name} is not finite: {value}"


@test("q1", 0.5, hint="three numbers, in the order MSE, RMSE, MAE")
def returns_three_numbers(s):
    answer = given(
        s.regression_errors(np.array([1.0, -2.0]), np.array([0.5, 3.0])), "regression_errors"
    )
    assert isinstance(answer, tuple | list) and len(answer) == 3, (
        f"expected three values, got {answer!r}"
    )


@test("q1", 0.5, hint="square the residuals, then average")
def mean_squared_error(s):
    a, b = rng(1).normal(size=(2, 7))
    mse = s.regression_errors(a, b)[0]
    assert not near(mse, np.sum((a - b) ** 2)), (
        "MSE is n times too large: you summed; take the mean"
    )
    assert near(mse, np.mean((a - b) ** 2)), f"MSE of 7 values: got {mse}"


@test("q1", 0.5, hint="RMSE is the square root of MSE")
def root_mean_squared_error(s):
    a, b = 5 * rng(2).normal(size=(2, 9))
    rmse = s.regression_errors(a, b)[1]
    assert not near(rmse, np.mean((a - b) ** 2)), "RMSE equals MSE: the root is missing"
    assert not near(rmse, np.mean(np.sqrt((a - b) ** 2))), (
        "RMSE equals MAE: take the root of the mean, not the mean of the roots"
    )
    assert near(rmse, np.sqrt(np.mean((a - b) ** 2))), f"got {rmse}"


@test("q1", 0.5, hint="the absolute value comes before the mean")
def mean_absolute_error(s):
    a, b = rng(3).normal(size=(2, 8))
    mae = s.regression_errors(a, b)[2]
    assert not near(mae, np.abs(np.mean(a - b))) and not near(mae, np.mean(a - b)), (
        "MAE: errors of opposite sign cancelled; take the absolute value of each one first"
    )
    assert near(mae, np.mean(np.abs(a - b))), f"got {mae}"


@test("q2", 0.5, hint="wrong or undecided means m <= 0")
def zero_one(s):
    m = np.array([-2.0, -1e-9, 0.0, 1e-9, 3.0])
    loss = given(s.margin_losses(m), "margin_losses")["zero_one"]
    assert loss[2] == 1, "a margin of exactly 0 counts as wrong: its zero_one loss is 1"
    assert near(np.asarray(loss, dtype=float), [1.0, 1.0, 1.0, 0.0, 0.0]), f"got {loss}"


@test("q2", 0.5, hint="the hinge loss is never negative, and 0 from m = 1 on")
def hinge(s):
    m = 3 * rng(1).normal(size=13)
    loss = s.margin_losses(m)["hinge"]
    assert np.min(loss) >= 0, "hinge is negative for m > 1: the maximum with 0 is missing"
    assert not near(loss, np.maximum(0, -m)), "hinge starts at m = 1, not at m = 0"
    assert near(loss, np.maximum(0, 1 - m)), f"got {loss} for {m}"


@test("q2", 0.5, hint="the loss must fall as the margin grows")
def logistic(s):
    m = rng(2).normal(size=(3, 5))
    loss = s.margin_losses(m)["logistic"]
    assert not near(loss, np.log1p(np.exp(m))), "logistic grows with the margin: the sign is wrong"
    assert near(loss, np.log1p(np.exp(-m))), f"got {loss} for {m}"


@test("q2", 0.5, hint="(1 - m) squared")
def squared(s):
    m = rng(3).normal(size=6)
    assert near(s.margin_losses(m)["squared"], (1 - m) ** 2)


def distributions(seed, k):
    r = rng(seed)
    return r.dirichlet(np.ones(k)), r.dirichlet(np.ones(k))


@test("q3", 0.5, hint="natural logarithm: the entropy of k equal classes is ln k")
def entropy(s):
    h = given(s.entropy_parts(np.full(5, 0.2), np.full(5, 0.2)), "entropy_parts")[0]
    assert not near(h, np.log2(5)), "the entropy is in bits: use the natural logarithm"
    assert not near(h, -np.log(5)), "the entropy is negative: the minus sign is missing"
    assert near(h, np.log(5)), f"entropy of five equal classes: got {h}, not ln 5"


@test("q3", 0.5, hint="H(p, q) = - sum p ln q")
def cross_entropy(s):
    p, q = distributions(1, 6)
    h = s.entropy_parts(p, q)[1]
    assert not near(h, -np.sum(q * np.log(p))), "the cross-entropy has p and q exchanged"
    assert near(h, -np.sum(p * np.log(q))), f"got {h}"


@test("q3", 0.5, hint="KL(p || q) = sum p ln(p / q): the first argument weights the logarithm")
def kl_divergence(s):
    p, q = distributions(2, 4)
    kl = s.entropy_parts(p, q)[2]
    assert not near(kl, np.sum(q * np.log(q / p))), "this is KL(q || p): the order matters"
    assert not near(kl, np.sum(p * np.log(q / p))), (
        "the KL divergence is negative: turn the ratio over"
    )
    assert near(kl, np.sum(p * np.log(p / q))), f"got {kl}"


@test("q3", 0.5, hint="a product of n probabilities becomes a sum of n logarithms; divide by n")
def likelihood_is_minus_cross_entropy(s):
    counts, (_, q) = np.array([3, 1, 7, 2, 4]), distributions(3, 5)
    value = given(s.mean_log_likelihood(counts, q), "mean_log_likelihood")
    assert not near(value, np.sum(counts * np.log(q))), (
        "this is the sum: divide by the number of draws"
    )
    p = counts / counts.sum()
    assert near(value, -s.entropy_parts(p, q)[1]), (
        "it must equal minus the cross-entropy of counts/n and q"
    )
    assert near(value, np.sum(p * np.log(q)))


def mse_of(answer, features, target):
    weight, bias = answer
    assert np.shape(weight) == (features.shape[1],), (
        f"weight has shape {np.shape(weight)}, not ({features.shape[1]},)"
    )
    assert np.ndim(bias) == 0, f"bias must be a number, it has shape {np.shape(bias)}"
    return np.mean((features @ weight + bias - target) ** 2)


@test("q4", 1, hint="append a column of ones, so that the bias is one more weight")
def recovers_an_exact_line(s):
    x = rng(1).normal(size=(11, 3))
    y = x @ np.array([2.0, -1.0, 0.5]) + 4.0
    weight, bias = given(s.fit_least_squares(x, y), "fit_least_squares")
    assert abs(bias) > 1e-9, "the bias is 0, although the data are shifted by 4: fit it too"
    assert near(weight, [2.0, -1.0, 0.5]), f"weight: got {weight}"
    assert near(bias, 4.0), f"bias: got {bias}, expected 4"


@test("q4", 0.5, hint="x has shape (n,): make it (n, 1) and raise it to the powers 1 … degree")
def powers(s):
    x = np.array([-2.0, 0.5, 3.0])
    f = given(s.polynomial_features(x, 3), "polynomial_features")
    assert np.shape(f) != (3, 4), "there are degree + 1 columns: leave out the column of ones"
    assert near(f, np.column_stack([x, x**2, x**3])), f"got {f}"


@test("q4", 0.5, hint="lstsq minimises the mean squared error of noisy data as well")
def reaches_the_minimum(s):
    x = s.polynomial_features(rng(2).uniform(-1, 1, size=30), 4)
    y = rng(3).normal(size=30)
    best = np.linalg.lstsq(np.column_stack([x, np.ones(30)]), y, rcond=None)[0]
    expected = np.mean((np.column_stack([x, np.ones(30)]) @ best - y) ** 2)
    assert near(mse_of(s.fit_least_squares(x, y), x, y), expected, rtol=1e-6)


def reference_descent(x, y, gradient, lr, steps):
    w, b = np.zeros(x.shape[1]), 0.0
    for _ in range(steps):
        slope = gradient(x @ w + b, y)
        w, b = w - lr * x.T @ slope / len(y), b - lr * slope.mean()
    return w, b


def squared(prediction, target):
    return 2 * (prediction - target)


@test("q5", 0.5, hint="d/dr r² = 2 r with r = prediction - target")
def squared_criterion(s):
    a, b = rng(1).normal(size=(2, 7))
    g = given(s.squared_gradient(a, b), "squared_gradient")
    assert np.shape(g) == (7,), f"one derivative a sample: shape {np.shape(g)}, not (7,)"
    assert not near(g, a - b), "squared_gradient: the factor 2 is missing"
    assert not near(g, 2 * (b - a)), "squared_gradient has the wrong sign: prediction minus target"
    assert near(g, 2 * (a - b)), f"got {g}"


@test("q5", 0.5, hint="+1 above the target, -1 below it, 0 on it")
def absolute_criterion(s):
    g = s.absolute_gradient(np.array([3.0, -1.0, 2.0]), np.array([1.0, 4.0, 2.0]))
    assert near(np.asarray(g, dtype=float), [1.0, -1.0, 0.0]), f"got {g}"


@test("q5", 1, hint="go against the gradient: w - lr * dw")
def one_step(s):
    x, y = rng(2).normal(size=(9, 3)), rng(3).normal(size=9)
    w, b = given(s.gradient_descent(x, y, squared, 0.1, 1), "gradient_descent")
    rw, rb = reference_descent(x, y, squared, 0.1, 1)
    assert not near(w, -rw), (
        "after one step w is exactly minus the right one: go *against* the gradient"
    )
    assert not near(w, 9 * rw), (
        "the step is n times too long: average the gradient over the samples"
    )
    assert near(w, rw), f"w after one step: got {w}, expected {rw}"
    assert near(b, rb), f"b after one step: got {b}, expected {rb}"


@test("q5", 1, hint="compute dw and db first; only then change w and b")
def several_steps(s):
    x, y = rng(4).normal(size=(6, 2)) + 1.0, rng(5).normal(size=6)
    rw, rb = reference_descent(x, y, squared, 0.1, 5)
    w, b = s.gradient_descent(x, y, squared, 0.1, 5)
    assert near(w, rw) and near(b, rb), (
        "one step is right but five are not: are both gradients taken at the same point?"
    )


def problem(seed, n, d, k):
    r = rng(seed)
    return r.normal(size=(k, d)), r.normal(size=k), r.normal(size=(n, d)), r.integers(0, k, size=n)


def reference_loss(weight, bias, x, y):
    z = x @ weight.T + bias
    z = z - z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]))


def reference_dz(weight, bias, x, y):
    z = x @ weight.T + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (p - np.eye(len(bias))[y]) / len(y)


@test("q6", 1, hint="mean over the batch of -log of the probability of the right class")
def loss(s):
    w, b, x, y = problem(1, 7, 4, 3)
    value = given(s.softmax_regression(w, b, x, y), "softmax_regression")[0]
    expected = reference_loss(w, b, x, y)
    assert not near(value, 7 * expected), "the loss is the sum over the batch: take the mean"
    assert near(value, expected), f"loss: got {value}, expected {expected}"


@test("q6", 1, hint="dW = δᵀ X with δ = (softmax(Z) - one-hot) / n")
def dweight(s):
    w, b, x, y = problem(2, 5, 4, 3)
    dw, expected = s.softmax_regression(w, b, x, y)[1], reference_dz(w, b, x, y).T @ x
    assert np.shape(dw) == (3, 4), f"dweight has shape {np.shape(dw)}, not that of weight, (3, 4)"
    assert not near(dw, 5 * expected), "dweight is n times too large: the loss is a mean"
    assert not near(dw, -expected), "dweight has the wrong sign: prediction minus label"
    assert near(dw, expected), f"got {dw}, expected {expected}"


@test("q6", 1, hint="a bias is used once for every sample: its gradients add up over the batch")
def dbias(s):
    w, b, x, y = problem(3, 6, 2, 6)
    db, dz = s.softmax_regression(w, b, x, y)[2], reference_dz(w, b, x, y)
    assert np.shape(db) == (6,), f"dbias has shape {np.shape(db)}, not that of bias, (6,)"
    assert not near(db, dz.sum(axis=1)), (
        "dbias: you summed over the wrong axis (classes, not samples)"
    )
    assert near(db, dz.sum(axis=0)), f"got {db}, expected {dz.sum(axis=0)}"


@test("q7", 1, hint="range(0, n, batch_size) gives the starts, the last one included")
def every_index_once(s):
    batches = given(s.minibatches(23, 5, rng(1)), "minibatches")
    assert sum(len(b) for b in batches) >= 23, "samples are lost: keep the smaller last batch"
    assert [len(b) for b in batches] == [5, 5, 5, 5, 3], f"sizes {[len(b) for b in batches]}"
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == 23, (
        "an index occurs twice: draw a permutation, not with replacement"
    )
    assert near(np.sort(seen), np.arange(23))


@test("q7", 0.5, hint="rng.permutation(n)")
def shuffled(s):
    seen = np.concatenate(s.minibatches(100, 10, rng(2)))
    assert not near(seen, np.arange(100)), "the indices are in order: shuffle them"


def curve(seed, n, noise, function):
    r = rng(seed)
    x = r.uniform(-1, 1, size=n)
    return x, function(x) + noise * r.normal(size=n)


def errors_by_degree(x, y, xv, yv, largest):
    def error(degree):
        p = np.arange(degree + 1)
        w = np.linalg.lstsq(x[:, None] ** p, y, rcond=None)[0]
        return np.mean((xv[:, None] ** p @ w - yv) ** 2)

    return [error(degree) for degree in range(1, largest + 1)]


@test("q8", 1, hint="fit on the training points, compare on the validation points")
def finds_a_cubic(s):
    cubic = lambda x: 4 * x**3 - 3 * x
    train, val = curve(1, 40, 0.05, cubic), curve(2, 200, 0.05, cubic)
    degree = given(s.choose_degree(*train, *val, 9), "choose_degree")
    expected = 1 + int(np.argmin(errors_by_degree(*train, *val, 9)))
    assert degree != 9 or expected == 9, (
        "it chose the largest degree: is it the *training* error that you minimise?"
    )
    assert degree != expected - 1, "one too low: index 0 of the errors belongs to degree 1"
    assert degree == expected, f"got degree {degree}, expected {expected}"


WORDS = {"slow", "healthy", "underfitting", "overfitting", "diverging"}


def word(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in WORDS, f"{answer[run]!r} is not one of {', '.join(sorted(WORDS))}"
    return answer[run]


@test("q9", 0.5, hint="look at where the curves stand after 200 steps, and whether they still move")
def run_a(s):
    assert word(s, "A") != "underfitting", (
        "A: underfitting curves have levelled off; these still fall"
    )
    assert word(s, "A") == "slow", "A: compare its last value with that of run B"


@test("q9", 0.5, hint="is the validation loss far from the training loss? do they rise?")
def run_b(s):
    assert word(s, "B") != "overfitting", (
        "B: a small gap is normal; the validation loss does not rise"
    )
    assert word(s, "B") == "healthy", "B: what would you want to see instead?"


@test("q9", 0.5, hint="compare the level with ln 2 = 0.69, the loss of a coin toss")
def run_c(s):
    assert word(s, "C") != "slow", "C: it has stopped falling: more steps would not help"
    assert word(s, "C") == "underfitting", "C: both losses are high and level"


@test("q9", 0.5, hint="the two curves part")
def run_d(s):
    assert word(s, "D") == "overfitting", (
        "D: the training loss falls to 0 while the validation loss rises"
    )
