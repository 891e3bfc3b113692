# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 5 · Regularization and generalization
#
# Eleven questions on [chapter 5](../notebooks/05_regularization.ipynb), from a warm-up to an open
# challenge. Most are short; whoever has time for half of them takes 1, 2, 3, 6, 8 and 10. Write
# your code where a cell says `raise NotImplementedError`, run the cell, then run the check below
# it: it says at once what holds, what does not, and gives a hint. A teacher's grading adds hidden
# checks on other inputs (odd sizes, a single sample, large values), so read the task closely and
# make your functions right for every input that it allows.
#
# Use NumPy and the standard library only. No function may change the arrays that it is given.
# Arrays are float64 unless a question says otherwise.

# %%
# Set-up: import dlnotes, and install it first where it is missing (Colab).
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("dlnotes") is None:
    source = "dlnotes @ git+https://github.com/dlnotes/dlnotes"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import math

import numpy as np

from dlnotes.course import Grader

grader = Grader("05_regularization")

# %% tags=["test"]
import math


def near(actual, expected, rtol=1e-6, atol=1e-10):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · Bias, variance, optimism (warm-up)
#
# Row $m$ of `predictions`, shape `(m, n)`, holds what a model predicts at $n$ points after having
# been fitted to the $m$-th of many data sets; `truth`, shape `(n,)`, holds the noise-free values
# there. Write
#
# - `bias_and_variance(predictions, truth)`: `(bias2, variance)`, two numbers: the squared bias and
#   the variance (divided by $m$), each a mean over the points;
# - `optimism(p, n, variance)`: by how much the training error of least squares with `p` parameters
#   and `n` examples is too small on average, for noise of this variance (equation 5.3);
# - `parameters_worth(gains, n, variance)`: `gains[k]` is how much squared bias parameter `k` would
#   remove. Return how many of them are worth having: those that lower the expected error on *new*
#   values at the same places, where a parameter adds $\sigma^2/n$ of variance.


# %% tags=["answer", "q1"]
def bias_and_variance(predictions, truth):
    """Return squared bias and variance, each averaged over the points."""
    # BEGIN SOLUTION
    mean = predictions.mean(axis=0)
    return np.mean((mean - truth) ** 2), np.mean(predictions.var(axis=0))
    # END SOLUTION


def optimism(p, n, variance):
    """Return the expected error on new values minus the expected training error."""
    # BEGIN SOLUTION
    return 2 * variance * p / n
    # END SOLUTION


def parameters_worth(gains, n, variance):
    """Return how many parameters remove more squared bias than they add variance."""
    # BEGIN SOLUTION
    return int(np.sum(np.asarray(gains) > variance / n))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# **Why.** The mean over data sets comes first, then the square: squaring first gives the whole
# error, bias and variance together. A parameter costs its share of the variance, $\sigma^2/n$, on
# new data; the training error *falls* by the same amount, so the two are apart by twice that.


# %% tags=["test"]
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


@test("q1", 1, hidden=True, hint="compare each gain with σ²/n; one data set has variance 0")
def worth_it(s):
    assert s.parameters_worth([0.5, 0.02, 0.011, 0.009, 0.0], 50, 0.5) == 3, (
        "a parameter pays when its gain exceeds σ²/n = 0.01: three of these do"
    )
    bias2, variance = s.bias_and_variance(np.array([[1.0, -2.0]]), np.zeros(2))
    assert near(bias2, 2.5) and near(variance, 0.0), "one data set: all is bias, the variance is 0"


# %% tags=["wrong", "q1"]
# expect: you squared before you averaged
def bias_and_variance(predictions, truth):
    return np.mean((predictions - truth) ** 2), np.mean(predictions.var(axis=0))


def optimism(p, n, variance):
    return 2 * variance * p / n


def parameters_worth(gains, n, variance):
    return int(np.sum(np.asarray(gains) > variance / n))


# %% tags=["wrong", "q1"]
# expect: you took the variance over the points
def bias_and_variance(predictions, truth):
    mean = predictions.mean(axis=0)
    return np.mean((mean - truth) ** 2), np.mean(predictions.var(axis=1))


def optimism(p, n, variance):
    return 2 * variance * p / n


def parameters_worth(gains, n, variance):
    return int(np.sum(np.asarray(gains) > variance / n))


# %% tags=["wrong", "q1"]
# expect: σ²p/n is only half of it
def bias_and_variance(predictions, truth):
    mean = predictions.mean(axis=0)
    return np.mean((mean - truth) ** 2), np.mean(predictions.var(axis=0))


def optimism(p, n, variance):
    return variance * p / n


def parameters_worth(gains, n, variance):
    return int(np.sum(np.asarray(gains) > variance / n))


# %% tags=["wrong", "q1"]
# expect: a parameter pays when its gain exceeds
def bias_and_variance(predictions, truth):
    mean = predictions.mean(axis=0)
    return np.mean((mean - truth) ** 2), np.mean(predictions.var(axis=0))


def optimism(p, n, variance):
    return 2 * variance * p / n


def parameters_worth(gains, n, variance):
    return int(np.sum(np.asarray(gains) > 2 * variance / n))


# %% [markdown] tags=["q2", "outcome-2"]
# ## Question 2 · Honest folds and how far to trust a number
#
# Several pictures come from each writer; new pictures will come from *new* writers. Write
#
# - `writer_folds(writers, k)`: `writers`, shape `(n,)`, whole numbers, says who wrote each picture.
#   Number the writers 0, 1, 2, … in the order in which they *first appear*; writer number $i$ goes
#   to fold $i \bmod k$. Return the fold of each picture, an integer array `(n,)`;
# - `standard_error(accuracy, m)`: the standard error of an accuracy measured on `m` independent
#   examples (equation 5.4);
# - `examples_needed(accuracy, error)`: the smallest whole number of examples whose standard error
#   is at most `error`, for an accuracy about `accuracy`.


# %% tags=["answer", "q2"]
def writer_folds(writers, k):
    """Return the fold of each picture; no writer is in two folds."""
    # BEGIN SOLUTION
    number = {}
    for writer in writers.tolist():
        number.setdefault(writer, len(number))
    return np.array([number[writer] % k for writer in writers.tolist()])
    # END SOLUTION


def standard_error(accuracy, m):
    """Return the standard error of an accuracy on m examples."""
    # BEGIN SOLUTION
    return math.sqrt(accuracy * (1 - accuracy) / m)
    # END SOLUTION


def examples_needed(accuracy, error):
    """Return how many examples bring the standard error down to `error`."""
    # BEGIN SOLUTION
    return math.ceil(accuracy * (1 - accuracy) / error**2 - 1e-9)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** A picture of a writer in the training set tells about another picture of the same writer,
# so a split by pictures measures how well *known* writers are read. The unit that will be new must
# be new in validation. Right or wrong is a number 1 or 0 with variance $a(1-a)$; the mean of $m$ of
# them has the $m$-th part. Solved for $m$ and rounded *up*. (The small number keeps a quotient such
# as 2500.0000000001, which rounding of floats makes, from counting as 2501.)

# %% tags=["test"]
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


@test("q2", 1, hidden=True, hint="solve for m, round up")
def enough(s):
    for a, e in ((0.9, 0.015), (0.97, 0.007), (0.5, 0.3), (0.83, 0.011)):
        m = s.examples_needed(a, e)
        assert math.sqrt(a * (1 - a) / m) <= e * (1 + 1e-9), (
            f"accuracy {a}, error {e}: {m} examples are too few: round up"
        )
        assert m == 1 or math.sqrt(a * (1 - a) / (m - 1)) > e * (1 - 1e-9), (
            f"accuracy {a}, error {e}: {m} examples are more than needed"
        )
    folds = array(s.writer_folds(np.array([-4, -4, 9]), 2)).tolist()
    assert folds == [0, 0, 1], f"writers -4, -4, 9 in two folds: got {folds}, expected [0, 0, 1]"


# %% tags=["wrong", "q2"]
# expect: a leak
def writer_folds(writers, k):
    number = {}
    for writer in writers.tolist():
        number.setdefault(writer, len(number))
    return np.arange(len(writers)) % k


def standard_error(accuracy, m):
    return math.sqrt(accuracy * (1 - accuracy) / m)


def examples_needed(accuracy, error):
    return math.ceil(accuracy * (1 - accuracy) / error**2 - 1e-9)


# %% tags=["wrong", "q2"]
# expect: that is the writer's own number modulo k
def writer_folds(writers, k):
    number = {}
    for writer in writers.tolist():
        number.setdefault(writer, len(number))
    return writers % k


def standard_error(accuracy, m):
    return math.sqrt(accuracy * (1 - accuracy) / m)


def examples_needed(accuracy, error):
    return math.ceil(accuracy * (1 - accuracy) / error**2 - 1e-9)


# %% tags=["wrong", "q2"]
# expect: take the root
def writer_folds(writers, k):
    number = {}
    for writer in writers.tolist():
        number.setdefault(writer, len(number))
    return np.array([number[writer] % k for writer in writers.tolist()])


def standard_error(accuracy, m):
    return accuracy * (1 - accuracy) / m


def examples_needed(accuracy, error):
    return math.ceil(accuracy * (1 - accuracy) / error**2 - 1e-9)


# %% tags=["wrong", "q2"]
# expect: examples are too few: round up
def writer_folds(writers, k):
    number = {}
    for writer in writers.tolist():
        number.setdefault(writer, len(number))
    return np.array([number[writer] % k for writer in writers.tolist()])


def standard_error(accuracy, m):
    return math.sqrt(accuracy * (1 - accuracy) / m)


def examples_needed(accuracy, error):
    return int(accuracy * (1 - accuracy) / error**2)


# %% [markdown] tags=["q3", "outcome-3"]
# ## Question 3 · Ridge with an offset that is left alone
#
# With the loss $\frac{1}{2n}\sum_i (y_i - x_i^\top w - b)^2 + \frac{\lambda}{2}\lVert w\rVert^2$,
# the offset $b$ is *not* penalised. `X` has the shape `(n, d)`, `y` the shape `(n,)`,
# $\lambda > 0$; nothing is centred. Write
#
# - `ridge(X, y, lam)`: `(w, b)` at the minimum, by a formula, no loop;
# - `degrees_of_freedom(X, lam)`: the effective degrees of freedom of the weights (equation 5.6, on
#   centred features), without the one that the offset uses.


# %% tags=["answer", "q3"]
def ridge(X, y, lam):
    """Return the weights (d,) and the offset of ridge regression."""
    # BEGIN SOLUTION
    n, d = X.shape
    middle, level = X.mean(axis=0), y.mean()
    Z = X - middle
    w = np.linalg.solve(Z.T @ Z / n + lam * np.eye(d), Z.T @ (y - level) / n)
    return w, level - middle @ w
    # END SOLUTION


def degrees_of_freedom(X, lam):
    """Return the sum of the shrinkage factors."""
    # BEGIN SOLUTION
    Z = X - X.mean(axis=0)
    curvature = np.linalg.svd(Z, compute_uv=False) ** 2 / len(X)
    return np.sum(curvature / (curvature + lam))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# **Why.** Setting the derivative with respect to $b$ to zero gives $b = \bar y - \bar x^\top w$.
# Put back, the loss is that of centred features and targets without an offset, and (5.5) solves it.
# A constant column in $X$ would do for $\lambda = 0$ only; with a penalty it pulls the level of the
# predictions towards 0. The factors of (5.6) need the eigenvalues of $Z^\top Z/n$, the *squared*
# singular values divided by $n$; the singular values are safer to compute.


# %% tags=["test"]
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


@test("q3", 1, hidden=True, hint="more features than examples are allowed; one example, too")
def wide(s):
    X, y = problem(33, 3, 6)
    w, b = s.ridge(X, y, 1e3)
    assert np.abs(array(w)).max() < 0.05 and abs(float(b) - y.mean()) < 1.0, (
        "a huge λ leaves no weights and the mean of y as offset"
    )
    df = float(s.degrees_of_freedom(X, 1e-9))
    assert abs(df - 2) < 1e-3, f"three centred examples have two directions: got {df:.4f} degrees"
    w, b = s.ridge(X[:1], y[:1], 0.5)
    assert near(array(w), np.zeros(6)) and near(float(b), y[0]), "one example: w = 0 and b = y"


# %% tags=["wrong", "q3"]
# expect: the offset must not be penalised
def ridge(X, y, lam):
    n, d = X.shape
    Z = np.hstack([X, np.ones((n, 1))])
    w = np.linalg.solve(Z.T @ Z / n + lam * np.eye(d + 1), Z.T @ y / n)
    return w[:-1], w[-1]


def degrees_of_freedom(X, lam):
    Z = X - X.mean(axis=0)
    curvature = np.linalg.svd(Z, compute_uv=False) ** 2 / len(X)
    return np.sum(curvature / (curvature + lam))


# %% tags=["wrong", "q3"]
# expect: the loss has a mean, 1/2n
def ridge(X, y, lam):
    n, d = X.shape
    middle, level = X.mean(axis=0), y.mean()
    Z = X - middle
    w = np.linalg.solve(Z.T @ Z + lam * np.eye(d), Z.T @ (y - level))
    return w, level - middle @ w


def degrees_of_freedom(X, lam):
    Z = X - X.mean(axis=0)
    curvature = np.linalg.svd(Z, compute_uv=False) ** 2 / len(X)
    return np.sum(curvature / (curvature + lam))


# %% tags=["wrong", "q3"]
# expect: the eigenvalues are the *squared* singular values
def ridge(X, y, lam):
    n, d = X.shape
    middle, level = X.mean(axis=0), y.mean()
    Z = X - middle
    w = np.linalg.solve(Z.T @ Z / n + lam * np.eye(d), Z.T @ (y - level) / n)
    return w, level - middle @ w


def degrees_of_freedom(X, lam):
    Z = X - X.mean(axis=0)
    curvature = np.linalg.svd(Z, compute_uv=False) / np.sqrt(len(X))
    return np.sum(curvature / (curvature + lam))


# %% tags=["wrong", "q3"]
# expect: you did not centre X
def ridge(X, y, lam):
    n, d = X.shape
    middle, level = X.mean(axis=0), y.mean()
    Z = X - middle
    w = np.linalg.solve(Z.T @ Z / n + lam * np.eye(d), Z.T @ (y - level) / n)
    return w, level - middle @ w


def degrees_of_freedom(X, lam):
    Z = X
    curvature = np.linalg.svd(Z, compute_uv=False) ** 2 / len(X)
    return np.sum(curvature / (curvature + lam))


# %% [markdown] tags=["q4", "outcome-3"]
# ## Question 4 · The lasso by coordinate descent
#
# The loss is $\frac{1}{2n}\lVert Xw - y\rVert^2 + \lambda\sum_j|w_j|$, $\lambda \ge 0$, no offset.
# Columns of `X` are *not* standardised, but none is zero. Write
#
# - `soft_threshold(z, lam)`, entry by entry (equation 5.8);
# - `sweep(X, y, w, lam)`: new weights after one pass over $j = 0, 1, \dots, d-1$, each $w_j$ set to
#   the exact minimum while all others stay at their *newest* values. Derive the update for columns
#   of any length;
# - `largest_useful(X, y)`: the smallest $\lambda$ at which all weights are zero.


# %% tags=["answer", "q4"]
def soft_threshold(z, lam):
    """Return sign(z) max(|z| - lam, 0)."""
    # BEGIN SOLUTION
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)
    # END SOLUTION


def sweep(X, y, w, lam):
    """Return the weights after one pass of coordinate descent."""
    # BEGIN SOLUTION
    n, d = X.shape
    w = w.copy()
    residual = y - X @ w
    for j in range(d):
        length = X[:, j] @ X[:, j] / n
        z = X[:, j] @ residual / n + length * w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0) / length
        residual = residual - X[:, j] * (new - w[j])
        w[j] = new
    return w
    # END SOLUTION


def largest_useful(X, y):
    """Return the smallest penalty that makes every weight zero."""
    # BEGIN SOLUTION
    return np.max(np.abs(X.T @ y)) / len(y)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q4"]
# **Why.** With all but $w_j$ fixed, and $r$ the residual without feature $j$, the loss is
# $\tfrac12 c\,w_j^2 - z\,w_j + \lambda|w_j|$ plus a constant, where $c = X_j^\top X_j/n$ and
# $z = X_j^\top r/n$. Divided by $c$ it is (5.8) with $z/c$ and $\lambda/c$, so
# $w_j = S_\lambda(z)/c$. The residual is kept up to date, which costs $n$ operations a weight
# instead of $nd$. At $w = 0$ every $z$ is $X_j^\top y/n$; all stay zero when none exceeds
# $\lambda$.


# %% tags=["test"]
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


@test("q4", 1, hidden=True, hint="sweep until nothing changes: the loss has one minimum")
def converged(s):
    r = rng(42)
    X, y = r.normal(size=(30, 6)), r.normal(size=30)
    w = np.zeros(6)
    for _ in range(200):
        w = array(s.sweep(X, y, w, 0.1))
    for j in range(6):
        for step in (-1e-3, 1e-3):
            moved = w.copy()
            moved[j] += step
            assert lasso_loss(X, y, w, 0.1) <= lasso_loss(X, y, moved, 0.1), (
                "after 200 sweeps the loss could still be lower"
            )


@test("q4", 0.5, hidden=True, hint="at w = 0: the largest |X_jᵀ y| / n")
def first_feature(s):
    r = rng(43)
    X, y = r.normal(size=(21, 5)), r.normal(size=21)
    top = float(given(s.largest_useful(X, y), "largest_useful"))
    right = np.max(np.abs(X.T @ y)) / 21
    assert not near(top, right * 21), "the loss has 1/2n: divide by n"
    assert not near(top, np.max(X.T @ y) / 21) or near(top, right), (
        "a negative correlation counts as well: take |·|"
    )
    assert near(top, right), f"got {top}, expected {right:.6f}"


# %% tags=["wrong", "q4"]
# expect: that is the hard threshold
def soft_threshold(z, lam):
    return np.where(np.abs(z) > lam, z, 0.0)


def sweep(X, y, w, lam):
    n, d = X.shape
    w = w.copy()
    residual = y - X @ w
    for j in range(d):
        length = X[:, j] @ X[:, j] / n
        z = X[:, j] @ residual / n + length * w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0) / length
        residual = residual - X[:, j] * (new - w[j])
        w[j] = new
    return w


def largest_useful(X, y):
    return np.max(np.abs(X.T @ y)) / len(y)


# %% tags=["wrong", "q4"]
# expect: you used the old weights throughout
def soft_threshold(z, lam):
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)


def sweep(X, y, w, lam):
    n, d = X.shape
    residual = y - X @ w
    out = w.copy()
    for j in range(d):
        length = X[:, j] @ X[:, j] / n
        z = X[:, j] @ residual / n + length * w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0) / length
        out[j] = new
    return out


def largest_useful(X, y):
    return np.max(np.abs(X.T @ y)) / len(y)


# %% tags=["wrong", "q4"]
# expect: are the columns standardised in your formula
def soft_threshold(z, lam):
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)


def sweep(X, y, w, lam):
    n, d = X.shape
    w = w.copy()
    residual = y - X @ w
    for j in range(d):
        z = X[:, j] @ residual / n + w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)
        residual = residual - X[:, j] * (new - w[j])
        w[j] = new
    return w


def largest_useful(X, y):
    return np.max(np.abs(X.T @ y)) / len(y)


# %% tags=["wrong", "q4"]
# expect: divide by n
def soft_threshold(z, lam):
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)


def sweep(X, y, w, lam):
    n, d = X.shape
    w = w.copy()
    residual = y - X @ w
    for j in range(d):
        length = X[:, j] @ X[:, j] / n
        z = X[:, j] @ residual / n + length * w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0) / length
        residual = residual - X[:, j] * (new - w[j])
        w[j] = new
    return w


def largest_useful(X, y):
    return np.max(np.abs(X.T @ y))


# %% tags=["wrong", "q4"]
# expect: changed its input w in place
def soft_threshold(z, lam):
    return np.sign(z) * np.maximum(np.abs(z) - lam, 0.0)


def sweep(X, y, w, lam):
    n, d = X.shape
    residual = y - X @ w
    for j in range(d):
        length = X[:, j] @ X[:, j] / n
        z = X[:, j] @ residual / n + length * w[j]
        new = np.sign(z) * np.maximum(np.abs(z) - lam, 0.0) / length
        residual = residual - X[:, j] * (new - w[j])
        w[j] = new
    return w


def largest_useful(X, y):
    return np.max(np.abs(X.T @ y)) / len(y)


# %% [markdown] tags=["q5", "outcome-3"]
# ## Question 5 · Decay, and when to stop
#
# - `decay_step(w, g, lr, lam)`: the weights after one step of gradient descent with weight decay,
#   where `g` is the gradient of the data's loss (equation 4.17);
# - `stop_early(losses, patience)`: `losses` is a list of validation losses, one for each epoch that
#   *would* be run. Training stops after the first epoch at which `patience` epochs have passed
#   without a *strictly* smaller loss than the best so far, or at the end of the list. Return
#   `(run, best)`: how many epochs were run, and the number of the epoch (from 1) whose weights are
#   restored, the first one with the lowest loss that was seen;
# - `matching_penalty(lr, steps)`: the ridge penalty that gradient descent from zero resembles
#   (equation 5.15).


# %% tags=["answer", "q5"]
def decay_step(w, g, lr, lam):
    """Return the weights after a step with weight decay."""
    # BEGIN SOLUTION
    return (1 - lr * lam) * w - lr * g
    # END SOLUTION


def stop_early(losses, patience):
    """Return the number of epochs run and the epoch (from 1) that is restored."""
    # BEGIN SOLUTION
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= patience:
            return epoch, best
    return len(losses), best
    # END SOLUTION


def matching_penalty(lr, steps):
    """Return the strength of the ridge penalty that stopping resembles."""
    # BEGIN SOLUTION
    return 1 / (lr * steps)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q5"]
# **Why.** The penalty's gradient is $\lambda w$, and the rate multiplies it like any other: without
# it, halving the rate would double the decay relative to the data. Early stopping restores the best
# epoch, not the last; an equal loss is no improvement, so that a plateau ends. In a flat direction
# descent reaches $\alpha t\mu$ of the solution and ridge $\mu/\lambda$.


# %% tags=["test"]
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


@test(
    "q5",
    1,
    hidden=True,
    hint="an equal loss is no improvement; patience 1 stops at the first failure",
)
def plateaus(s):
    got = tuple(s.stop_early([0.5, 0.5, 0.5, 0.5], 2))
    assert got == (3, 1), (
        f"four equal losses, patience 2: got {got}, expected (3, 1): an equal loss is no improvement"
    )
    got = tuple(s.stop_early([0.5, 0.6, 0.1], 1))
    assert got == (2, 1), f"patience 1: got {got}, expected (2, 1)"


@test("q5", 0.5, hidden=True, hint="λ ≈ 1/(αt)")
def penalty(s):
    lam = float(given(s.matching_penalty(0.02, 250), "matching_penalty"))
    assert not near(lam, 5.0), "more steps are *less* regularization: 1/(αt), not αt"
    assert near(lam, 0.2), f"rate 0.02, 250 steps: got {lam}, expected 0.2"


# %% tags=["wrong", "q5"]
# expect: you forgot the learning rate on the decay
def decay_step(w, g, lr, lam):
    return (1 - lam) * w - lr * g


def stop_early(losses, patience):
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= patience:
            return epoch, best
    return len(losses), best


def matching_penalty(lr, steps):
    return 1 / (lr * steps)


# %% tags=["wrong", "q5"]
# expect: you restored the last epoch
def decay_step(w, g, lr, lam):
    return (1 - lr * lam) * w - lr * g


def stop_early(losses, patience):
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= patience:
            return epoch, epoch
    return len(losses), best


def matching_penalty(lr, steps):
    return 1 / (lr * steps)


# %% tags=["wrong", "q5"]
# expect: an equal loss is no improvement
def decay_step(w, g, lr, lam):
    return (1 - lr * lam) * w - lr * g


def stop_early(losses, patience):
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss <= lowest:
            best, lowest = epoch, loss
        elif epoch - best >= patience:
            return epoch, best
    return len(losses), best


def matching_penalty(lr, steps):
    return 1 / (lr * steps)


# %% tags=["wrong", "q5"]
# expect: more steps are *less* regularization
def decay_step(w, g, lr, lam):
    return (1 - lr * lam) * w - lr * g


def stop_early(losses, patience):
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= patience:
            return epoch, best
    return len(losses), best


def matching_penalty(lr, steps):
    return lr * steps


# %% tags=["wrong", "q5"]
# expect: nobody got there
def decay_step(w, g, lr, lam):
    return (1 - lr * lam) * w - lr * g


def stop_early(losses, patience):
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
    return len(losses), best


def matching_penalty(lr, steps):
    return 1 / (lr * steps)


# %% [markdown] tags=["q6", "outcome-4"]
# ## Question 6 · Dropout, forward and backward, and its penalty
#
# `u`, of the shape of `h`, holds random numbers from $[0, 1)$; an entry is **dropped where**
# $u < p$. $0 \le p < 1$. Write
#
# - `dropout(h, p, u, training)`: inverted dropout (equation 5.10); in evaluation mode the input;
# - `dropout_backward(dy, p, u)`: the gradient of the loss with respect to `h`, in training mode,
#   given `dy`, that of the output;
# - `dropout_penalty(X, w, p)`: for a linear model with dropout on the inputs and the *sum* of
#   squared errors over all examples, what dropout adds to the expected loss (equation 5.11).


# %% tags=["answer", "q6"]
def dropout(h, p, u, training):
    """Return h after inverted dropout; entries with u < p are dropped."""
    # BEGIN SOLUTION
    if not training:
        return h
    return h * (u >= p) / (1 - p)
    # END SOLUTION


def dropout_backward(dy, p, u):
    """Return the gradient with respect to the input of dropout in training mode."""
    # BEGIN SOLUTION
    return dy * (u >= p) / (1 - p)
    # END SOLUTION


def dropout_penalty(X, w, p):
    """Return what dropout on the inputs adds to the expected sum of squared errors."""
    # BEGIN SOLUTION
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** For a given mask dropout multiplies by a number, so backward multiplies by the same
# number, with the *same* mask and scale. The penalty is the variance of $\sum_j m_j x_j w_j/(1-p)$:
# the $m_j$ are independent with variance $p(1-p)$, so each term contributes
# $\frac{p}{1-p}x_j^2w_j^2$.


# %% tags=["test"]
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


@test("q6", 1, hidden=True, hint="go through all masks of a small example and average")
def penalty_of_all_masks(s):
    r = rng(65)
    X, y, w, p = r.normal(size=(3, 4)), r.normal(size=3), r.normal(size=4), 0.2
    total = 0.0
    for row, target in zip(X, y, strict=True):
        for bits in range(16):
            m = np.array([bits >> j & 1 for j in range(4)])
            chance = np.prod(np.where(m, 1 - p, p))
            total += chance * (target - (m * row) @ w / (1 - p)) ** 2
    extra = float(given(s.dropout_penalty(X, w, p), "dropout_penalty"))
    right = total - np.sum((y - X @ w) ** 2)
    assert not near(extra, right * 16), "(1 - p)/p is upside down: more dropout is more penalty"
    assert not near(extra, p / (1 - p) * np.sum(w**2)), (
        "each w_j² counts with the sum of its squared inputs"
    )
    assert near(extra, right), f"over all masks: expected {right:.6f}, got {extra}"


@test("q6", 0.5, hidden=True, hint="p = 0 leaves everything; u may be exactly p")
def edges(s):
    h = np.array([1.0, 2.0, 3.0])
    u = np.array([0.0, 0.5, 0.9])
    assert near(array(s.dropout(h, 0.0, u, True)), h), "p = 0 drops nothing, not even where u = 0"
    assert near(array(s.dropout(h, 0.5, u, True)), [0.0, 4.0, 6.0]), (
        "u = p is kept: only u < p is dropped"
    )


# %% tags=["wrong", "q6"]
# expect: what is left must be scaled up
def dropout(h, p, u, training):
    if not training:
        return h
    return h * (u >= p)


def dropout_backward(dy, p, u):
    return dy * (u >= p) / (1 - p)


def dropout_penalty(X, w, p):
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))


# %% tags=["wrong", "q6"]
# expect: you divided by p
def dropout(h, p, u, training):
    if not training:
        return h
    return h * (u >= p) / p if p else h


def dropout_backward(dy, p, u):
    return dy * (u >= p) / (1 - p)


def dropout_penalty(X, w, p):
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))


# %% tags=["wrong", "q6"]
# expect: you kept what should be dropped
def dropout(h, p, u, training):
    if not training:
        return h
    return h * (u < p) / (1 - p)


def dropout_backward(dy, p, u):
    return dy * (u >= p) / (1 - p)


def dropout_penalty(X, w, p):
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))


# %% tags=["wrong", "q6"]
# expect: evaluation mode: nothing is dropped
def dropout(h, p, u, training):
    if not training:
        return h * (1 - p)
    return h * (u >= p) / (1 - p)


def dropout_backward(dy, p, u):
    return dy * (u >= p) / (1 - p)


def dropout_penalty(X, w, p):
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))


# %% tags=["wrong", "q6"]
# expect: the scale 1/(1 - p) belongs into the gradient too
def dropout(h, p, u, training):
    if not training:
        return h
    return h * (u >= p) / (1 - p)


def dropout_backward(dy, p, u):
    return dy * (u >= p)


def dropout_penalty(X, w, p):
    return p / (1 - p) * np.sum(w**2 * np.sum(X**2, axis=0))


# %% tags=["wrong", "q6"]
# expect: upside down
def dropout(h, p, u, training):
    if not training:
        return h
    return h * (u >= p) / (1 - p)


def dropout_backward(dy, p, u):
    return dy * (u >= p) / (1 - p)


def dropout_penalty(X, w, p):
    return (1 - p) / p * np.sum(w**2 * np.sum(X**2, axis=0))


# %% [markdown] tags=["q7", "outcome-5"]
# ## Question 7 · Shift, mixup, CutMix
#
# - `shift(images, down, right)`: `images`, shape `(n, h, w)`, moved down and right by whole pixels
#   (negative: up, left); what comes in is 0. Shifts larger than the picture are allowed;
# - `mixup(x, q, partner, lam)`: `x` has the shape `(n, …)`, `q` `(n, k)` holds target
#   probabilities, `partner` `(n,)` the index of each image's partner. Return `(x, q)` mixed with
#   the share `lam` of the image itself (equation 5.19);
# - `cutmix(x, q, partner, top, left, height, width)`: `x` of shape `(n, h, w)`. Paste the rectangle
#   of each partner, which lies within the picture, at the same place; mix the targets by area.


# %% tags=["answer", "q7"]
def shift(images, down, right):
    """Return the images (n, h, w) moved down and right; zeros come in."""
    # BEGIN SOLUTION
    _, h, w = images.shape
    result = np.zeros_like(images)
    if abs(down) >= h or abs(right) >= w:
        return result
    rows, columns = h - abs(down), w - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    result[:, to_row : to_row + rows, to_column : to_column + columns] = images[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return result
    # END SOLUTION


def mixup(x, q, partner, lam):
    """Return mixed images and mixed targets."""
    # BEGIN SOLUTION
    return lam * x + (1 - lam) * x[partner], lam * q + (1 - lam) * q[partner]
    # END SOLUTION


def cutmix(x, q, partner, top, left, height, width):
    """Return images with the partner's rectangle pasted in, and targets mixed by area."""
    # BEGIN SOLUTION
    mixed = x.copy()
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mixed[window] = x[partner][window]
    pasted = height * width / (x.shape[1] * x.shape[2])
    return mixed, (1 - pasted) * q + pasted * q[partner]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q7"]
# **Why.** `np.roll` would let what leaves on one side come in on the other: a picture that no
# camera takes. The share of a label is the share of its *pixels*: what is pasted counts for the
# partner. All partners must come from the original `x`, not from images that have been pasted into
# already.


# %% tags=["test"]
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


@test(
    "q7",
    1,
    hidden=True,
    hint="the pasted share is height · width / (h · w), and counts for the partner",
)
def pasted(s):
    x, q, partner = some_images(73)
    with unchanged(x=x, q=q, partner=partner):
        a, b = several(s.cutmix(x, q, partner, 1, 2, 3, 2), "cutmix", 2)
    expected = x.copy()
    for i in range(4):
        expected[i, 1:4, 2:4] = x[partner[i], 1:4, 2:4]
    assert near(array(a), expected), (
        "the rectangle must hold the partner's original pixels, the rest its own"
    )
    assert not near(array(b), 0.2 * q + 0.8 * q[partner]), (
        "the pasted 20 percent count for the *partner*"
    )
    assert near(array(b), 0.8 * q + 0.2 * q[partner]), (
        "targets by area: 6 of 30 pixels are the partner's"
    )


@test("q7", 0.5, hidden=True, hint="a shift by the whole picture leaves only zeros")
def far_away(s):
    x, _, _ = some_images(74)
    for down, right in ((5, 0), (0, -6), (9, 1), (-7, -8)):
        assert not array(s.shift(x, down, right)).any(), (
            f"shift({down}, {right}) must leave nothing"
        )
    assert near(array(s.shift(x, 0, 0)), x), "shift(0, 0) must leave everything"


# %% tags=["wrong", "q7"]
# expect: (np.roll): zeros must come in
def shift(images, down, right):
    return np.roll(images, (down, right), (1, 2))
    _, h, w = images.shape
    result = np.zeros_like(images)
    if abs(down) >= h or abs(right) >= w:
        return result
    rows, columns = h - abs(down), w - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    result[:, to_row : to_row + rows, to_column : to_column + columns] = images[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return result


def mixup(x, q, partner, lam):
    return lam * x + (1 - lam) * x[partner], lam * q + (1 - lam) * q[partner]


def cutmix(x, q, partner, top, left, height, width):
    mixed = x.copy()
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mixed[window] = x[partner][window]
    pasted = height * width / (x.shape[1] * x.shape[2])
    return mixed, (1 - pasted) * q + pasted * q[partner]


# %% tags=["wrong", "q7"]
# expect: goes the wrong way
def shift(images, down, right):
    down, right = -down, -right
    _, h, w = images.shape
    result = np.zeros_like(images)
    if abs(down) >= h or abs(right) >= w:
        return result
    rows, columns = h - abs(down), w - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    result[:, to_row : to_row + rows, to_column : to_column + columns] = images[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return result


def mixup(x, q, partner, lam):
    return lam * x + (1 - lam) * x[partner], lam * q + (1 - lam) * q[partner]


def cutmix(x, q, partner, top, left, height, width):
    mixed = x.copy()
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mixed[window] = x[partner][window]
    pasted = height * width / (x.shape[1] * x.shape[2])
    return mixed, (1 - pasted) * q + pasted * q[partner]


# %% tags=["wrong", "q7"]
# expect: the targets must be mixed as well
def shift(images, down, right):
    _, h, w = images.shape
    result = np.zeros_like(images)
    if abs(down) >= h or abs(right) >= w:
        return result
    rows, columns = h - abs(down), w - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    result[:, to_row : to_row + rows, to_column : to_column + columns] = images[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return result


def mixup(x, q, partner, lam):
    return lam * x + (1 - lam) * x[partner], q


def cutmix(x, q, partner, top, left, height, width):
    mixed = x.copy()
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mixed[window] = x[partner][window]
    pasted = height * width / (x.shape[1] * x.shape[2])
    return mixed, (1 - pasted) * q + pasted * q[partner]


# %% tags=["wrong", "q7"]
# expect: count for the *partner*
def shift(images, down, right):
    _, h, w = images.shape
    result = np.zeros_like(images)
    if abs(down) >= h or abs(right) >= w:
        return result
    rows, columns = h - abs(down), w - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    result[:, to_row : to_row + rows, to_column : to_column + columns] = images[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return result


def mixup(x, q, partner, lam):
    return lam * x + (1 - lam) * x[partner], lam * q + (1 - lam) * q[partner]


def cutmix(x, q, partner, top, left, height, width):
    mixed = x.copy()
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mixed[window] = x[partner][window]
    pasted = height * width / (x.shape[1] * x.shape[2])
    return mixed, pasted * q + (1 - pasted) * q[partner]


# %% [markdown] tags=["q8", "outcome-5"]
# ## Question 8 · Label smoothing and calibration
#
# - `smoothed_loss(z, y, eps)`: the mean over the examples of cross-entropy between softmax of the
#   logits `z`, shape `(n, k)`, and the smoothed targets of equation (5.16) for the classes `y`,
#   shape `(n,)`; logits may be thousands;
# - `smoothed_gradient(z, y, eps)`: its gradient with respect to `z`;
# - `calibration_error(confidence, right, bins)`: `confidence`, shape `(n,)` in $(0, 1]$, `right`,
#   shape `(n,)` of booleans. Bin $b$ of the `bins` equal ones holds confidences in
#   $(b/\text{bins}, (b+1)/\text{bins}]$. Return the mean over the *examples* of |accuracy − mean
#   confidence| of their bin.


# %% tags=["answer", "q8"]
def smoothed_loss(z, y, eps):
    """Return the mean cross-entropy with smoothed targets."""
    # BEGIN SOLUTION
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n
    # END SOLUTION


def smoothed_gradient(z, y, eps):
    """Return the gradient of smoothed_loss with respect to the logits."""
    # BEGIN SOLUTION
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - q) / n
    # END SOLUTION


def calibration_error(confidence, right, bins):
    """Return the expected calibration error."""
    # BEGIN SOLUTION
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += inside.sum() * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q8"]
# **Why.** The right class keeps $1-\varepsilon$ and *also* gets its share $\varepsilon/k$ of what
# is spread over all $k$. Cross-entropy with any targets $q$ that sum to 1 has the gradient
# softmax$(z) - q$, divided by $n$ for the mean. In the calibration error a bin counts by its number
# of examples: otherwise three examples in a bin would weigh as much as three hundred.


# %% tags=["test"]
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


@test("q8", 1, hidden=True, hint="large logits, a confidence of exactly 1, one example")
def awkward(s):
    z = np.array([[4000.0, -4000.0, 0.0]])
    value = float(s.smoothed_loss(z, np.array([1]), 0.3))
    assert np.isfinite(value), "exp overflows: subtract the largest logit first"
    assert near(value, 0.8 * 8000 + 0.1 * 4000), (
        f"logits 4000, -4000, 0: got {value}, expected 6800"
    )
    assert np.isfinite(array(s.smoothed_gradient(z, np.array([1]), 0.3))).all(), (
        "the gradient holds NaN"
    )
    value = float(s.calibration_error(np.array([1.0, 0.5]), np.array([True, True]), 2))
    assert near(value, 0.25), (
        f"confidences 1 and 0.5, both right, two bins: got {value}, expected 0.25"
    )


# %% tags=["wrong", "q8"]
# expect: ε is spread over *all* k classes
def smoothed_loss(z, y, eps):
    n, k = z.shape
    q = np.where(np.eye(k)[y] > 0, 1 - eps, eps / (k - 1))
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n


def smoothed_gradient(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - q) / n


def calibration_error(confidence, right, bins):
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += inside.sum() * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)


# %% tags=["wrong", "q8"]
# expect: you forgot to divide by n: the loss is a mean
def smoothed_loss(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n


def smoothed_gradient(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) - q


def calibration_error(confidence, right, bins):
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += inside.sum() * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)


# %% tags=["wrong", "q8"]
# expect: that is the gradient without smoothing
def smoothed_loss(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n


def smoothed_gradient(z, y, eps):
    n, k = z.shape
    q = np.eye(k)[y]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - q) / n


def calibration_error(confidence, right, bins):
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += inside.sum() * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)


# %% tags=["wrong", "q8"]
# expect: every bin counts the same in yours
def smoothed_loss(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n


def smoothed_gradient(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - q) / n


def calibration_error(confidence, right, bins):
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(set(which.tolist()))


# %% tags=["wrong", "q8"]
# expect: exp overflows
def smoothed_loss(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.sum(q * log_p) / n


def smoothed_gradient(z, y, eps):
    n, k = z.shape
    q = (1 - eps) * np.eye(k)[y] + eps / k
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - q) / n


def calibration_error(confidence, right, bins):
    which = np.ceil(confidence * bins).astype(int) - 1
    total = 0.0
    for b in set(which.tolist()):
        inside = which == b
        total += inside.sum() * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)


# %% [markdown] tags=["q9", "outcome-6"]
# ## Question 9 · One round of AdaBoost, and what averaging leaves
#
# - `boost_round(u, y, h)`: `u`, shape `(n,)`, the weights of the examples, which sum to 1; `y` and
#   `h`, shape `(n,)`, the truth and the stump's answers, each $-1$ or $1$, some right and some
#   wrong. Return `(vote, new_u)` of equation (5.25);
# - `variance_of_mean(v, rho, m)`: the variance of the mean of `m` predictions (equation 5.23);
# - `members_needed(rho, share)`: the smallest whole number of members whose mean has at most
#   `share` of a single one's variance; `math.inf` when no number does. $0 \le \rho < 1$, $0 <$
#   `share` $\le 1$.


# %% tags=["answer", "q9"]
def boost_round(u, y, h):
    """Return the vote of the stump and the weights of the examples for the next round."""
    # BEGIN SOLUTION
    error = np.sum(u[h != y])
    vote = 0.5 * math.log((1 - error) / error)
    new = u * np.exp(-vote * y * h)
    return vote, new / np.sum(new)
    # END SOLUTION


def variance_of_mean(v, rho, m):
    """Return the variance of the mean of m predictions of variance v and correlation rho."""
    # BEGIN SOLUTION
    return rho * v + (1 - rho) * v / m
    # END SOLUTION


def members_needed(rho, share):
    """Return how many members bring the variance down to this share."""
    # BEGIN SOLUTION
    if share == 1:
        return 1
    if share <= rho:
        return math.inf
    return math.ceil((1 - rho) / (share - rho) - 1e-9)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** After the round the wrong examples have half of all weight: the next stump must find
# something new. A stump that is wrong more often than right gets a negative vote, which turns it
# over. The part $\rho v$ is common to all members, and no number of them removes it; solving
# $\rho + (1-\rho)/m \le s$ gives $m \ge (1-\rho)/(s-\rho)$.


# %% tags=["test"]
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


@test("q9", 1, hidden=True, hint="ρ v stays whatever the number; round up")
def averaging(s):
    assert near(s.variance_of_mean(2.0, 0.25, 5), 0.8), (
        "v = 2, ρ = 0.25, 5 members: 0.5 + 1.5/5 = 0.8"
    )
    assert near(s.variance_of_mean(3.0, 0.0, 4), 0.75), "independent members: v/m"
    assert s.members_needed(0.2, 0.25) == 16, (
        f"ρ = 0.2, share 0.25: got {s.members_needed(0.2, 0.25)}, expected 0.8/0.05 = 16"
    )
    assert s.members_needed(0.2, 0.27) == 12, (
        f"ρ = 0.2, share 0.27: got {s.members_needed(0.2, 0.27)}, expected 12: round up"
    )
    for rho, share in ((0.5, 0.5), (0.5, 0.4)):
        assert s.members_needed(rho, share) == math.inf, (
            f"the common part alone is {rho}: no number of members reaches {share}"
        )
    assert s.members_needed(0.3, 1.0) == 1, "one member has its own variance"


@test("q9", 0.5, hidden=True, hint="a stump that is mostly wrong gets a negative vote")
def worse_than_guessing(s):
    u, y, h = round_data(93)
    vote, new = s.boost_round(u, y, -h)
    error = u[1] + u[4]
    assert near(float(vote), -0.5 * math.log((1 - error) / error)), (
        "turned over, the stump must get minus the vote"
    )
    assert near(array(new)[[1, 4]].sum(), 0.5), "and both groups have half of the weight again"


# %% tags=["wrong", "q9"]
# expect: the vote is *half* the logarithm
def boost_round(u, y, h):
    error = np.sum(u[h != y])
    vote = math.log((1 - error) / error)
    new = u * np.exp(-vote * y * h)
    return vote, new / np.sum(new)


def variance_of_mean(v, rho, m):
    return rho * v + (1 - rho) * v / m


def members_needed(rho, share):
    if share == 1:
        return 1
    if share <= rho:
        return math.inf
    return math.ceil((1 - rho) / (share - rho) - 1e-9)


# %% tags=["wrong", "q9"]
# expect: you counted the wrong examples
def boost_round(u, y, h):
    error = np.mean(h != y)
    vote = 0.5 * math.log((1 - error) / error)
    new = u * np.exp(-vote * y * h)
    return vote, new / np.sum(new)


def variance_of_mean(v, rho, m):
    return rho * v + (1 - rho) * v / m


def members_needed(rho, share):
    if share == 1:
        return 1
    if share <= rho:
        return math.inf
    return math.ceil((1 - rho) / (share - rho) - 1e-9)


# %% tags=["wrong", "q9"]
# expect: the weights must sum to 1
def boost_round(u, y, h):
    error = np.sum(u[h != y])
    vote = 0.5 * math.log((1 - error) / error)
    new = u * np.exp(-vote * y * h)
    return vote, new


def variance_of_mean(v, rho, m):
    return rho * v + (1 - rho) * v / m


def members_needed(rho, share):
    if share == 1:
        return 1
    if share <= rho:
        return math.inf
    return math.ceil((1 - rho) / (share - rho) - 1e-9)


# %% tags=["wrong", "q9"]
# expect: wrong examples must gain weight
def boost_round(u, y, h):
    error = np.sum(u[h != y])
    vote = 0.5 * math.log((1 - error) / error)
    new = u * np.exp(vote * y * h)
    return vote, new / np.sum(new)


def variance_of_mean(v, rho, m):
    return rho * v + (1 - rho) * v / m


def members_needed(rho, share):
    if share == 1:
        return 1
    if share <= rho:
        return math.inf
    return math.ceil((1 - rho) / (share - rho) - 1e-9)


# %% tags=["wrong", "q9"]
# expect: no number of members reaches
def boost_round(u, y, h):
    error = np.sum(u[h != y])
    vote = 0.5 * math.log((1 - error) / error)
    new = u * np.exp(-vote * y * h)
    return vote, new / np.sum(new)


def variance_of_mean(v, rho, m):
    return rho * v + (1 - rho) * v / m


def members_needed(rho, share):
    if share == 1:
        return 1
    return math.ceil((1 - rho) / max(share - rho, 1e-3) - 1e-9)


# %% [markdown] tags=["q10", "outcome-1", "outcome-2"]
# ## Question 10 · Too good to be true (leakage clinic)
#
# The next cell trains a network on 200 handwritten digits, six times (in run E on 60 examples of
# something else). Everybody reports the *lowest validation loss* of the run. Later, 500 fresh
# examples are collected. The panels show, by epoch:
#
# 1. the cross-entropy of the training data ($\ln 10 \approx 2.3$ is the loss of guessing);
# 2. that of the validation data (solid), of the *same* validation data measured once more (dashed;
#    where one line is seen, they agree), and of the fresh examples (dotted).
#
# The title gives the median distance from a validation example to its nearest training example, as
# a share of the same distance for a fresh example. Write
#
# - `diagnosis()`: a dictionary from the runs `"A"` … `"F"` to **one** word each; two of the words
#   are not needed: `"healthy"`; `"duplicates"` (copies of training examples in the validation set:
#   augmented before the split); `"selection"` (the inputs were chosen with the help of the
#   validation answers); `"noisy_labels"` (many training labels are wrong, the validation labels
#   right, and the network learns them by heart); `"too_strong"` (far too much weight decay);
#   `"dropout_on"` (measured without `eval()`); `"other_source"` (the *validation* data come from
#   another source than training and fresh data); `"rate_too_high"`;
# - `too_good(curves)`: by how much a report is too good. `curves` is one run's array `(epochs, 5)`
#   with the columns training, validation, fresh, validation again, distance. Return the fresh loss
#   minus the validation loss at the first epoch with the lowest validation loss (column 1).

# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz
from dlnotes.course import clinic

viz.use_style()
runs = clinic.regularization_runs()

fig, axes = plt.subplots(2, 6, figsize=(12, 5), layout="constrained", sharex=True, sharey=True)
for column, (name, run) in enumerate(runs.items()):
    training, validation, fresh, again, distance = run.T
    epochs = range(1, len(run) + 1)
    axes[0, column].plot(epochs, training)
    axes[1, column].plot(epochs, validation, "-", color=viz.colour(1))
    axes[1, column].plot(epochs, again, "--", color=viz.colour(2), linewidth=1)
    axes[1, column].plot(epochs, fresh, ":", color=viz.colour(5))
    axes[0, column].set_title(f"run {name}, distance {distance[0]:.2f}")
    axes[1, column].set_xlabel("epoch")
axes[0, 0].set(ylabel="training loss", ylim=(0, 3.2))
axes[1, 0].set(ylabel="validation (-, --), fresh (:)")
viz.show(
    fig,
    alt="Six runs A to F by epoch: training loss in the first row; validation loss, measured twice, and "
    "loss of fresh examples in the second. The titles give the distance of validation examples.",
)


# %% tags=["answer", "q10"]
def diagnosis():
    """Return a dictionary from the runs "A" … "F" to one word each."""
    # BEGIN SOLUTION
    return {
        "A": "noisy_labels",
        "B": "duplicates",
        "C": "too_strong",
        "D": "dropout_on",
        "E": "selection",
        "F": "healthy",
    }
    # END SOLUTION


def too_good(curves):
    """Return fresh minus validation loss at the epoch that is reported."""
    # BEGIN SOLUTION
    reported = np.argmin(curves[:, 1])
    return curves[reported, 2] - curves[reported, 1]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q10"]
# **Why.** B: the validation loss follows the training loss to almost nothing, and a validation
# example is eight times as near to a training example as a fresh one is: its neighbour *is* it,
# with a little noise. E: the training loss falls, the validation loss falls a little, and fresh
# examples only get worse from the start, to more than the loss of guessing: there is nothing to
# learn, and what the validation loss gained is what the choice of the inputs took from its answers.
# The distance is as it should be, so they are no copies. D: the same data give two different
# losses; something is random that should not be. A: validation and fresh loss agree, so nothing
# leaks; both stop falling after ten epochs, at a high level, while the training loss, above them
# until then, goes on falling: wrong labels are hard to learn, and learning them by heart helps
# nobody. Stop early. C: all losses stay near that of guessing and agree. F: small, steady gaps.
# Another source in the validation set would show as a validation loss that is *above* the fresh
# one, by a lot and from the start.

# %% tags=["test"]
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


@test("q10", 1, hidden=True, hint="what do fresh examples say in E, from the first epoch on?")
def run_e(s):
    assert word(s, "E") != "noisy_labels", (
        "E: validation and fresh loss disagree; wrong training labels would harm both alike"
    )
    assert word(s, "E") != "duplicates", "E: the distance is 1.02: these are no copies"
    assert word(s, "E") != "other_source", (
        "E: the validation loss is *better* than the fresh one: it knows something"
    )
    assert word(s, "E") == "selection", "E: nothing is learnt that fresh examples confirm"


@test("q10", 0.5, hidden=True, hint="in A validation and fresh loss agree: is there a leak at all?")
def run_a(s):
    assert word(s, "A") not in ("duplicates", "selection"), (
        "A: validation and fresh loss agree, so nothing leaks"
    )
    assert word(s, "A") == "noisy_labels", (
        "A: for a while the training loss is *above* the validation loss: why?"
    )


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


# %% tags=["wrong", "q10"]
# expect: B: look at the distance
def diagnosis():
    return {
        "A": "noisy_labels",
        "B": "selection",
        "C": "too_strong",
        "D": "dropout_on",
        "E": "duplicates",
        "F": "healthy",
    }


def too_good(curves):
    reported = np.argmin(curves[:, 1])
    return curves[reported, 2] - curves[reported, 1]


# %% tags=["wrong", "q10"]
# expect: B: a validation loss of almost nothing
def diagnosis():
    return {
        "A": "noisy_labels",
        "B": "healthy",
        "C": "too_strong",
        "D": "dropout_on",
        "E": "selection",
        "F": "noisy_labels",
    }


def too_good(curves):
    reported = np.argmin(curves[:, 1])
    return curves[reported, 2] - curves[reported, 1]


# %% tags=["wrong", "q10"]
# expect: E: validation and fresh loss disagree
def diagnosis():
    return {
        "A": "selection",
        "B": "duplicates",
        "C": "too_strong",
        "D": "dropout_on",
        "E": "noisy_labels",
        "F": "healthy",
    }


def too_good(curves):
    reported = np.argmin(curves[:, 1])
    return curves[reported, 2] - curves[reported, 1]


# %% tags=["wrong", "q10"]
# expect: D: the training loss falls well
def diagnosis():
    return {
        "A": "noisy_labels",
        "B": "duplicates",
        "C": "too_strong",
        "D": "rate_too_high",
        "E": "selection",
        "F": "healthy",
    }


def too_good(curves):
    reported = np.argmin(curves[:, 1])
    return curves[reported, 2] - curves[reported, 1]


# %% tags=["wrong", "q10"]
# expect: nobody could choose by it
def diagnosis():
    return {
        "A": "noisy_labels",
        "B": "duplicates",
        "C": "too_strong",
        "D": "dropout_on",
        "E": "selection",
        "F": "healthy",
    }


def too_good(curves):
    return curves[:, 2].min() - curves[:, 1].min()


# %% [markdown] tags=["q11", "outcome-3", "outcome-6"]
# ## Question 11 · A regression that regularizes itself (open challenge)
#
# Write `fit(X, y)`: `X` has the shape `(n, d)`, often with $d > n$ or $d = n$; `y` has the shape
# `(n,)`; $n \ge 30$. Return weights `(d,)`, no offset is needed. Nothing is known: how many weights
# count, how strong the noise is, how the columns are scaled (they have mean zero, up to chance).
# The checks draw data from a known truth and measure the expected error of your weights on new
# data, as a share of the error of answering 0:
#
# | problem | target |
# |---|---|
# | sparse: $n = 60$, $d = 100$, five weights count | 0.15 |
# | dense: $n = 100$, $d = 100$ (the peak of double descent), all weights count, noise | 0.80 |
# | nothing: $y$ is pure noise | at most 1.3 |
# | easy: $n = 200$, $d = 5$ | 0.02 |
#
# Each is the mean over three draws. No one penalty is right for all; questions 2 to 4 have all that
# is needed. Ten seconds in all are allowed.


# %% tags=["answer", "q11"]
def fit(X, y):
    """Return the weights (d,) of a linear model that chooses its own penalty."""
    # BEGIN SOLUTION
    n, d = X.shape
    scale = X.std(axis=0) + 1e-12
    Z = X / scale

    def ridges(A, t, strengths):
        u, s, vt = np.linalg.svd(A, full_matrices=False)
        return [vt.T @ (s / (s**2 + len(t) * lam) * (u.T @ t)) for lam in strengths]

    def lassos(A, t, strengths):
        gram, moment = A.T @ A / len(t), A.T @ t / len(t)
        w, found = np.zeros(d), []
        for lam in strengths:  # from strong to weak, each from the solution before
            gradient = gram @ w - moment
            for _ in range(30):
                moved = 0.0
                for j in range(d):
                    z = gram[j, j] * w[j] - gradient[j]
                    new = np.sign(z) * max(abs(z) - lam, 0.0) / (gram[j, j] + 1e-12)
                    if new != w[j]:
                        gradient = gradient + (new - w[j]) * gram[:, j]
                        moved, w[j] = max(moved, abs(new - w[j])), new
                if moved < 1e-3:
                    break
            found.append(w.copy())
        return found

    folds = np.random.default_rng(0).permutation(n) % 5
    top = np.max(np.abs(Z.T @ y)) / n
    best = (np.mean(y**2), np.zeros(d))
    for method, strengths in (
        (lassos, top * np.geomspace(1, 0.01, 10)),
        (ridges, np.geomspace(30, 1e-3, 15)),
    ):
        errors = np.zeros(len(strengths))
        for k in range(5):
            seen = folds != k
            for i, w in enumerate(method(Z[seen], y[seen], strengths)):
                errors[i] += np.sum((Z[~seen] @ w - y[~seen]) ** 2) / n
        i = int(np.argmin(errors))
        if errors[i] < best[0]:
            best = errors[i], method(Z, y, strengths)[i]
    return best[1] / scale
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q11"]
# **Why.** Cross-validation chooses between two kinds of penalty, and among their strengths;
# answering 0 competes too, and wins where there is nothing to learn. Columns are brought to one
# scale first, because both penalties would otherwise punish a feature for its units. The lasso's
# path runs from strong to weak penalties, each solution the start of the next; one singular value
# decomposition gives all of ridge's. Choosing by the *training* error would choose no penalty at
# all.


# %% tags=["test"]
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


@test(
    "q11",
    1,
    hidden=True,
    hint="where nothing can be learnt, zero is the best answer: let it compete",
)
def nothing(s):
    shares(s, "nothing", 50, 80, 0, 1.0, 1.3)


@test("q11", 1, hidden=True, hint="another draw: more noise, other sizes")
def another(s):
    shares(s, "sparse, n = 40", 40, 120, 3, 0.2, 0.2)


# %% tags=["wrong", "q11"]
# expect: sparse: the error is
def fit(X, y):
    n, d = X.shape
    scale = X.std(axis=0) + 1e-12
    Z = X / scale

    def ridges(A, t, strengths):
        u, s, vt = np.linalg.svd(A, full_matrices=False)
        return [vt.T @ (s / (s**2 + len(t) * lam) * (u.T @ t)) for lam in strengths]

    def lassos(A, t, strengths):
        gram, moment = A.T @ A / len(t), A.T @ t / len(t)
        w, found = np.zeros(d), []
        for lam in strengths:  # from strong to weak, each from the solution before
            gradient = gram @ w - moment
            for _ in range(30):
                moved = 0.0
                for j in range(d):
                    z = gram[j, j] * w[j] - gradient[j]
                    new = np.sign(z) * max(abs(z) - lam, 0.0) / (gram[j, j] + 1e-12)
                    if new != w[j]:
                        gradient = gradient + (new - w[j]) * gram[:, j]
                        moved, w[j] = max(moved, abs(new - w[j])), new
                if moved < 1e-3:
                    break
            found.append(w.copy())
        return found

    return ridges(Z, y, [0.1])[0] / scale
    folds = np.random.default_rng(0).permutation(n) % 5
    top = np.max(np.abs(Z.T @ y)) / n
    best = (np.mean(y**2), np.zeros(d))
    for method, strengths in (
        (lassos, top * np.geomspace(1, 0.01, 10)),
        (ridges, np.geomspace(30, 1e-3, 15)),
    ):
        errors = np.zeros(len(strengths))
        for k in range(5):
            seen = folds != k
            for i, w in enumerate(method(Z[seen], y[seen], strengths)):
                errors[i] += np.sum((Z[~seen] @ w - y[~seen]) ** 2) / n
        i = int(np.argmin(errors))
        if errors[i] < best[0]:
            best = errors[i], method(Z, y, strengths)[i]
    return best[1] / scale


# %% tags=["wrong", "q11"]
# expect: dense: the error is
def fit(X, y):
    return np.linalg.pinv(X) @ y
    n, d = X.shape
    scale = X.std(axis=0) + 1e-12
    Z = X / scale

    def ridges(A, t, strengths):
        u, s, vt = np.linalg.svd(A, full_matrices=False)
        return [vt.T @ (s / (s**2 + len(t) * lam) * (u.T @ t)) for lam in strengths]

    def lassos(A, t, strengths):
        gram, moment = A.T @ A / len(t), A.T @ t / len(t)
        w, found = np.zeros(d), []
        for lam in strengths:  # from strong to weak, each from the solution before
            gradient = gram @ w - moment
            for _ in range(30):
                moved = 0.0
                for j in range(d):
                    z = gram[j, j] * w[j] - gradient[j]
                    new = np.sign(z) * max(abs(z) - lam, 0.0) / (gram[j, j] + 1e-12)
                    if new != w[j]:
                        gradient = gradient + (new - w[j]) * gram[:, j]
                        moved, w[j] = max(moved, abs(new - w[j])), new
                if moved < 1e-3:
                    break
            found.append(w.copy())
        return found

    folds = np.random.default_rng(0).permutation(n) % 5
    top = np.max(np.abs(Z.T @ y)) / n
    best = (np.mean(y**2), np.zeros(d))
    for method, strengths in (
        (lassos, top * np.geomspace(1, 0.01, 10)),
        (ridges, np.geomspace(30, 1e-3, 15)),
    ):
        errors = np.zeros(len(strengths))
        for k in range(5):
            seen = folds != k
            for i, w in enumerate(method(Z[seen], y[seen], strengths)):
                errors[i] += np.sum((Z[~seen] @ w - y[~seen]) ** 2) / n
        i = int(np.argmin(errors))
        if errors[i] < best[0]:
            best = errors[i], method(Z, y, strengths)[i]
    return best[1] / scale


# %% tags=["wrong", "q11"]
# expect: easy: the error is
def fit(X, y):
    n, d = X.shape
    scale = X.std(axis=0) + 1e-12
    Z = X / scale

    def ridges(A, t, strengths):
        u, s, vt = np.linalg.svd(A, full_matrices=False)
        return [vt.T @ (s / (s**2 + len(t) * lam) * (u.T @ t)) for lam in strengths]

    def lassos(A, t, strengths):
        gram, moment = A.T @ A / len(t), A.T @ t / len(t)
        w, found = np.zeros(d), []
        for lam in strengths:  # from strong to weak, each from the solution before
            gradient = gram @ w - moment
            for _ in range(30):
                moved = 0.0
                for j in range(d):
                    z = gram[j, j] * w[j] - gradient[j]
                    new = np.sign(z) * max(abs(z) - lam, 0.0) / (gram[j, j] + 1e-12)
                    if new != w[j]:
                        gradient = gradient + (new - w[j]) * gram[:, j]
                        moved, w[j] = max(moved, abs(new - w[j])), new
                if moved < 1e-3:
                    break
            found.append(w.copy())
        return found

    return lassos(Z, y, [0.3])[0] / scale
    folds = np.random.default_rng(0).permutation(n) % 5
    top = np.max(np.abs(Z.T @ y)) / n
    best = (np.mean(y**2), np.zeros(d))
    for method, strengths in (
        (lassos, top * np.geomspace(1, 0.01, 10)),
        (ridges, np.geomspace(30, 1e-3, 15)),
    ):
        errors = np.zeros(len(strengths))
        for k in range(5):
            seen = folds != k
            for i, w in enumerate(method(Z[seen], y[seen], strengths)):
                errors[i] += np.sum((Z[~seen] @ w - y[~seen]) ** 2) / n
        i = int(np.argmin(errors))
        if errors[i] < best[0]:
            best = errors[i], method(Z, y, strengths)[i]
    return best[1] / scale


# %% tags=["wrong", "q11"]
# expect: nothing: the error is
def fit(X, y):
    n, d = X.shape
    scale = X.std(axis=0) + 1e-12
    Z = X / scale

    def ridges(A, t, strengths):
        u, s, vt = np.linalg.svd(A, full_matrices=False)
        return [vt.T @ (s / (s**2 + len(t) * lam) * (u.T @ t)) for lam in strengths]

    def lassos(A, t, strengths):
        gram, moment = A.T @ A / len(t), A.T @ t / len(t)
        w, found = np.zeros(d), []
        for lam in strengths:  # from strong to weak, each from the solution before
            gradient = gram @ w - moment
            for _ in range(30):
                moved = 0.0
                for j in range(d):
                    z = gram[j, j] * w[j] - gradient[j]
                    new = np.sign(z) * max(abs(z) - lam, 0.0) / (gram[j, j] + 1e-12)
                    if new != w[j]:
                        gradient = gradient + (new - w[j]) * gram[:, j]
                        moved, w[j] = max(moved, abs(new - w[j])), new
                if moved < 1e-3:
                    break
            found.append(w.copy())
        return found

    folds = np.random.default_rng(0).permutation(n) % 5
    top = np.max(np.abs(Z.T @ y)) / n
    best = (np.mean(y**2), np.zeros(d))
    for method, strengths in (
        (lassos, top * np.geomspace(1, 0.01, 10)),
        (ridges, np.geomspace(30, 1e-3, 15)),
    ):
        errors = np.zeros(len(strengths))
        for _ in range(5):
            seen = folds >= 0
            for i, w in enumerate(method(Z[seen], y[seen], strengths)):
                errors[i] += np.sum((Z @ w - y) ** 2) / n
        i = int(np.argmin(errors))
        if errors[i] < best[0]:
            best = errors[i], method(Z, y, strengths)[i]
    return best[1] / scale
