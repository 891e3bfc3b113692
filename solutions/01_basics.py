# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 1 · Machine-learning basics
#
# Nine questions on [chapter 1](../notebooks/01_basics.ipynb), from a warm-up to an open
# challenge. Write your code where a cell says `raise NotImplementedError`, run the cell, then
# run the check below it: it says at once what holds, what does not, and gives a hint. A teacher's
# grading adds hidden checks on other inputs (odd sizes, a single sample, huge values), so
# read the task closely and make your functions right for every input that it allows.
#
# Use NumPy only. No function may change the arrays that it is given.

# %%
# Set-up: import dlnotes, and install it first where it is missing (Colab).
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("dlnotes") is None:
    source = "dlnotes @ git+https://github.com/dlnotes/dlnotes"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import numpy as np

from dlnotes.course import Grader

grader = Grader("01_basics")


# %% tags=["test"]
def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


def finite(value, name):
    assert np.all(np.isfinite(value)), f"{name} is not finite: {value}"


# %% [markdown] tags=["q1", "outcome-2"]
# ## Question 1 · Three ways to measure an error (warm-up)
#
# Write `regression_errors(prediction, target)`, which returns the tuple `(mse, rmse, mae)`: mean
# squared error, root mean squared error and mean absolute error of two arrays of shape `(n,)`.


# %% tags=["answer", "q1"]
def regression_errors(prediction, target):
    """Return (MSE, RMSE, MAE) of two arrays of shape (n,)."""
    # BEGIN SOLUTION
    residual = prediction - target
    mse = np.mean(residual**2)
    return mse, np.sqrt(mse), np.mean(np.abs(residual))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# **Why.** All three start from the residual $r = \hat y - y$. The root brings the squared error
# back to the unit of the target. The absolute value must be taken *before* the mean: otherwise
# errors of opposite sign cancel, and a model that is wrong by ±10 looks perfect.


# %% tags=["test"]
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


@test("q1", 1, hidden=True, hint="n may be 1, and values may be large")
def one_sample_and_large_values(s):
    assert near(s.regression_errors(np.array([3.0]), np.array([-1.0])), (16.0, 4.0, 4.0))
    a, b = 1e6 * rng(4).normal(size=(2, 101))
    r = a - b
    assert near(s.regression_errors(a, b), (np.mean(r**2), np.sqrt(np.mean(r**2)), np.mean(abs(r))))


# %% tags=["wrong", "q1"]
# expect: the root is missing
def regression_errors(prediction, target):
    residual = prediction - target
    return np.mean(residual**2), np.mean(residual**2), np.mean(np.abs(residual))


# %% tags=["wrong", "q1"]
# expect: errors of opposite sign cancelled
def regression_errors(prediction, target):
    mse = np.mean((prediction - target) ** 2)
    return mse, np.sqrt(mse), np.abs(np.mean(prediction - target))


# %% tags=["wrong", "q1"]
# expect: you summed; take the mean
def regression_errors(prediction, target):
    residual = prediction - target
    mse = np.sum(residual**2)
    return mse, np.sqrt(mse), np.sum(np.abs(residual))


# %% tags=["wrong", "q1"]
# expect: take the root of the mean, not the mean of the roots
def regression_errors(prediction, target):
    residual = prediction - target
    return np.mean(residual**2), np.mean(np.sqrt(residual**2)), np.mean(np.abs(residual))


# %% [markdown] tags=["q2", "outcome-2"]
# ## Question 2 · Losses of the margin
#
# A binary classifier gives a score $f(\mathbf x)$, its label is $y\in\{-1,+1\}$, and the *margin*
# is $m = y f(\mathbf x)$. Write `margin_losses(margin)`, which takes an array of any shape and
# returns a dictionary with four arrays of the same shape:
#
# - `"zero_one"`: 1 where the decision is wrong, else 0; a margin of exactly 0 counts as wrong;
# - `"hinge"`: $\max(0, 1 - m)$;
# - `"logistic"`: $\ln(1 + e^{-m})$, finite for every margin from −10 000 to 10 000;
# - `"squared"`: the squared loss $(y - f)^2$ written in the margin, $(1 - m)^2$.


# %% tags=["answer", "q2"]
def margin_losses(margin):
    """Return the losses "zero_one", "hinge", "logistic", "squared", each of margin's shape."""
    # BEGIN SOLUTION
    return {
        "zero_one": np.where(margin > 0, 0.0, 1.0),
        "hinge": np.maximum(0.0, 1.0 - margin),
        "logistic": np.logaddexp(0.0, -margin),
        "squared": (1.0 - margin) ** 2,
    }
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** $y^2 = 1$ gives $(y-f)^2 = y^2(1 - f/y)^2 = (1-m)^2$. For the logistic loss,
# $e^{-m}$ overflows float64 below $m \approx -709$, although the loss itself is only about $-m$;
# `np.logaddexp(0, -m)` computes $\ln(e^0 + e^{-m})$ without that detour. On the far right, the
# squared loss grows again: it punishes points for being right by too much.


# %% tags=["test"]
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


@test("q2", 1, hidden=True, hint="np.logaddexp computes ln(e^a + e^b) without overflow")
def huge_margins(s):
    m = np.array([-1e4, -800.0, 800.0, 1e4])
    with np.errstate(all="ignore"):
        loss = s.margin_losses(m)["logistic"]
    assert np.all(np.isfinite(loss)), "the logistic loss overflows for large negative margins"
    assert near(loss, [1e4, 800.0, 0.0, 0.0]), f"got {loss}"


@test("q2", 0.5, hidden=True, hint="any shape: also (1,) and (2, 1, 3)")
def shapes(s):
    for shape in [(1,), (2, 1, 3)]:
        for name, loss in s.margin_losses(rng(4).normal(size=shape)).items():
            assert np.shape(loss) == shape, f"{name} has shape {np.shape(loss)}, not {shape}"


# %% tags=["wrong", "q2"]
# expect: a margin of exactly 0 counts as wrong
def margin_losses(margin):
    return {
        "zero_one": (margin < 0).astype(float),
        "hinge": np.maximum(0.0, 1.0 - margin),
        "logistic": np.logaddexp(0.0, -margin),
        "squared": (1.0 - margin) ** 2,
    }


# %% tags=["wrong", "q2"]
# expect: the maximum with 0 is missing
def margin_losses(margin):
    return {
        "zero_one": (margin <= 0).astype(float),
        "hinge": 1.0 - margin,
        "logistic": np.logaddexp(0.0, -margin),
        "squared": (1.0 - margin) ** 2,
    }


# %% tags=["wrong", "q2"]
# expect: hinge starts at m = 1
def margin_losses(margin):
    return {
        "zero_one": (margin <= 0).astype(float),
        "hinge": np.maximum(0.0, -margin),
        "logistic": np.logaddexp(0.0, -margin),
        "squared": (1.0 - margin) ** 2,
    }


# %% tags=["wrong", "q2"]
# expect: the logistic loss overflows
def margin_losses(margin):
    return {
        "zero_one": (margin <= 0).astype(float),
        "hinge": np.maximum(0.0, 1.0 - margin),
        "logistic": np.log(1.0 + np.exp(-margin)),
        "squared": (1.0 - margin) ** 2,
    }


# %% [markdown] tags=["q3", "outcome-3"]
# ## Question 3 · Entropy, cross-entropy, KL divergence, likelihood
#
# Let $p$ and $q$ be distributions over $k$ classes, arrays of shape `(k,)`, in nats (natural
# logarithm). Entries of $p$ may be 0 (then $0 \ln 0 = 0$); entries of $q$ are positive. Write
#
# - `entropy_parts(p, q)`, which returns the tuple $(H(p),\; H(p,q),\; \mathrm{KL}(p\,\|\,q))$;
# - `mean_log_likelihood(counts, q)`: a sample of $n$ draws gave class $c$ `counts[c]` times; return
#   the *mean* log-likelihood $\tfrac1n \ln \prod_i q_{c_i}$ of the sample under $q$.
#
# The checks then hold your two functions against each other: with $\hat p = $ `counts / n`,
# the mean log-likelihood must be $-H(\hat p, q)$.


# %% tags=["answer", "q3"]
def entropy_parts(p, q):
    """Return (entropy of p, cross-entropy of p and q, KL divergence from p to q) in nats."""
    # BEGIN SOLUTION
    seen = p > 0
    entropy = -np.sum(p[seen] * np.log(p[seen]))
    cross_entropy = -np.sum(p * np.log(q))
    return entropy, cross_entropy, cross_entropy - entropy
    # END SOLUTION


def mean_log_likelihood(counts, q):
    """Return the mean log-likelihood of a sample with these class counts under q."""
    # BEGIN SOLUTION
    return np.sum(counts * np.log(q)) / np.sum(counts)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# **Why.** $\mathrm{KL}(p\|q) = \sum_c p_c \ln (p_c / q_c) = H(p,q) - H(p)$. Only $H(p,q)$
# depends on the model $q$, so minimising KL and minimising cross-entropy choose the same $q$. And
# $\tfrac1n\sum_i \ln q_{c_i} = \sum_c \hat p_c \ln q_c = -H(\hat p, q)$: minimising the loss
# *maximises* the likelihood.


# %% tags=["test"]
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


@test("q3", 1, hidden=True, hint="leave out the classes with p = 0: they add nothing")
def zero_probabilities(s):
    p, q = np.array([0.0, 0.25, 0.75, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    with np.errstate(all="ignore"):
        parts = s.entropy_parts(p, q)
    assert np.all(np.isfinite(parts)), "0 ln 0 counts as 0, but your result is not finite"
    h = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    ce = -(0.25 * np.log(0.2) + 0.75 * np.log(0.3))
    assert near(parts, (h, ce, ce - h)), f"got {parts}"


@test("q3", 0.5, hidden=True, hint="a class may never have been drawn")
def likelihood_of_many_draws(s):
    counts, (_, q) = np.array([0, 40_000, 60_000]), distributions(4, 3)
    assert near(s.mean_log_likelihood(counts, q), 0.4 * np.log(q[1]) + 0.6 * np.log(q[2])), (
        "100 000 draws: multiply no probabilities (they underflow), add logarithms"
    )


# %% tags=["wrong", "q3"]
# expect: 0 ln 0 counts as 0
def entropy_parts(p, q):
    entropy = -np.sum(p * np.log(p))
    cross_entropy = -np.sum(p * np.log(q))
    return entropy, cross_entropy, cross_entropy - entropy


def mean_log_likelihood(counts, q):
    return np.sum(counts * np.log(q)) / np.sum(counts)


# %% tags=["wrong", "q3"]
# expect: this is KL(q || p)
def entropy_parts(p, q):
    seen = p > 0
    entropy = -np.sum(p[seen] * np.log(p[seen]))
    return entropy, -np.sum(p * np.log(q)), np.sum(q * np.log(q / p))


def mean_log_likelihood(counts, q):
    return np.sum(counts * np.log(q)) / np.sum(counts)


# %% tags=["wrong", "q3"]
# expect: the entropy is in bits
def entropy_parts(p, q):
    seen = p > 0
    entropy = -np.sum(p[seen] * np.log2(p[seen]))
    cross_entropy = -np.sum(p * np.log2(q))
    return entropy, cross_entropy, cross_entropy - entropy


def mean_log_likelihood(counts, q):
    return np.sum(counts * np.log(q)) / np.sum(counts)


# %% tags=["wrong", "q3"]
# expect: add logarithms
def entropy_parts(p, q):
    seen = p > 0
    entropy = -np.sum(p[seen] * np.log(p[seen]))
    cross_entropy = -np.sum(p * np.log(q))
    return entropy, cross_entropy, cross_entropy - entropy


def mean_log_likelihood(counts, q):
    with np.errstate(all="ignore"):
        return np.log(np.prod(q**counts)) / np.sum(counts)


# %% [markdown] tags=["q4", "outcome-4"]
# ## Question 4 · Linear regression in closed form, with basis functions
#
# Write `fit_least_squares(features, target)`: `features` has shape `(n, d)`, `target` shape `(n,)`;
# return `(weight, bias)`, with `weight` of shape `(d,)` and `bias` a number, that minimise the mean
# squared error of `features @ weight + bias`. Where many solutions exist (more columns than rows,
# two equal columns), return any of them: it must still reach the minimum.
#
# Then write `polynomial_features(x, degree)`: for `x` of shape `(n,)`, the array of shape
# `(n, degree)` with the columns $x, x^2, \dots, x^{\text{degree}}$ (no column of ones: the bias
# has that part).


# %% tags=["answer", "q4"]
def fit_least_squares(features, target):
    """Return (weight, bias) that minimise the mean squared error; shapes (d,) and ()."""
    # BEGIN SOLUTION
    with_ones = np.column_stack([features, np.ones(len(features))])
    solution, *_ = np.linalg.lstsq(with_ones, target, rcond=None)
    return solution[:-1], solution[-1]
    # END SOLUTION


def polynomial_features(x, degree):
    """Return the columns x, x², …, x^degree, shape (n, degree)."""
    # BEGIN SOLUTION
    return x[:, np.newaxis] ** np.arange(1, degree + 1)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q4"]
# **Why.** A column of ones turns the bias into one more weight. The normal equations
# $\mathbf X^\top\mathbf X\mathbf w = \mathbf X^\top\mathbf y$ have a matrix that is singular when
# columns depend on each other, and whose condition number is the square of that of $\mathbf X$;
# `lstsq` works on $\mathbf X$ itself and returns the shortest of all solutions.


# %% tags=["test"]
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


@test("q4", 1, hidden=True, hint="np.linalg.lstsq needs no inverse, and works where none exists")
def dependent_columns(s):
    x = rng(4).normal(size=(12, 2))
    x = np.column_stack([x, x[:, 0], 2 * x[:, 1]])
    y = x @ np.array([1.0, 2.0, 0.0, 0.0]) - 3.0
    try:
        answer = s.fit_least_squares(x, y)
    except Exception as error:
        raise AssertionError(f"columns that depend on each other: {error}") from None
    error = mse_of(answer, x, y)
    assert error < 1e-12, f"columns that depend on each other: the error is {error:.2g}, not 0"


@test("q4", 0.5, hidden=True, hint="fewer rows than columns, a single row, degree 1")
def small_samples(s):
    x, y = rng(5).normal(size=(1, 4)), np.array([7.0])
    try:
        answer = s.fit_least_squares(x, y)
    except Exception as error:
        raise AssertionError(f"one row and four columns: {error}") from None
    assert mse_of(answer, x, y) < 1e-12
    assert np.shape(s.polynomial_features(np.array([2.0]), 1)) == (1, 1)


# %% tags=["wrong", "q4"]
# expect: the bias is 0
def fit_least_squares(features, target):
    return np.linalg.lstsq(features, target, rcond=None)[0], 0.0


def polynomial_features(x, degree):
    return x[:, np.newaxis] ** np.arange(1, degree + 1)


# %% tags=["wrong", "q4"]
# expect: columns that depend on each other
def fit_least_squares(features, target):
    with_ones = np.column_stack([features, np.ones(len(features))])
    solution = np.linalg.inv(with_ones.T @ with_ones) @ with_ones.T @ target
    return solution[:-1], solution[-1]


def polynomial_features(x, degree):
    return x[:, np.newaxis] ** np.arange(1, degree + 1)


# %% tags=["wrong", "q4"]
# expect: leave out the column of ones
def fit_least_squares(features, target):
    with_ones = np.column_stack([features, np.ones(len(features))])
    solution = np.linalg.lstsq(with_ones, target, rcond=None)[0]
    return solution[:-1], solution[-1]


def polynomial_features(x, degree):
    return x[:, np.newaxis] ** np.arange(degree + 1)


# %% [markdown] tags=["q5", "outcome-1", "outcome-4"]
# ## Question 5 · One trainer, any criterion
#
# Model, learning criterion and optimisation are three parts. Write the third one so that the second
# can be swapped: `gradient_descent(x, y, loss_gradient, lr, steps)` trains the model
# $\hat{\mathbf y} = \mathbf X\mathbf w + b$, starting from $\mathbf w = 0$, $b = 0$, and returns
# `(w, b)` after `steps` steps.
#
# - `x` has shape `(n, d)`, `y` shape `(n,)`;
# - `loss_gradient(prediction, target)` returns, for arrays of shape `(n,)`, the derivative of the
#   loss of *each sample* with respect to its prediction, shape `(n,)`;
# - the cost is the *mean* of the losses; in each step, compute the gradients with respect to
#   $\mathbf w$ and $b$ at the same point, then change both.
#
# Then write two criteria for it: `squared_gradient(prediction, target)` for the loss
# $(\hat y - y)^2$ and `absolute_gradient(prediction, target)` for $|\hat y - y|$ (0 at the kink).


# %% tags=["answer", "q5"]
def gradient_descent(x, y, loss_gradient, lr, steps):
    """Train a linear model by gradient descent on the mean loss; return (w, b)."""
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    # BEGIN SOLUTION
    for _ in range(steps):
        slope = loss_gradient(x @ w + b, y)
        dw, db = x.T @ slope / n, np.mean(slope)
        w, b = w - lr * dw, b - lr * db
    return w, b
    # END SOLUTION


def squared_gradient(prediction, target):
    """Return the derivative of (prediction - target)² by prediction, shape (n,)."""
    # BEGIN SOLUTION
    return 2.0 * (prediction - target)
    # END SOLUTION


def absolute_gradient(prediction, target):
    """Return the derivative of |prediction - target| by prediction, shape (n,), 0 at the kink."""
    # BEGIN SOLUTION
    return np.sign(prediction - target)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q5"]
# **Why.** By the chain rule $\partial J/\partial\mathbf w = \frac1n\sum_i \ell'_i\,\mathbf x_i$ and
# $\partial J/\partial b = \frac1n\sum_i \ell'_i$, whatever the loss. Both gradients belong
# to the same point $(\mathbf w, b)$: an update of $\mathbf w$ in between would make it another
# method. The squared gradient of an outlier grows with its distance, the absolute one is ±1
# whatever the distance: that is why the second fit ignores it.


# %% tags=["test"]
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


@test("q5", 1, hidden=True, hint="the loop must call the loss_gradient that it is given")
def the_criterion_is_swapped(s):
    x = np.linspace(-1, 1, 21)[:, np.newaxis]
    y = 2 * x[:, 0] + 1
    y[3] = 60.0
    w, b = s.gradient_descent(x, y, lambda p, t: np.sign(p - t), 0.05, 400)
    rw, rb = reference_descent(x, y, lambda p, t: np.sign(p - t), 0.05, 400)
    assert near(w, rw) and near(b, rb), (
        "with the absolute criterion the result is that of another one"
    )
    assert abs(w[0] - 2) < 0.2, "the outlier still pulls the line"


@test("q5", 0.5, hidden=True, hint="no step: the start; one sample and one feature are allowed")
def zero_steps_and_one_sample(s):
    w, b = s.gradient_descent(np.ones((4, 2)), np.ones(4), squared, 0.1, 0)
    assert near(w, [0.0, 0.0]) and b == 0
    x, y = np.array([[2.0]]), np.array([3.0])
    w, b = s.gradient_descent(x, y, squared, 0.05, 200)
    assert near(w * 2 + b, [3.0], rtol=1e-4)


# %% tags=["wrong", "q5"]
# expect: go *against* the gradient
def gradient_descent(x, y, loss_gradient, lr, steps):
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    for _ in range(steps):
        slope = loss_gradient(x @ w + b, y)
        w, b = w + lr * x.T @ slope / n, b + lr * np.mean(slope)
    return w, b


def squared_gradient(prediction, target):
    return 2.0 * (prediction - target)


def absolute_gradient(prediction, target):
    return np.sign(prediction - target)


# %% tags=["wrong", "q5"]
# expect: are both gradients taken at the same point
def gradient_descent(x, y, loss_gradient, lr, steps):
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    for _ in range(steps):
        b = (
            b - lr * np.mean(loss_gradient(x @ w + b, y))
            if _
            else -lr * np.mean(loss_gradient(x @ w, y))
        )
        w = w - lr * x.T @ loss_gradient(x @ w + (b if _ else 0.0), y) / n
    return w, b


def squared_gradient(prediction, target):
    return 2.0 * (prediction - target)


def absolute_gradient(prediction, target):
    return np.sign(prediction - target)


# %% tags=["wrong", "q5"]
# expect: the factor 2 is missing
def gradient_descent(x, y, loss_gradient, lr, steps):
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    for _ in range(steps):
        slope = loss_gradient(x @ w + b, y)
        w, b = w - lr * x.T @ slope / n, b - lr * np.mean(slope)
    return w, b


def squared_gradient(prediction, target):
    return prediction - target


def absolute_gradient(prediction, target):
    return np.sign(prediction - target)


# %% tags=["wrong", "q5"]
# expect: with the absolute criterion the result is that of another one
def gradient_descent(x, y, loss_gradient, lr, steps):
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    for _ in range(steps):
        slope = 2 * (x @ w + b - y)
        w, b = w - lr * x.T @ slope / n, b - lr * np.mean(slope)
    return w, b


def squared_gradient(prediction, target):
    return 2.0 * (prediction - target)


def absolute_gradient(prediction, target):
    return np.sign(prediction - target)


# %% tags=["wrong", "q5"]
# expect: average the gradient over the samples
def gradient_descent(x, y, loss_gradient, lr, steps):
    n, d = x.shape
    w, b = np.zeros(d), 0.0
    for _ in range(steps):
        slope = loss_gradient(x @ w + b, y)
        w, b = w - lr * x.T @ slope, b - lr * np.sum(slope)
    return w, b


def squared_gradient(prediction, target):
    return 2.0 * (prediction - target)


def absolute_gradient(prediction, target):
    return np.sign(prediction - target)


# %% [markdown] tags=["q6", "outcome-5"]
# ## Question 6 · Softmax regression (derivation)
#
# For a batch `x` of shape `(n, d)` with labels `y` of shape `(n,)`, integers from 0 to $k-1$,
# weights `weight` of shape `(k, d)` and `bias` of shape `(k,)`, the logits are
# $\mathbf Z = \mathbf X\mathbf W^\top + \mathbf b$ and the loss is the mean cross-entropy of
# $\operatorname{softmax}(\mathbf Z)$ (along the classes). Derive
# $\partial L/\partial\mathbf W$ and $\partial L/\partial\mathbf b$ on paper, then write
# `softmax_regression(weight, bias, x, y)`, which returns `(loss, dweight, dbias)`.
# A hidden check compares every entry with a numeric gradient; logits may be as large as ±10 000.


# %% tags=["answer", "q6"]
def softmax_regression(weight, bias, x, y):
    """Return (loss, dweight, dbias): mean cross-entropy and its gradients, shapes (), (k, d), (k,)."""
    n = len(y)
    # BEGIN SOLUTION
    z = x @ weight.T + bias
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))
    loss = -np.mean(log_p[np.arange(n), y])
    dz = np.exp(log_p)
    dz[np.arange(n), y] -= 1.0
    dz = dz / n
    return loss, dz.T @ x, dz.sum(axis=0)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** With $p = \operatorname{softmax}(z)$ and label $c$, the loss of one sample is
# $-z_c + \ln\sum_j e^{z_j}$, so $\partial\ell/\partial z_j = p_j - [j = c]$: prediction minus
# one-hot label. The mean divides by $n$. $z_{ij} = \sum_m x_{im}W_{jm} + b_j$ sends it on:
# $\partial L/\partial W_{jm} = \sum_i \delta_{ij}x_{im}$ and $\partial L/\partial b_j = \sum_i\delta_{ij}$,
# a sum over the *samples*. Subtracting each row's maximum changes no probability and avoids
# the overflow.


# %% tags=["test"]
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


@test("q6", 1.5, hidden=True, hint="compare your derivation with (L(w + h) - L(w - h)) / 2h")
def numeric_gradient(s):
    w, b, x, y = problem(4, 9, 3, 5)
    _, dw, db = s.softmax_regression(w, b, x, y)
    h = 1e-5
    for i in np.ndindex(w.shape):
        e = np.zeros_like(w)
        e[i] = h
        numeric = (reference_loss(w + e, b, x, y) - reference_loss(w - e, b, x, y)) / (2 * h)
        assert abs(dw[i] - numeric) < 1e-7, f"dweight{i}: {dw[i]:.6f}, numerically {numeric:.6f}"
    for j in range(len(b)):
        e = np.zeros_like(b)
        e[j] = h
        numeric = (reference_loss(w, b + e, x, y) - reference_loss(w, b - e, x, y)) / (2 * h)
        assert abs(db[j] - numeric) < 1e-7, f"dbias[{j}]: {db[j]:.6f}, numerically {numeric:.6f}"


@test("q6", 1, hidden=True, hint="subtract each row's largest logit before the exponential")
def large_logits(s):
    w, b, x, y = problem(5, 4, 3, 3)
    with np.errstate(all="ignore"):
        loss, dw, db = s.softmax_regression(3000 * w, b, x, y)
    for name, value in (("loss", loss), ("dweight", dw), ("dbias", db)):
        assert np.all(np.isfinite(value)), f"{name} overflows for large logits"
    assert near(loss, reference_loss(3000 * w, b, x, y), rtol=1e-6)


@test("q6", 0.5, hidden=True, hint="a batch of one")
def batch_of_one(s):
    w, b, x, y = problem(6, 1, 3, 2)
    loss, dw, db = s.softmax_regression(w, b, x, y)
    dz = reference_dz(w, b, x, y)
    assert near(loss, reference_loss(w, b, x, y)) and near(dw, dz.T @ x) and near(db, dz.sum(0))


# %% tags=["wrong", "q6"]
# expect: you summed over the wrong axis
def softmax_regression(weight, bias, x, y):
    n = len(y)
    z = x @ weight.T + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(np.maximum(p[np.arange(n), y], 1e-300)))
    dz = (p - np.eye(len(bias))[y]) / n
    return loss, dz.T @ x, dz.sum(axis=1)


# %% tags=["wrong", "q6"]
# expect: dweight is n times too large
def softmax_regression(weight, bias, x, y):
    n = len(y)
    z = x @ weight.T + bias
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    dz = np.exp(log_p) - np.eye(len(bias))[y]
    return -np.mean(log_p[np.arange(n), y]), dz.T @ x, dz.sum(axis=0)


# %% tags=["wrong", "q6"]
# expect: overflows for large logits
def softmax_regression(weight, bias, x, y):
    n = len(y)
    z = x @ weight.T + bias
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    dz = (p - np.eye(len(bias))[y]) / n
    return -np.mean(np.log(p[np.arange(n), y])), dz.T @ x, dz.sum(axis=0)


# %% tags=["wrong", "q6"]
# expect: dweight has the wrong sign
def softmax_regression(weight, bias, x, y):
    n = len(y)
    z = x @ weight.T + bias
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    dz = (np.eye(len(bias))[y] - np.exp(log_p)) / n
    return -np.mean(log_p[np.arange(n), y]), dz.T @ x, dz.sum(axis=0)


# %% [markdown] tags=["q7", "outcome-6"]
# ## Question 7 · Mini-batches
#
# Write `minibatches(n, batch_size, rng)`, which returns a list of integer arrays: the indices
# $0,\dots,n-1$ in an order drawn from the NumPy generator `rng`, cut into batches of `batch_size`.
# Every index occurs exactly once; the last batch is smaller where `batch_size` does not divide `n`.


# %% tags=["answer", "q7"]
def minibatches(n, batch_size, rng):
    """Return a list of index arrays that together hold 0 … n-1 once each, in random order."""
    # BEGIN SOLUTION
    order = rng.permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q7"]
# **Why.** One epoch means that every sample is used once: a permutation, not draws with
# replacement (which miss about 37 % of the samples). Slicing past the end gives the short last
# batch for free. Without the shuffle, data sorted by class would give batches of a single class.


# %% tags=["test"]
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


@test("q7", 1, hidden=True, hint="draw from the generator that is given, not from a new one")
def random_as_given(s):
    a, b, c = (np.concatenate(s.minibatches(50, 7, rng(seed))) for seed in (3, 3, 4))
    assert near(a, b), "the same generator state must give the same batches"
    assert not near(a, c), "another generator must give other batches: use the argument rng"


@test("q7", 0.5, hidden=True, hint="batch_size may be 1, n or more than n")
def edges(s):
    assert [len(b) for b in s.minibatches(4, 1, rng(5))] == [1, 1, 1, 1]
    assert [len(b) for b in s.minibatches(4, 4, rng(5))] == [4]
    assert [len(b) for b in s.minibatches(3, 10, rng(5))] == [3]


# %% tags=["wrong", "q7"]
# expect: keep the smaller last batch
def minibatches(n, batch_size, rng):
    order = rng.permutation(n)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(n // batch_size)]


# %% tags=["wrong", "q7"]
# expect: draw a permutation, not with replacement
def minibatches(n, batch_size, rng):
    order = rng.integers(0, n, size=n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


# %% tags=["wrong", "q7"]
# expect: the indices are in order
def minibatches(n, batch_size, rng):
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


# %% tags=["wrong", "q7"]
# expect: use the argument rng
def minibatches(n, batch_size, rng):
    order = np.random.default_rng(0).permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


# %% [markdown] tags=["q8", "outcome-4", "outcome-6"]
# ## Question 8 · How much model do the data carry? (experiment, open challenge)
#
# Write `choose_degree(x_train, y_train, x_val, y_val, max_degree)`: fit polynomials of degree
# 1 … `max_degree` to the training points by least squares, and return the degree whose *validation*
# mean squared error is the smallest (the lowest degree if several are equal). All four arrays have
# shape `(n,)` or `(m,)` with values of `x` between −1 and 1.
#
# Then try it: draw samples of a sine with noise of several strengths, and see how the chosen degree
# moves with the number of samples and with the noise. There is no single right answer to that part.


# %% tags=["answer", "q8"]
def choose_degree(x_train, y_train, x_val, y_val, max_degree):
    """Return the degree, 1 … max_degree, with the smallest validation mean squared error."""
    # BEGIN SOLUTION
    errors = []
    for degree in range(1, max_degree + 1):
        powers = np.arange(degree + 1)
        weight, *_ = np.linalg.lstsq(x_train[:, np.newaxis] ** powers, y_train, rcond=None)
        errors.append(np.mean((x_val[:, np.newaxis] ** powers @ weight - y_val) ** 2))
    return 1 + int(np.argmin(errors))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q8"]
# **Why.** Each degree contains the one before it, so the *training* error can only fall: it always
# chooses the largest degree. The validation error falls while the extra term follows the curve and
# rises when it follows the noise. `argmin` returns the first of equal minima, index 0 being degree 1.


# %% tags=["test"]
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


@test("q8", 1, hidden=True, hint="the fit may not see the validation points")
def many_samples(s):
    for seed in range(20, 26):
        function = lambda x: np.sin(4 * x)
        train, val = curve(seed, 15, 0.3, function), curve(seed + 50, 60, 0.3, function)
        expected = 1 + int(np.argmin(errors_by_degree(*train, *val, 8)))
        degree = s.choose_degree(*train, *val, 8)
        assert degree == expected, (
            f"15 noisy points: got degree {degree}, expected {expected}; fit on the training points alone"
        )


@test("q8", 0.5, hidden=True, hint="an int from 1 to max_degree")
def one_degree(s):
    train, val = curve(5, 6, 0.1, np.sin), curve(6, 5, 0.1, np.sin)
    assert s.choose_degree(*train, *val, 1) == 1


# %% tags=["wrong", "q8"]
# expect: is it the *training* error
def choose_degree(x_train, y_train, x_val, y_val, max_degree):
    errors = []
    for degree in range(1, max_degree + 1):
        powers = np.arange(degree + 1)
        weight, *_ = np.linalg.lstsq(x_train[:, np.newaxis] ** powers, y_train, rcond=None)
        errors.append(np.mean((x_train[:, np.newaxis] ** powers @ weight - y_train) ** 2))
    return 1 + int(np.argmin(errors))


# %% tags=["wrong", "q8"]
# expect: one too low
def choose_degree(x_train, y_train, x_val, y_val, max_degree):
    errors = []
    for degree in range(1, max_degree + 1):
        powers = np.arange(degree + 1)
        weight, *_ = np.linalg.lstsq(x_train[:, np.newaxis] ** powers, y_train, rcond=None)
        errors.append(np.mean((x_val[:, np.newaxis] ** powers @ weight - y_val) ** 2))
    return int(np.argmin(errors))


# %% tags=["wrong", "q8"]
# expect: fit on the training points alone
def choose_degree(x_train, y_train, x_val, y_val, max_degree):
    errors = []
    x, y = np.concatenate([x_train, x_val]), np.concatenate([y_train, y_val])
    for degree in range(1, max_degree + 1):
        powers = np.arange(degree + 1)
        weight, *_ = np.linalg.lstsq(x[:, np.newaxis] ** powers, y, rcond=None)
        errors.append(np.mean((x_val[:, np.newaxis] ** powers @ weight - y_val) ** 2))
    return 1 + int(np.argmin(errors))


# %% [markdown] tags=["q9", "outcome-6"]
# ## Question 9 · What is wrong with these training runs? (bug clinic)
#
# The next cell trains five models on real measurements of tumours (the breast-cancer data) and
# draws their curves. Four of the runs are ill. Look at the curves and give for each run the
# **one** word that fits best:
#
# - `"diverging"`: the steps overshoot;
# - `"slow"`: the learning rate is far too small, the curves are still falling in parallel;
# - `"overfitting"`: the training loss keeps falling while the validation loss rises;
# - `"underfitting"`: both losses have levelled off high, the model cannot do better;
# - `"healthy"`: nothing is wrong.

# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz
from dlnotes.course import clinic

viz.use_style()
runs = clinic.logistic_runs()

fig, axes = plt.subplots(1, 5, figsize=(11, 2.8), layout="constrained")
for ax, (name, run) in zip(axes, runs.items(), strict=True):
    ax.plot(run[:, 0], label="training")
    ax.plot(run[:, 1], "--", label="validation")
    ax.set(title=f"run {name}", xlabel="step", ylabel="mean log loss", ylim=(0, None))
axes[0].legend()
viz.show(
    fig,
    alt="Five panels A to E with the training and the validation loss of five runs over 200 steps.",
)


# %% tags=["answer", "q9"]
def diagnosis():
    """Return a dictionary from the runs "A" … "E" to one word each."""
    # BEGIN SOLUTION
    return {"A": "slow", "B": "healthy", "C": "underfitting", "D": "overfitting", "E": "diverging"}
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** A: both curves fall in parallel and hardly move: the learning rate is a few hundred times
# too small. B falls and levels off low, validation close to training. C levels off at once near
# $\ln 2$ although it was trained like B: its only feature is a constant, no learning rate can
# help. D has 401 features for 40 samples, 400 of them noise: it learns the training set by heart.
# E jumps up and down by whole units: every step overshoots the valley.

# %% tags=["test"]
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


@test("q9", 0.5, hidden=True, hint="look at the scale of the vertical axis")
def run_e(s):
    assert word(s, "E") == "diverging", "E: the loss jumps up and down by whole units"


# %% tags=["wrong", "q9"]
# expect: A: underfitting curves have levelled off
def diagnosis():
    return {
        "A": "underfitting",
        "B": "healthy",
        "C": "underfitting",
        "D": "overfitting",
        "E": "diverging",
    }


# %% tags=["wrong", "q9"]
# expect: C: it has stopped falling
def diagnosis():
    return {"A": "slow", "B": "healthy", "C": "slow", "D": "overfitting", "E": "diverging"}


# %% tags=["wrong", "q9"]
# expect: B: a small gap is normal
def diagnosis():
    return {
        "A": "slow",
        "B": "overfitting",
        "C": "underfitting",
        "D": "overfitting",
        "E": "diverging",
    }


# %% tags=["wrong", "q9"]
# expect: E: the loss jumps up and down
def diagnosis():
    return {"A": "slow", "B": "healthy", "C": "underfitting", "D": "diverging", "E": "overfitting"}
