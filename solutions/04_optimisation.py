# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 4 · Optimisation
#
# Fourteen questions on [chapter 4](../notebooks/04_optimisation.ipynb), from a warm-up to an open
# challenge. Most are short; whoever has time for half of them takes 1, 3, 5, 7, 8, 10 and 13. Write
# your code where a cell says `raise NotImplementedError`, run the cell, then run the check below it: it
# says at once what holds, what does not, and gives a hint. A teacher's grading adds hidden checks on
# other inputs (odd sizes, a single sample, huge values), so read the task closely and make your
# functions right for every input that it allows.
#
# Questions 3, 4, 5 and 11 ask for steps that the chapter's cells make in another form. Write them from the
# formulas given here, with the chapter closed: what is new is the handling around the formula (a first
# step, a missing gradient, the place of an $\epsilon$), and that is where most of the checks look.
#
# Use NumPy and the standard library only. No function may change the arrays that it is given, except in
# question 7, which asks for it. Arrays are float64 unless a question says otherwise; $\alpha$ is the
# learning rate, $g$ the gradient, and squares, roots and quotients of vectors are taken entry by entry.

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

grader = Grader("04_optimisation")


# %% tags=["test"]
import math


def near(actual, expected, rtol=1e-6, atol=1e-12):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · How fast may gradient descent go? (warm-up)
#
# Gradient descent, $w \leftarrow w - \alpha\,\nabla J(w)$, on the bowl $J(w) = \tfrac12w^\top Aw$,
# where $A$, of shape `(d, d)`, is symmetric with positive eigenvalues. Derive how one step changes the
# component of $w$ along an eigenvector of $A$, then write
#
# - `stable_rate(A)`: the rate below which gradient descent converges from every start, and above which
#   it does not;
# - `best_rate(A)`: the rate whose *slowest* component shrinks fastest;
# - `steps_needed(A, lr, tolerance)` for $0 <$ `tolerance` $< 1$: the smallest whole number $t$ such
#   that, whatever the start $w_0$, after $t$ steps $\lVert w_t\rVert \le$ `tolerance`
#   $\lVert w_0\rVert$; and `math.inf` when there is no such $t$.


# %% tags=["answer", "q1"]
def stable_rate(A):
    """Return the largest stable learning rate for the symmetric matrix A, shape (d, d)."""
    # BEGIN SOLUTION
    return 2.0 / np.linalg.eigvalsh(A)[-1]
    # END SOLUTION


def best_rate(A):
    """Return the learning rate whose slowest component shrinks fastest."""
    # BEGIN SOLUTION
    eigenvalues = np.linalg.eigvalsh(A)
    return 2.0 / (eigenvalues[0] + eigenvalues[-1])
    # END SOLUTION


def steps_needed(A, lr, tolerance):
    """Return the number of steps that shrink every start to `tolerance` of its length."""
    # BEGIN SOLUTION
    slowest = np.max(np.abs(1.0 - lr * np.linalg.eigvalsh(A)))
    if slowest >= 1.0:
        return math.inf
    if slowest == 0.0:
        return 1
    return math.ceil(math.log(tolerance) / math.log(slowest))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# **Why.** The gradient is $Aw$, so a step multiplies $w$ by $I - \alpha A$ and its component along the
# eigenvector of $\lambda_i$ by $1 - \alpha\lambda_i$. All components shrink when
# $|1 - \alpha\lambda_i| < 1$ for each $i$, that is $0 < \alpha < 2/\lambda_{\max}$. The slowest factor
# is $\rho = \max(|1-\alpha\lambda_{\min}|, |1-\alpha\lambda_{\max}|)$. As $\alpha$ grows the first
# falls and the second rises; $\rho$ is smallest where both are equal, at
# $\alpha = 2/(\lambda_{\min}+\lambda_{\max})$, and is then $(\kappa-1)/(\kappa+1)$ with the condition
# number $\kappa = \lambda_{\max}/\lambda_{\min}$. From $\rho^t \le$ tolerance follows
# $t \ge \ln(\text{tolerance})/\ln\rho$: the sign turns, since $\ln\rho < 0$. Near $\kappa = 1000$ that
# is about $\tfrac\kappa2\ln(1/\text{tolerance})$ steps: ill-conditioning is slow.


# %% tags=["test"]
def curved(seed, eigenvalues):
    d = len(eigenvalues)
    q = np.linalg.qr(rng(seed).normal(size=(d, d)))[0]
    a = (q * np.asarray(eigenvalues, dtype=float)) @ q.T
    return (a + a.T) / 2, q


@test("q1", 1, hint="the component along an eigenvector is multiplied by 1 - lr * eigenvalue")
def largest_stable_rate(s):
    a, _ = curved(1, [0.3, 1.1, 7.0])
    with unchanged(A=a):
        rate = float(given(s.stable_rate(a), "stable_rate"))
    assert not near(rate, 1 / 7.0), (
        "1 / λ_max is half of it: between 1 / λ_max and 2 / λ_max the steepest component flips its sign in each step but shrinks"
    )
    assert not near(rate, 2 / np.max(np.diag(a))), (
        "you took the diagonal of A: its entries are not its eigenvalues"
    )
    assert not near(rate, 2 / 0.3), "the *largest* eigenvalue limits the rate"
    assert near(rate, 2 / 7.0), f"the eigenvalues are 0.3, 1.1 and 7: got {rate:.5f}"


@test(
    "q1", 1, hint="|1 - lr λ_min| falls with the rate, |1 - lr λ_max| rises: where are they equal?"
)
def rate_of_fastest_convergence(s):
    a, _ = curved(2, [0.4, 2.0, 2.5, 9.0])
    rate = float(given(s.best_rate(a), "best_rate"))
    assert not near(rate, 1 / 9.0), (
        "1 / λ_max finishes the steepest component in one step, but the flattest decides"
    )
    assert near(rate, 2 / 9.4), f"the eigenvalues are 0.4, 2, 2.5 and 9: got {rate:.5f}"


@test("q1", 1, hint="tolerance ≥ ρᵗ, where ρ is the largest |1 - lr λ|; round up")
def predicted_steps(s):
    a, _ = curved(3, [0.5, 1.0, 6.0])
    for lr, what in ((0.1, "small rate"), (0.32, "rate near the limit")):
        t = given(s.steps_needed(a, lr, 1e-3), "steps_needed")
        rho = max(abs(1 - lr * 0.5), abs(1 - lr * 6.0))
        expected = math.ceil(math.log(1e-3) / math.log(rho))
        assert t != math.floor(math.log(1e-3) / math.log(rho)), (
            f"{what}: {t} steps are one too few: round up"
        )
        flat = math.ceil(math.log(1e-3) / math.log(abs(1 - lr * 0.5)))
        assert t == expected or t != flat, (
            f"{what}: you looked at the smallest eigenvalue only, but here the steepest component, which jumps over the minimum, is the slowest"
        )
        assert t == expected, f"{what}, lr = {lr}: got {t}, expected {expected}"


@test("q1", 1, hidden=True, hint="run gradient descent from the worst start and count")
def counted_steps(s):
    eigenvalues = [0.2, 0.9, 1.7, 4.0]
    a, q = curved(4, eigenvalues)
    for lr in (0.05, 0.3, float(given(s.best_rate(a), "best_rate"))):
        w = q[:, int(np.argmax([abs(1 - lr * e) for e in eigenvalues]))]
        taken = 0
        while np.linalg.norm(w) > 1e-4:
            w, taken = w - lr * a @ w, taken + 1
        assert s.steps_needed(a, lr, 1e-4) == taken, (
            f"lr = {lr:.3f}: gradient descent took {taken} steps, you predicted {s.steps_needed(a, lr, 1e-4)}"
        )


@test("q1", 1, hidden=True, hint="no component may grow; one step can be enough")
def never_and_at_once(s):
    a, _ = curved(5, [1.0, 3.0])
    for lr in (0.7, 50.0, -0.1):
        t = s.steps_needed(a, lr, 0.1)
        assert t == math.inf, f"lr = {lr} never gets there, so the answer is math.inf, not {t}"
    t = s.steps_needed(np.array([[4.0]]), 0.25, 1e-6)
    assert t == 1, f"with lr = 1 / λ a single step reaches the minimum, got {t}"


# %% tags=["wrong", "q1"]
# expect: 1 / λ_max is half of it
def stable_rate(A):
    return 1.0 / np.linalg.eigvalsh(A)[-1]


def best_rate(A):
    eigenvalues = np.linalg.eigvalsh(A)
    return 2.0 / (eigenvalues[0] + eigenvalues[-1])


def steps_needed(A, lr, tolerance):
    slowest = np.max(np.abs(1.0 - lr * np.linalg.eigvalsh(A)))
    if slowest >= 1.0:
        return math.inf
    return 1 if slowest == 0 else math.ceil(math.log(tolerance) / math.log(slowest))


# %% tags=["wrong", "q1"]
# expect: you took the diagonal of A
def stable_rate(A):
    return 2.0 / np.max(np.diag(A))


def best_rate(A):
    return 2.0 / (np.min(np.diag(A)) + np.max(np.diag(A)))


def steps_needed(A, lr, tolerance):
    slowest = np.max(np.abs(1.0 - lr * np.diag(A)))
    if slowest >= 1.0:
        return math.inf
    return 1 if slowest == 0 else math.ceil(math.log(tolerance) / math.log(slowest))


# %% tags=["wrong", "q1"]
# expect: you looked at the smallest eigenvalue only
def stable_rate(A):
    return 2.0 / np.linalg.eigvalsh(A)[-1]


def best_rate(A):
    eigenvalues = np.linalg.eigvalsh(A)
    return 2.0 / (eigenvalues[0] + eigenvalues[-1])


def steps_needed(A, lr, tolerance):
    if lr <= 0 or lr >= stable_rate(A):
        return math.inf
    slowest = abs(1.0 - lr * np.linalg.eigvalsh(A)[0])
    return 1 if slowest == 0 else math.ceil(math.log(tolerance) / math.log(slowest))


# %% tags=["wrong", "q1"]
# expect: never gets there
def stable_rate(A):
    return 2.0 / np.linalg.eigvalsh(A)[-1]


def best_rate(A):
    eigenvalues = np.linalg.eigvalsh(A)
    return 2.0 / (eigenvalues[0] + eigenvalues[-1])


def steps_needed(A, lr, tolerance):
    slowest = np.max(np.abs(1.0 - lr * np.linalg.eigvalsh(A)))
    return 1 if slowest == 0 else math.ceil(math.log(tolerance) / math.log(slowest))


# %% tags=["wrong", "q1"]
# expect: the flattest decides
def stable_rate(A):
    return 2.0 / np.linalg.eigvalsh(A)[-1]


def best_rate(A):
    return 1.0 / np.linalg.eigvalsh(A)[-1]


def steps_needed(A, lr, tolerance):
    slowest = np.max(np.abs(1.0 - lr * np.linalg.eigvalsh(A)))
    if slowest >= 1.0:
        return math.inf
    return 1 if slowest == 0 else math.ceil(math.log(tolerance) / math.log(slowest))


# %% [markdown] tags=["q2", "outcome-1"]
# ## Question 2 · Saddle points and the noise of a mini-batch
#
# Write
#
# - `point_kind(gradient, hessian, tolerance=1e-8)`, shapes `(d,)` and `(d, d)`: `"slope"` where the
#   length of the gradient exceeds the tolerance; else, with the eigenvalues of the Hessian, `"minimum"`
#   where all are above `tolerance`, `"maximum"` where all are below `-tolerance`, `"saddle"` where some
#   are above `tolerance` *and* some below `-tolerance`, and `"undecided"` in all other cases;
# - `batch_noise(gradients, batch_size)`: row $i$ of `gradients`, shape `(n, d)`, is the gradient $g_i$
#   of sample $i$, and $\bar{g}$ the mean of all rows. A mini-batch holds `batch_size` *different*
#   samples (in section 4.3 one could be drawn twice), every choice of them equally likely. Return
#   $\mathbb E\,\lVert g_B - \bar{g}\rVert^2$ exactly (no random numbers), where $g_B$ is the mean over
#   the mini-batch. The chapter's $\operatorname{tr}\Sigma/B$ needs a correction here. (Hint: write the
#   square as a double sum over the members of the batch. Two *different* samples drawn have deviations
#   $g_i - \bar{g}$ that are slightly opposed, since all $n$ deviations sum to 0: what is the mean of their
#   inner product?);
# - `noise_floor(curvature, variance, lr)`: in one dimension, $J(w) = \tfrac12\lambda w^2$ with
#   $\lambda$ = `curvature` > 0, SGD steps $w \leftarrow w - \alpha(\lambda w + \xi)$ with independent
#   noise $\xi$ of mean 0 and variance `variance`. Return the limit of the expected loss
#   $\mathbb E\,J(w_t)$ for $t\to\infty$ with $\alpha$ = `lr` > 0; `math.inf` where
#   $\alpha \ge 2/\lambda$.


# %% tags=["answer", "q2"]
def point_kind(gradient, hessian, tolerance=1e-8):
    """Return "slope", "minimum", "maximum", "saddle" or "undecided"."""
    # BEGIN SOLUTION
    if np.linalg.norm(gradient) > tolerance:
        return "slope"
    eigenvalues = np.linalg.eigvalsh(hessian)
    up, down = eigenvalues > tolerance, eigenvalues < -tolerance
    if up.all():
        return "minimum"
    if down.all():
        return "maximum"
    return "saddle" if up.any() and down.any() else "undecided"
    # END SOLUTION


def batch_noise(gradients, batch_size):
    """Return the expected squared distance of a mini-batch's gradient from the mean of all."""
    # BEGIN SOLUTION
    n = len(gradients)
    if n == 1:
        return 0.0
    spread = np.mean(np.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1))
    return spread / batch_size * (n - batch_size) / (n - 1)
    # END SOLUTION


def noise_floor(curvature, variance, lr):
    """Return the expected loss at which SGD with a constant rate stays."""
    # BEGIN SOLUTION
    if lr * curvature >= 2.0:
        return math.inf
    return lr * variance / (2.0 * (2.0 - lr * curvature))
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** At a point without slope the Hessian decides: curvature of both signs is a saddle, and with
# many parameters curvatures of one sign only are rare. The determinant tells a saddle only in two
# dimensions.
#
# With $\sigma^2 = \frac1n\sum_i\lVert g_i-\bar{g}\rVert^2$, independent draws would give $\sigma^2/B$
# for a batch of $B$. Drawing without putting back makes two members of a batch slightly opposed: as all
# deviations together sum to 0, the inner product of two different ones is $-\sigma^2/(n-1)$ on average.
# So the expected square is
# $\frac{1}{B^2}\left(B\sigma^2 - B(B-1)\frac{\sigma^2}{n-1}\right) = \frac{\sigma^2}{B}\cdot\frac{n-B}{n-1}$:
# 0 for the whole data set, as it must be.
#
# For the floor: $\mathbb E\,w_{t+1}^2 = (1-\alpha\lambda)^2\,\mathbb E\,w_t^2 + \alpha^2\sigma^2$. At
# rest both sides hold the same value
# $\alpha^2\sigma^2/(1-(1-\alpha\lambda)^2) = \alpha\sigma^2/(\lambda(2-\alpha\lambda))$; times
# $\lambda/2$ it is the loss. For a small rate that is $\alpha\sigma^2/4$: a tenth of the rate lowers
# the floor to a tenth, which is why rates decay. With $\alpha\lambda\ge2$ the recursion grows without
# end.


# %% tags=["test"]
import itertools


@test("q2", 0.5, hint="look at the signs of all eigenvalues; np.linalg.eigvalsh")
def kinds_of_points(s):
    still = np.zeros(3)
    cases = {
        "minimum": [0.2, 1.0, 5.0],
        "maximum": [-3.0, -1.0, -0.1],
        "saddle": [-2.0, -1.0, 4.0],
    }
    for kind, eigenvalues in cases.items():
        found = given(s.point_kind(still, curved(11, eigenvalues)[0]), "point_kind")
        assert found == kind, f"eigenvalues {eigenvalues}: got {found!r}, expected {kind!r}"
    found = s.point_kind(np.array([0.0, -1e-3, 0.0]), curved(12, [1.0, 2.0, 3.0])[0])
    assert found == "slope", f"the gradient is not 0: got {found!r}, expected 'slope'"


@test(
    "q2",
    0.5,
    hidden=True,
    hint="a curvature of 0 leaves it open, unless both signs occur beside it",
)
def flat_directions(s):
    still = np.full(3, 1e-12)
    cases = {"undecided": [0.0, 1.0, 2.0], "saddle": [-1.0, 0.0, 2.0]}
    for kind, eigenvalues in cases.items():
        found = s.point_kind(still, curved(13, eigenvalues)[0])
        assert found == kind, f"eigenvalues {eigenvalues}: got {found!r}, expected {kind!r}"
    assert s.point_kind(np.zeros(1), np.array([[0.0]])) == "undecided", "a flat line is undecided"
    found = s.point_kind(np.zeros(2), np.array([[-0.5, 0.0], [0.0, 0.1]]), 0.2)
    assert found == "undecided", f"tolerance 0.2, eigenvalues -0.5 and 0.1: got {found!r}"


def enumerated_noise(g, b):
    mean = g.mean(axis=0)
    batches = itertools.combinations(range(len(g)), b)
    return np.mean([np.sum((g[list(batch)].mean(axis=0) - mean) ** 2) for batch in batches])


@test(
    "q2",
    1,
    hint="list all batches of a tiny data set, and compare; the whole data set has no noise",
)
def noise_of_a_batch(s):
    g = rng(14).normal(size=(6, 3)) * 2 + 1
    with unchanged(gradients=g):
        noise = float(given(s.batch_noise(g, 2), "batch_noise"))
    deviations = np.mean(np.sum((g - g.mean(axis=0)) ** 2, axis=1))
    expected = enumerated_noise(g, 2)
    assert not near(noise, deviations / 2), (
        "that is for batches drawn *with* putting back; here the samples of a batch differ, and the batch of all samples has no noise"
    )
    assert not near(noise, np.sqrt(expected)), (
        "you returned the root: the mean *square* is asked for"
    )
    assert not near(noise, expected / 3), (
        "sum the squares over the d entries: it is a squared length"
    )
    assert near(noise, expected), (
        f"n = 6, batches of 2: all 15 batches together give {expected:.5f}, got {noise:.5f}"
    )


@test("q2", 1, hidden=True, hint="n samples, B of them in a batch: σ²/B · (n - B)/(n - 1)")
def noise_of_all_sizes(s):
    g = rng(15).normal(size=(7, 2)) * 100
    for b in range(1, 8):
        noise, expected = float(s.batch_noise(g, b)), enumerated_noise(g, b)
        assert near(noise, expected, atol=1e-6), (
            f"n = 7, batches of {b}: got {noise:.5f}, expected {expected:.5f}"
        )
    noise = float(s.batch_noise(np.array([[3.0, -4.0]]), 1))
    assert noise == 0, f"a single sample: there is one batch and no noise, got {noise}"


@test(
    "q2",
    1,
    hint="E w² is multiplied by (1 - lr λ)², then lr² σ² is added; at rest it does not change",
)
def floor_of_the_loss(s):
    curvature, variance, lr = 1.7, 0.6, 0.5
    floor = float(given(s.noise_floor(curvature, variance, lr), "noise_floor"))
    square = 5.0
    for _ in range(500):
        square = (1 - lr * curvature) ** 2 * square + lr**2 * variance
    expected = curvature * square / 2
    assert not near(floor, square), "that is the limit of E w²; the loss is ½ λ w²"
    assert not near(floor, lr * variance / 4), (
        "that holds for small rates; the exact floor has 2 - lr λ in the denominator"
    )
    assert near(floor, expected), (
        f"λ = 1.7, σ² = 0.6, lr = 0.5: the recursion ends at {expected:.5f}, got {floor:.5f}"
    )


@test("q2", 0.5, hidden=True, hint="from 2/λ on there is no floor: math.inf")
def floor_at_the_limit(s):
    assert near(float(s.noise_floor(0.3, 2.0, 6.5)), 6.5 * 2 / (2 * (2 - 6.5 * 0.3)))
    assert s.noise_floor(2.0, 0.1, 1.5) == math.inf, "lr = 1.5 is above 2/λ = 1: math.inf"
    assert s.noise_floor(4.0, 0.1, 0.5) == math.inf, "lr = 2/λ: the noise adds up for ever"


# %% tags=["wrong", "q2"]
# expect: eigenvalues [-2.0, -1.0, 4.0]: got 'minimum'
def point_kind(gradient, hessian, tolerance=1e-8):
    if np.linalg.norm(gradient) > tolerance:
        return "slope"
    determinant = np.linalg.det(hessian)
    if abs(determinant) <= tolerance:
        return "undecided"
    if determinant < 0 and len(hessian) % 2 == 0:
        return "saddle"
    return "minimum" if determinant > 0 else "maximum"


def batch_noise(gradients, batch_size):
    n = len(gradients)
    spread = np.sum((gradients - gradients.mean(axis=0)) ** 2) / n
    return spread / batch_size * (n - batch_size) / max(n - 1, 1)


def noise_floor(curvature, variance, lr):
    if lr * curvature >= 2.0:
        return math.inf
    return lr * variance / (2.0 * (2.0 - lr * curvature))


# %% tags=["wrong", "q2"]
# expect: the batch of all samples has no noise
def point_kind(gradient, hessian, tolerance=1e-8):
    if np.linalg.norm(gradient) > tolerance:
        return "slope"
    low, high = np.linalg.eigvalsh(hessian)[[0, -1]]
    if low > tolerance:
        return "minimum"
    if high < -tolerance:
        return "maximum"
    return "saddle" if low < -tolerance and high > tolerance else "undecided"


def batch_noise(gradients, batch_size):
    return np.sum((gradients - gradients.mean(axis=0)) ** 2) / len(gradients) / batch_size


def noise_floor(curvature, variance, lr):
    if lr * curvature >= 2.0:
        return math.inf
    return lr * variance / (2.0 * (2.0 - lr * curvature))


# %% tags=["wrong", "q2"]
# expect: that holds for small rates
def point_kind(gradient, hessian, tolerance=1e-8):
    if np.linalg.norm(gradient) > tolerance:
        return "slope"
    low, high = np.linalg.eigvalsh(hessian)[[0, -1]]
    if low > tolerance:
        return "minimum"
    if high < -tolerance:
        return "maximum"
    return "saddle" if low < -tolerance and high > tolerance else "undecided"


def batch_noise(gradients, batch_size):
    n = len(gradients)
    spread = np.sum((gradients - gradients.mean(axis=0)) ** 2) / n
    return spread / batch_size * (n - batch_size) / max(n - 1, 1)


def noise_floor(curvature, variance, lr):
    return lr * variance / 4


# %% tags=["wrong", "q2"]
# expect: eigenvalues [0.0, 1.0, 2.0]: got 'saddle'
def point_kind(gradient, hessian, tolerance=1e-8):
    if np.linalg.norm(gradient) > tolerance:
        return "slope"
    low, high = np.linalg.eigvalsh(hessian)[[0, -1]]
    if low > tolerance:
        return "minimum"
    return "maximum" if high < -tolerance else "saddle"


def batch_noise(gradients, batch_size):
    n = len(gradients)
    spread = np.sum((gradients - gradients.mean(axis=0)) ** 2) / n
    return spread / batch_size * (n - batch_size) / max(n - 1, 1)


def noise_floor(curvature, variance, lr):
    if lr * curvature >= 2.0:
        return math.inf
    return lr * variance / (2.0 * (2.0 - lr * curvature))


# %% [markdown] tags=["q3", "outcome-2"]
# ## Question 3 · SGD with momentum, as PyTorch has it
#
# Write one step,
# `sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)`, with the
# arithmetic of `torch.optim.SGD`. `w` and `g` have any one shape; `v` is the velocity that the last
# step returned, `None` before the first. Return `(w, v)`, the new weights and velocity. In this order:
#
# 1. weight decay: $g \leftarrow g + \lambda w$ with $\lambda$ = `weight_decay`;
# 2. with momentum $\beta > 0$ the velocity is $v = g$ in the first step, and after that
#    $v \leftarrow \beta v + (1-\tau)\,g$ with $\tau$ = `dampening`; then $v$ takes the place of $g$,
#    or, with `nesterov=True`, $g + \beta v$ with the new $v$ does;
# 3. $w \leftarrow w - \alpha\,g$.
#
# With `momentum=0` there is no velocity: skip step 2 and return `None` for it.


# %% tags=["answer", "q3"]
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """Return (weights, velocity) after one step of SGD; v is None before the first step."""
    # BEGIN SOLUTION
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    v = g if v is None else momentum * v + (1.0 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v), v
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# **Why.** The velocity is a sum of all gradients, each $\beta$ times weaker with every step; where they
# agree it grows to $1/(1-\beta)$ times one gradient, where they alternate it cancels. An average with
# weight $1-\beta$ on the gradient is the same path with $\alpha(1-\beta)$ for $\alpha$: another rate,
# not another method. Dampening is that weight, except that torch leaves the *first* gradient whole. The
# rate stands outside the velocity, so that a changed rate acts at once on all of it. Nesterov's form
# takes the velocity one step further, to where the weights are about to be; with the velocity from
# *before* the step, $g + \beta v$ is the plain step again.


# %% tags=["test"]
def sgd_path(steps, w, gradients, rates, momentum=0.0, dampening=0.0, decay=0.0, variant=""):
    """A reference with switches for typical mistakes."""
    v, out = None, []
    for g, lr in zip(gradients[:steps], rates, strict=False):
        g = g if variant == "no decay" else g + decay * w
        if momentum:
            keep = 1 - dampening
            if variant == "averaged":
                keep = 1 - momentum
            if v is None:
                v = keep * g if variant in ("averaged", "dampened first") else g
            else:
                v = momentum * v + keep * g
            u = v
            if variant == "nesterov":
                u = g + momentum * v
            elif variant == "nesterov without gradient":
                u = momentum * v
            w = w - lr * u
        else:
            w = w - lr * g
        out.append((w, v))
    return out


def sgd_problem(seed, shape, steps=4):
    r = rng(seed)
    return r.normal(size=shape), list(r.normal(size=(steps, *shape)) * 3)


def sgd_run(s, w, gradients, rates, **settings):
    v, out = None, []
    for g, lr in zip(gradients, rates, strict=False):
        with unchanged(w=w, g=g):
            w, v = several(s.sgd_step(w, g, v, lr, **settings), "sgd_step", 2)
        same_shape(w, g, "w")
        out.append((w, v))
    return out


def ends_alike(got, expected):
    return near(got[-1][0], expected[-1][0], rtol=1e-9)


@test("q3", 0.5, hint="w - lr * g, with weight_decay * w added to g first")
def plain_and_decayed(s):
    w, gs = sgd_problem(21, (3, 2))
    got, expected = sgd_run(s, w, gs, [0.1] * 4), sgd_path(4, w, gs, [0.1] * 4)
    assert ends_alike(got, expected), "four steps without momentum are wrong"
    assert got[0][1] is None, "without momentum there is no velocity: return None for it"
    got = sgd_run(s, w, gs, [0.1] * 4, weight_decay=0.3)
    shrunk = w - 0.1 * gs[0] - 0.3 * w
    assert not near(got[0][0], shrunk), (
        "weight decay joins the gradient, so the learning rate multiplies it too"
    )
    assert not ends_alike(got, sgd_path(4, w, gs, [0.1] * 4)), "weight_decay has no effect"
    assert ends_alike(got, sgd_path(4, w, gs, [0.1] * 4, decay=0.3)), "weight_decay=0.3 is wrong"


@test("q3", 1, hint="v = momentum * v + g; w = w - lr * v")
def momentum_of_torch(s):
    w, gs = sgd_problem(22, (5,))
    args = (4, w, gs, [0.1] * 4, 0.8)
    got = sgd_run(s, w, gs, [0.1] * 4, momentum=0.8)
    assert not ends_alike(got, sgd_path(4, w, gs, [0.1] * 4)), "momentum has no effect"
    assert not ends_alike(got, sgd_path(*args, variant="averaged")), (
        "torch does not multiply the gradient by (1 - momentum)"
    )
    assert not ends_alike(got, sgd_path(*args, variant="nesterov")), (
        "that is Nesterov's step: without nesterov=True it is w - lr * v"
    )
    assert ends_alike(got, sgd_path(*args)), "four steps with momentum 0.8 are wrong"


@test("q3", 1, hint="nesterov: g + momentum * v, with the velocity of this step")
def nesterov_momentum(s):
    w, gs = sgd_problem(23, (2, 3))
    args = (4, w, gs, [0.05] * 4, 0.9)
    got = sgd_run(s, w, gs, [0.05] * 4, momentum=0.9, nesterov=True)
    assert not ends_alike(got, sgd_path(*args)), (
        "nesterov=True has no effect. With the *old* velocity g + momentum * v is plain momentum: update v first"
    )
    assert not ends_alike(got, sgd_path(*args, variant="nesterov without gradient")), (
        "Nesterov: the gradient itself is missing in g + momentum * v"
    )
    assert ends_alike(got, sgd_path(*args, variant="nesterov")), "four Nesterov steps are wrong"


@test(
    "q3", 1, hidden=True, hint="the first velocity is the gradient itself, whatever the dampening"
)
def dampening(s):
    w, gs = sgd_problem(24, (4,))
    args = (4, w, gs, [0.1] * 4, 0.7, 0.4)
    got = sgd_run(s, w, gs, [0.1] * 4, momentum=0.7, dampening=0.4)
    assert not ends_alike(got, sgd_path(*args, variant="dampened first")), (
        "dampening does not touch the first step: its velocity is the gradient itself"
    )
    assert ends_alike(got, sgd_path(*args)), "dampening=0.4: four steps are wrong"
    got = sgd_run(s, w, gs, [0.1] * 4, dampening=0.4)
    assert ends_alike(got, sgd_path(4, w, gs, [0.1] * 4)), "dampening acts only with momentum"


@test("q3", 1, hidden=True, hint="lr multiplies the velocity when the step is made, not inside it")
def changing_rate(s):
    w, gs = sgd_problem(25, (1, 3))
    rates = [0.5, 0.05, 0.2, 0.01]
    got = sgd_run(s, w, gs, rates, momentum=0.9, weight_decay=0.1)
    assert ends_alike(got, sgd_path(4, w, gs, rates, 0.9, decay=0.1)), (
        "the rate changed from step to step: it belongs outside the velocity"
    )


@test(
    "q3",
    0.5,
    hidden=True,
    hint="v *= … changes the array that was passed: write v = momentum * v + …",
)
def velocity_is_not_changed(s):
    r = rng(26)
    w, g, v = r.normal(size=3), r.normal(size=3), r.normal(size=3)
    with unchanged(w=w, g=g, v=v):
        s.sgd_step(w, g, v, 0.1, momentum=0.9, weight_decay=0.1)


# %% tags=["wrong", "q3"]
# expect: torch does not multiply the gradient by (1 - momentum)
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    v = momentum * (0 if v is None else v) + (1 - momentum) * g
    return w - lr * (g + momentum * v if nesterov else v), v


# %% tags=["wrong", "q3"]
# expect: dampening does not touch the first step
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    v = momentum * (0 if v is None else v) + (1 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v), v


# %% tags=["wrong", "q3"]
# expect: is plain momentum: update v first
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    old = np.zeros_like(g) if v is None else v
    v = g if v is None else momentum * v + (1 - dampening) * g
    return w - lr * (g + momentum * old if nesterov else v), v


# %% tags=["wrong", "q3"]
# expect: so the learning rate multiplies it too
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    if momentum == 0:
        return w - lr * g - weight_decay * w, None
    v = g if v is None else momentum * v + (1 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v) - weight_decay * w, v


# %% tags=["wrong", "q3"]
# expect: it belongs outside the velocity
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    v = lr * g if v is None else momentum * v + lr * (1 - dampening) * g
    return w - (lr * g + momentum * v if nesterov else v), v


# %% tags=["wrong", "q3"]
# expect: changed its input v in place
def sgd_step(w, g, v, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g, None
    if v is None:
        v = g
    else:
        v *= momentum
        v += (1 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v), v


# %% [markdown] tags=["q4", "outcome-2"]
# ## Question 4 · AdaGrad, RMSProp, AdaDelta
#
# Write `adaptive_step(name, w, g, s, d, lr)`, one step of `"adagrad"`, `"rmsprop"` or `"adadelta"`; all
# arrays have one shape, and `s` and `d` are zeros before the first step. Return `(w, s, d)`; only
# AdaDelta uses `d`, the others return it as it came. The constants are torch's defaults:
#
# | name | averages | step |
# |---|---|---|
# | `"adagrad"` | $s \leftarrow s + g^2$ | $w \leftarrow w - \alpha\,g/(\sqrt{s}+10^{-10})$ |
# | `"rmsprop"` | $s \leftarrow 0.99\,s + 0.01\,g^2$ | $w \leftarrow w - \alpha\,g/(\sqrt{s}+10^{-8})$ |
# | `"adadelta"` | $s \leftarrow 0.9\,s + 0.1\,g^2$ | $\Delta = \dfrac{\sqrt{d+10^{-6}}}{\sqrt{s+10^{-6}}}\,g$, $\quad w \leftarrow w - \alpha\,\Delta$, $\quad d \leftarrow 0.9\,d + 0.1\,\Delta^2$ |


# %% tags=["answer", "q4"]
def adaptive_step(name, w, g, s, d, lr):
    """Return (w, s, d) after one step of "adagrad", "rmsprop" or "adadelta"."""
    # BEGIN SOLUTION
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + 1e-10), s, d
    if name == "rmsprop":
        s = 0.99 * s + 0.01 * g**2
        return w - lr * g / (np.sqrt(s) + 1e-8), s, d
    if name == "adadelta":
        s = 0.9 * s + 0.1 * g**2
        delta = np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g
        return w - lr * delta, s, 0.9 * d + 0.1 * delta**2
    raise ValueError(f"unknown method {name!r}")
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q4"]
# **Why.** All three divide each entry by the size of its own past gradients, so that flat directions
# move as far as steep ones. AdaGrad's sum never forgets, and its steps shrink like $1/\sqrt t$;
# RMSProp's average forgets after about $1/0.01 = 100$ steps. AdaDelta multiplies by the typical size of
# its own *earlier* steps, so that a step has the unit of the weights; the step of this moment is not
# known before it is made, hence the old $d$. Where $\epsilon$ stands matters as soon as gradients are
# small: $\sqrt{s+10^{-8}}$ is at least $10^{-4}$, ten thousand times $10^{-8}$. Steady gradients of
# $10^{-6}$ would then move the weights by a hundredth of the rate, not by the rate.


# %% tags=["test"]
def adaptive_reference(name, w, g, s, u, lr, variant=""):
    square = g if variant == "no square" else g * g
    if name == "adagrad":
        s = s + square
        bottom = np.sqrt(s) + 1e-10
        if variant == "no root":
            bottom = s + 1e-10
        if variant == "old s":
            bottom = np.sqrt(s - square) + 1e-10
        return w - lr * g / bottom, s, u
    if name == "rmsprop":
        s = 0.01 * s + 0.99 * square if variant == "swapped" else 0.99 * s + 0.01 * square
        bottom = np.sqrt(s + 1e-8) if variant == "inside" else np.sqrt(s) + 1e-8
        if variant == "no root":
            bottom = s + 1e-8
        return w - lr * g / bottom, s, u
    s = 0.9 * s + 0.1 * square
    if variant == "outside":
        d = (np.sqrt(u) + 1e-6) / (np.sqrt(s) + 1e-6) * g
    else:
        d = np.sqrt(u + 1e-6) / np.sqrt(s + 1e-6) * g
    new = 0.9 * u + 0.1 * (square if variant == "u of gradients" else d * d)
    return (
        w - lr * (np.sqrt(new + 1e-6) / np.sqrt(s + 1e-6) * g if variant == "new u" else d),
        s,
        new,
    )


def adaptive_run(step, name, w, gradients, lr):
    s, u = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        w, s, u = step(name, w, g, s, u, lr)
    return w


def adaptive_got(s, name, w, gradients, lr):
    def step(name, w, g, a, u, lr):
        with unchanged(w=w, g=g, s=a, d=u):
            out = several(s.adaptive_step(name, w, g, a, u, lr), "adaptive_step", 3)
        for value, label in zip(out, "wsd", strict=True):
            same_shape(value, g, label)
        return out

    return adaptive_run(step, name, w, gradients, lr)


def adaptive_wrong(name, w, gradients, lr, variant):
    def step(*args):
        return adaptive_reference(*args, variant=variant)

    with np.errstate(all="ignore"):
        return adaptive_run(step, name, w, gradients, lr)


@test("q4", 1, hint="add the squares up, all of them, then divide by the root of the sum")
def adagrad(s):
    w, gs = sgd_problem(31, (3, 2))
    got = adaptive_got(s, "adagrad", w, gs, 0.1)
    assert not near(got, adaptive_wrong("adagrad", w, gs, 0.1, "no root")), (
        "AdaGrad: divide by the *root* of the sum of squares"
    )
    assert near(got, adaptive_run(adaptive_reference, "adagrad", w, gs, 0.1)), (
        "AdaGrad: four steps are wrong; is the new gradient in the sum before you divide by it?"
    )


@test("q4", 1, hint="the new square has the small weight, 0.01")
def rmsprop(s):
    w, gs = sgd_problem(32, (4,))
    got = adaptive_got(s, "rmsprop", w, gs, 0.01)
    assert not near(got, adaptive_wrong("rmsprop", w, gs, 0.01, "swapped")), (
        "RMSProp: the weights 0.99 and 0.01 are swapped: 0.99 belongs to the past"
    )
    assert not near(got, adaptive_wrong("rmsprop", w, gs, 0.01, "no root")), (
        "RMSProp: divide by the *root* of the average"
    )
    assert near(got, adaptive_run(adaptive_reference, "rmsprop", w, gs, 0.01)), (
        "RMSProp: four steps are wrong"
    )


@test("q4", 1, hint="Δ uses the new s and the old d; then d takes in Δ²")
def adadelta(s):
    w, gs = sgd_problem(33, (2, 2), steps=6)
    got = adaptive_got(s, "adadelta", w, gs, 1.0)
    assert not near(got, adaptive_wrong("adadelta", w, gs, 1.0, "new u"), rtol=1e-7), (
        "AdaDelta: the step uses d as it was *before* this step"
    )
    assert not near(got, adaptive_wrong("adadelta", w, gs, 1.0, "u of gradients"), rtol=1e-7), (
        "AdaDelta: d averages the squares of the steps Δ, not of the gradients"
    )
    assert not near(got, adaptive_wrong("adadelta", w, gs, 1.0, "outside"), rtol=1e-7), (
        "AdaDelta: here both ε stand under the root"
    )
    assert near(got, adaptive_run(adaptive_reference, "adadelta", w, gs, 1.0), rtol=1e-7), (
        "AdaDelta: six steps are wrong"
    )


@test("q4", 1, hidden=True, hint="√s + ε is not √(s + ε): try gradients of 1e-6")
def small_gradients(s):
    w, gs = sgd_problem(34, (1, 5))
    gs = [1e-6 * g for g in gs]
    got = adaptive_got(s, "rmsprop", w, gs, 0.01)
    assert not near(got, adaptive_wrong("rmsprop", w, gs, 0.01, "inside"), rtol=1e-5), (
        "RMSProp: ε stands outside the root"
    )
    for name in ("adagrad", "rmsprop", "adadelta"):
        expected = adaptive_run(adaptive_reference, name, w, gs, 0.5)
        assert near(adaptive_got(s, name, w, gs, 0.5), expected, rtol=1e-9), (
            f"{name} is wrong for gradients of 1e-6"
        )


@test(
    "q4", 0.5, hidden=True, hint="the first step of each from zeros; a gradient of 0 moves nothing"
)
def first_step_and_zero_gradient(s):
    w, g = np.array([2.0, -1.0, 0.5]), np.array([1e4, 0.0, -3.0])
    for name in ("adagrad", "rmsprop", "adadelta"):
        got = adaptive_got(s, name, w, [g], 0.3)
        assert np.isfinite(got).all(), f"{name}: not finite where the gradient is 0"
        assert got[1] == -1.0, f"{name}: a gradient of 0 moves nothing"
        assert near(got, adaptive_run(adaptive_reference, name, w, [g], 0.3)), f"{name}: first step"


# %% tags=["wrong", "q4"]
# expect: RMSProp: ε stands outside the root
def adaptive_step(name, w, g, s, d, lr):
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + 1e-10), s, d
    if name == "rmsprop":
        s = 0.99 * s + 0.01 * g**2
        return w - lr * g / np.sqrt(s + 1e-8), s, d
    s = 0.9 * s + 0.1 * g**2
    delta = np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g
    return w - lr * delta, s, 0.9 * d + 0.1 * delta**2


# %% tags=["wrong", "q4"]
# expect: the weights 0.99 and 0.01 are swapped
def adaptive_step(name, w, g, s, d, lr):
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + 1e-10), s, d
    if name == "rmsprop":
        s = 0.01 * s + 0.99 * g**2
        return w - lr * g / (np.sqrt(s) + 1e-8), s, d
    s = 0.9 * s + 0.1 * g**2
    delta = np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g
    return w - lr * delta, s, 0.9 * d + 0.1 * delta**2


# %% tags=["wrong", "q4"]
# expect: AdaDelta: the step uses d as it was
def adaptive_step(name, w, g, s, d, lr):
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + 1e-10), s, d
    if name == "rmsprop":
        s = 0.99 * s + 0.01 * g**2
        return w - lr * g / (np.sqrt(s) + 1e-8), s, d
    s = 0.9 * s + 0.1 * g**2
    d = 0.9 * d + 0.1 * (np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g) ** 2
    return w - lr * np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g, s, d


# %% tags=["wrong", "q4"]
# expect: d averages the squares of the steps
def adaptive_step(name, w, g, s, d, lr):
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + 1e-10), s, d
    if name == "rmsprop":
        s = 0.99 * s + 0.01 * g**2
        return w - lr * g / (np.sqrt(s) + 1e-8), s, d
    s = 0.9 * s + 0.1 * g**2
    delta = np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g
    return w - lr * delta, s, 0.9 * d + 0.1 * g**2


# %% tags=["wrong", "q4"]
# expect: AdaGrad: divide by the
def adaptive_step(name, w, g, s, d, lr):
    if name == "adagrad":
        s = s + g**2
        return w - lr * g / (s + 1e-10), s, d
    if name == "rmsprop":
        s = 0.99 * s + 0.01 * g**2
        return w - lr * g / (np.sqrt(s) + 1e-8), s, d
    s = 0.9 * s + 0.1 * g**2
    delta = np.sqrt(d + 1e-6) / np.sqrt(s + 1e-6) * g
    return w - lr * delta, s, 0.9 * d + 0.1 * delta**2


# %% [markdown] tags=["q5", "outcome-2"]
# ## Question 5 · Adam and AdamW
#
# Write
# `adam_step(parameters, gradients, states, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False)`,
# one step for a whole list of arrays:
#
# - `gradients[i]` has the shape of `parameters[i]`, or is `None` where the parameter took no part in
#   this step: then the parameter and its state stay as they are;
# - `states[i]` is the tuple `(t, m, s)` of parameter `i`: its *own* number of steps so far, and the two
#   averages; `None` before its first step, when $t = 0$, $m = s = 0$;
# - with $\lambda$ = `weight_decay`: where `decoupled` is false (Adam), $g \leftarrow g + \lambda w$
#   comes first; where it is true (AdamW), $w \leftarrow w - \alpha\lambda w$ does, and the gradient
#   stays as it is;
# - then $t \leftarrow t+1$, $\quad m \leftarrow \beta_1m + (1-\beta_1)\,g$,
#   $\quad s \leftarrow \beta_2s + (1-\beta_2)\,g^2$, $\quad\hat{m} = \dfrac{m}{1-\beta_1^t}$,
#   $\quad\hat{s} = \dfrac{s}{1-\beta_2^t}$,
#   $\quad w \leftarrow w - \alpha\,\dfrac{\hat{m}}{\sqrt{\hat{s}}+\epsilon}$.
#
# Return `(parameters, states)`, two new lists; the states hold $m$ and $s$ without the correction.


# %% tags=["answer", "q5"]
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    """Return (parameters, states) after one step of Adam, or of AdamW where decoupled."""
    new_parameters, new_states = [], []
    # BEGIN SOLUTION
    beta1, beta2 = betas
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, s = (0, 0.0, 0.0) if state is None else state
            if decoupled:
                w = w - lr * weight_decay * w
            else:
                g = g + weight_decay * w
            t, m, s = t + 1, beta1 * m + (1 - beta1) * g, beta2 * s + (1 - beta2) * g**2
            m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
            w, state = w - lr * m_hat / (np.sqrt(s_hat) + eps), (t, m, s)
        new_parameters.append(w)
        new_states.append(state)
    # END SOLUTION
    return new_parameters, new_states


# %% [markdown] tags=["reasoning", "q5"]
# **Why.** An average that starts at 0 holds only the share $1-\beta^t$ of a full one: its weights
# $(1-\beta)\beta^k$, $k = 0,\dots,t-1$, sum to $1-\beta^t$. Divided by it, the first step is
# $\alpha\,g/(|g|+\epsilon)$, of length $\alpha$ in each entry. Without the correction it would be
# $(1-\beta_1)/\sqrt{1-\beta_2} = 0.1/\sqrt{0.001} \approx 3.2$ times that. A parameter that joins later
# (a frozen layer, a rare word's embedding) is at *its* first step then, so each one counts for itself.
# Decay inside the gradient is divided by $\sqrt{\hat s}$ like all the rest, so weights with large
# gradients hardly decay; AdamW takes it out of the quotient, and all weights shrink at one rate.


# %% tags=["test"]
def adam_reference(
    w, gradients, lr, betas=(0.9, 0.999), eps=1e-8, decay=0.0, mode="adam", variant=""
):
    b1, b2 = betas
    t, m, v = 0, 0.0, 0.0
    for g in gradients:
        if g is None:
            t += variant == "shared counter"
            continue
        if mode == "adamw":
            w = w - (1 if variant == "decay without rate" else lr) * decay * w
        else:
            g = g + decay * w
        t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = {"late": t + 1, "early": max(t - 1, 1)}.get(variant, t)
        c1 = 1 if variant in ("no correction", "only v") else 1 - b1**p
        c2 = 1 if variant in ("no correction", "only m") else 1 - b2**p
        if variant == "multiplied":
            c1, c2 = 1 - b1 * p, 1 - b2 * p
        bottom = np.sqrt(v / c2) + eps
        if variant == "inside":
            bottom = np.sqrt(v / c2 + eps)
        if variant == "no root":
            bottom = v / c2 + eps
        w = w - lr * (m / c1) / bottom
    return w


def adam_run(s, parameters, steps, lr, **settings):
    """Run the student's steps; `steps` is a list of lists of gradients."""
    states = [None] * len(parameters)
    for gradients in steps:
        arrays = {f"parameters[{i}]": p for i, p in enumerate(parameters)}
        arrays |= {f"gradients[{i}]": g for i, g in enumerate(gradients) if g is not None}
        for i, state in enumerate(states):
            if state is not None:
                assert len(state) == 3, f"a state is a tuple (t, m, s), got {len(state)} entries"
                for part, label in zip(state[1:], "ms", strict=True):
                    same_shape(part, parameters[i], f"{label} of states[{i}]")
                    arrays[f"{label} of states[{i}]"] = part
        with unchanged(**arrays):
            out = s.adam_step(parameters, gradients, states, lr, **settings)
        old, (parameters, states) = parameters, several(out, "adam_step", 2)
        assert len(parameters) == len(old) == len(states), (
            f"{len(old)} parameters went in, {len(parameters)} parameters and {len(states)} states came out"
        )
        for value, like in zip(parameters, old, strict=True):
            same_shape(value, like, "a parameter")
    return parameters, states


MISTAKES = {
    "no correction": "the bias corrections are missing: m and s start at 0 and must be divided by 1 - βᵗ",
    "only m": "the bias correction of s is missing: 1 - β₂ᵗ",
    "only v": "the bias correction of m is missing: 1 - β₁ᵗ",
    "late": "the step counter is one too high: in a parameter's first step t is 1",
    "early": "the step counter is one too low: in a parameter's first step t is 1, in the second 2",
    "multiplied": "the correction is 1 - β to the power t, not β times t",
    "inside": "ε stands outside the root",
    "no root": "divide by the *root* of s",
}


def adam_verdict(got, w, gradients, lr, what, names=MISTAKES, **settings):
    with np.errstate(all="ignore"):
        for variant in names:
            wrong = adam_reference(w, gradients, lr, variant=variant, **settings)
            assert not near(got, wrong, rtol=1e-8), MISTAKES[variant]
    expected = adam_reference(w, gradients, lr, **settings)
    assert near(got, expected, rtol=1e-8), (
        f"{what}: got {got.ravel()[:3]}, expected {expected.ravel()[:3]}"
    )


@test("q5", 1.5, hint="t = 1 in the first step; m / (1 - β₁ᵗ), s / (1 - β₂ᵗ)")
def four_steps(s):
    w, gs = sgd_problem(41, (3, 2))
    (got,), (state,) = adam_run(s, [w], [[g] for g in gs], 0.05)
    names = [name for name in MISTAKES if name != "inside"]
    adam_verdict(got, w, gs, 0.05, "four steps", names)
    assert state[0] == 4, f"after four steps t is 4, got {state[0]}"


@test(
    "q5",
    1,
    hint="decoupled: shrink w by lr * weight_decay beside the step, leave the gradient alone",
)
def adamw(s):
    w, gs = sgd_problem(42, (4,))
    steps = [[g] for g in gs]
    args = (w, gs, 0.05)
    plain = adam_reference(*args)
    (coupled,), _ = adam_run(s, [w], steps, 0.05, weight_decay=0.4)
    (got,), _ = adam_run(s, [w], steps, 0.05, weight_decay=0.4, decoupled=True)
    assert not near(coupled, plain), "weight_decay has no effect"
    assert near(coupled, adam_reference(*args, decay=0.4)), "Adam with weight_decay is wrong"
    assert not near(got, adam_reference(*args, decay=0.4)), (
        "decoupled=True still adds the decay to the gradient, where Adam rescales it"
    )
    assert not near(
        got, adam_reference(*args, decay=0.4, mode="adamw", variant="decay without rate")
    ), "AdamW: the decay is lr * weight_decay * w; the learning rate is missing"
    assert near(got, adam_reference(*args, decay=0.4, mode="adamw")), "AdamW: four steps are wrong"


@test("q5", 1, hint="the state of a parameter counts the steps of this parameter")
def a_counter_for_each_parameter(s):
    (a, ga), (b, gb) = sgd_problem(43, (2,)), sgd_problem(44, (3, 1))
    steps = [[ga[0], None], [ga[1], gb[0]], [None, gb[1]], [ga[2], gb[2]]]
    first = s.adam_step([a, b], steps[0], [None, None], 0.1)
    assert near(several(first, "adam_step", 2)[0][1], b), (
        "a parameter whose gradient is None must stay as it is"
    )
    assert first[1][1] is None, "a parameter that has not made a step has the state None"
    (got_a, got_b), states = adam_run(s, [a, b], steps, 0.1)
    late = adam_reference(b, [None, *gb[:3]], 0.1, variant="shared counter")
    assert not near(got_b, late), (
        "each parameter counts its own steps: one that joins later starts at t = 1"
    )
    assert near(got_a, adam_reference(a, ga[:3], 0.1)), (
        "a skipped step must leave the state as it is"
    )
    assert near(got_b, adam_reference(b, gb[:3], 0.1)), "the parameter that joined later is wrong"


@test("q5", 1, hidden=True, hint="√ŝ + ε is not √(ŝ + ε): try gradients of 1e-6")
def tiny_gradients(s):
    w, gs = sgd_problem(45, (1, 4))
    gs = [1e-6 * g for g in gs]
    (got,), _ = adam_run(s, [w], [[g] for g in gs], 0.1)
    adam_verdict(got, w, gs, 0.1, "gradients of 1e-6")


@test("q5", 1, hidden=True, hint="use the given betas, eps and weight_decay, not the defaults")
def other_settings(s):
    w, gs = sgd_problem(46, (2, 1, 3), steps=7)
    gs = [1e4 * g for g in gs]
    settings = {"betas": (0.5, 0.8), "eps": 1e-2}
    (got,), states = adam_run(s, [w], [[g] for g in gs], 0.3, **settings)
    adam_verdict(got, w, gs, 0.3, "betas (0.5, 0.8), eps 0.01", ["only m", "only v"], **settings)
    m = 0.0
    for g in gs:
        m = 0.5 * m + 0.5 * g
    assert near(states[0][1], m), "the state must hold m without the correction"
    out = several(s.adam_step([], [], [], 0.1), "adam_step", 2)
    assert list(out[0]) == [] and list(out[1]) == [], "no parameters: two empty lists"


# %% tags=["wrong", "q5"]
# expect: the bias correction of s is missing
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, v = state or (0, 0.0, 0.0)
            g = g if decoupled else g + weight_decay * w
            w = w - lr * weight_decay * w if decoupled else w
            t, m, v = t + 1, betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** t) / (np.sqrt(v) + eps)
            state = (t, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% tags=["wrong", "q5"]
# expect: ε stands outside the root
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, v = state or (0, 0.0, 0.0)
            g = g if decoupled else g + weight_decay * w
            w = w - lr * weight_decay * w if decoupled else w
            t, m, v = t + 1, betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** t) / np.sqrt(v / (1 - betas[1] ** t) + eps)
            state = (t, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% tags=["wrong", "q5"]
# expect: decoupled=True still adds the decay to the gradient
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, v = state or (0, 0.0, 0.0)
            g = g + weight_decay * w
            t, m, v = t + 1, betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
            state = (t, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% tags=["wrong", "q5"]
# expect: each parameter counts its own steps
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    step = 1 + max((state[0] for state in states if state is not None), default=0)
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            _, m, v = state or (0, 0.0, 0.0)
            g = g if decoupled else g + weight_decay * w
            w = w - lr * weight_decay * w if decoupled else w
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** step) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
            state = (step, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% tags=["wrong", "q5"]
# expect: the step counter is one too high
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, v = state or (1, 0.0, 0.0)
            g = g if decoupled else g + weight_decay * w
            w = w - lr * weight_decay * w if decoupled else w
            t, m, v = t + 1, betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
            state = (t, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% tags=["wrong", "q5"]
# expect: the learning rate is missing
def adam_step(
    parameters,
    gradients,
    states,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
):
    new_parameters, new_states = [], []
    for w, g, state in zip(parameters, gradients, states, strict=True):
        if g is not None:
            t, m, v = state or (0, 0.0, 0.0)
            g = g if decoupled else g + weight_decay * w
            w = w - weight_decay * w if decoupled else w
            t, m, v = t + 1, betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            w = w - lr * m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
            state = (t, m, v)
        new_parameters.append(w)
        new_states.append(state)
    return new_parameters, new_states


# %% [markdown] tags=["q6", "outcome-3"]
# ## Question 6 · Learning-rate schedules
#
# Steps (or epochs) $t$ count from 0, and step $t$ is made with the rate of step $t$. Write
#
# - `inverse_time(t, lr, decay)`: $\dfrac{\alpha_0}{1 + d\,t}$, with $\alpha_0$ = `lr` and $d$ =
#   `decay`;
# - `staircase(t, lr, factor, every)`: starts at `lr` and is multiplied by `factor` at once after each
#   `every` steps;
# - `triangle(t, low, high, half_period)`: rises in a straight line from `low` at $t = 0$ to `high` at
#   `half_period`, falls in a straight line back to `low` at 2 `half_period`, and so on for ever;
# - `warmup_cosine(t, lr, warmup, total)`: for $t <$ `warmup` it rises in equal steps,
#   $\alpha_0\,(t+1)/\text{warmup}$; from there it is half a cosine,
#   $\alpha_0\,\tfrac12\left(1+\cos\dfrac{\pi\,(t-\text{warmup})}{\text{total}-\text{warmup}}\right)$,
#   down to 0 at $t$ = `total`, and 0 ever after; `warmup` may be 0, and is less than `total`;
# - `solve(name, lr, lr_end, steps)`: the constant with which a schedule starts at `lr` and has the rate
#   `lr_end` at $t$ = `steps`: for `"inverse_time"` the $d$ above, for `"exponential"` the $\gamma$ of
#   $\alpha_0\,\gamma^t$.


# %% tags=["answer", "q6"]
def inverse_time(t, lr, decay):
    """Return the rate of step t that decays as 1 / (1 + decay * t)."""
    # BEGIN SOLUTION
    return lr / (1.0 + decay * t)
    # END SOLUTION


def staircase(t, lr, factor, every):
    """Return the rate of step t that is multiplied by factor after each `every` steps."""
    # BEGIN SOLUTION
    return lr * factor ** (t // every)
    # END SOLUTION


def triangle(t, low, high, half_period):
    """Return the rate of step t that goes up and down between low and high."""
    # BEGIN SOLUTION
    place = t % (2 * half_period)
    return low + (high - low) * min(place, 2 * half_period - place) / half_period
    # END SOLUTION


def warmup_cosine(t, lr, warmup, total):
    """Return the rate of step t: a linear warm-up, then half a cosine down to 0."""
    # BEGIN SOLUTION
    if t < warmup:
        return lr * (t + 1) / warmup
    if t >= total:
        return 0.0
    return lr * 0.5 * (1.0 + math.cos(math.pi * (t - warmup) / (total - warmup)))
    # END SOLUTION


def solve(name, lr, lr_end, steps):
    """Return the constant of the schedule that goes from lr to lr_end in `steps` steps."""
    # BEGIN SOLUTION
    if name == "inverse_time":
        return (lr / lr_end - 1.0) / steps
    if name == "exponential":
        return (lr_end / lr) ** (1.0 / steps)
    raise ValueError(f"unknown schedule {name!r}")
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** From $\alpha_0 = 0.2$ with $d = 1$ the first formula gives 0.2, 0.1, 0.067, 0.05, 0.04: for
# the second step $0.2/3 = 0.067$, where a table that is often copied has 0.67. The warm-up counts
# $t + 1$, since a step with rate 0 is a step wasted, and the cosine counts from the end of the warm-up,
# so that it starts at the full rate. After `total` the cosine itself would rise again. Solving:
# $\alpha_0/(1+dT) = \alpha_T$ gives $d = (\alpha_0/\alpha_T - 1)/T$, and $\alpha_0\gamma^T = \alpha_T$
# gives $\gamma = (\alpha_T/\alpha_0)^{1/T}$.


# %% tags=["test"]
@test("q6", 1, hint="divide by 1 + decay * t; t // every counts the stairs")
def inverse_time_and_staircase(s):
    got = [float(given(s.inverse_time(t, 0.2, 1.0), "inverse_time")) for t in range(5)]
    assert near(got, [0.2 / (1 + t) for t in range(5)]), (
        f"from 0.2 with decay 1 the rates are 0.2, 0.1, 0.067, 0.05, 0.04; got {np.round(got, 3)}"
    )
    assert near(float(s.inverse_time(7, 0.3, 0.25)), 0.3 / 2.75), "inverse_time: decay 0.25, t = 7"
    got = [float(given(s.staircase(t, 0.8, 0.5, 3), "staircase")) for t in range(8)]
    assert not near(got, [0.8 * 0.5 ** (t / 3) for t in range(8)]), (
        "staircase: that is a smooth decay; the rate stays the same for `every` steps"
    )
    assert not near(got, [0.8 * 0.5 ** ((t + 1) // 3) for t in range(8)]), (
        "staircase: each stair comes one step too early; the first has the steps 0 … every - 1"
    )
    assert near(got, [0.8] * 3 + [0.4] * 3 + [0.2] * 2), f"staircase: got {np.round(got, 3)}"


@test("q6", 1, hint="the warm-up has t + 1; the cosine starts from the end of the warm-up")
def warm_up_and_cosine(s):
    lr, warmup, total = 0.6, 4, 15
    got = [float(given(s.warmup_cosine(t, lr, warmup, total), "warmup_cosine")) for t in range(16)]
    assert not near(got[:4], [lr * t / 4 for t in range(4)]), (
        "the warm-up starts with a rate of 0, a step wasted: it is (t + 1) / warmup"
    )
    assert near(got[:4], [lr * (t + 1) / 4 for t in range(4)]), (
        f"warm-up: got {np.round(got[:4], 3)}"
    )
    early = [lr / 2 * (1 + math.cos(math.pi * t / total)) for t in range(4, 15)]
    assert not near(got[4:15], early), (
        "the cosine counts from the start of training: count from the end of the warm-up, else the rate jumps there"
    )
    late = [lr / 2 * (1 + math.cos(math.pi * (t - 4) / total)) for t in range(4, 15)]
    assert not near(got[4:15], late), (
        "the cosine must reach 0 at `total`: its length is total - warmup"
    )
    right = [lr / 2 * (1 + math.cos(math.pi * (t - 4) / 11)) for t in range(4, 16)]
    assert near(got[4:], right), (
        f"cosine: got {np.round(got[4:], 3)}, expected {np.round(right, 3)}"
    )


@test("q6", 1, hint="t modulo 2 * half_period says where in the cycle t is")
def up_and_down(s):
    got = [float(given(s.triangle(t, 0.1, 0.7, 3), "triangle")) for t in range(13)]
    expected = [0.1, 0.3, 0.5, 0.7, 0.5, 0.3] * 2 + [0.1]
    saw = [0.1 + 0.6 * (t % 3) / 3 for t in range(13)]
    assert not near(got, saw), "triangle: that is a saw; it must come down in a line as it went up"
    assert near(got, expected), (
        f"triangle: got {np.round(got, 3)}, expected {np.round(expected, 3)}"
    )


@test("q6", 1, hint="put t = steps into the formula, and solve for the constant")
def constants(s):
    d = float(given(s.solve("inverse_time", 0.9, 0.02, 30), "solve"))
    assert near(d, (45 - 1) / 30), (
        f"inverse_time: 0.9 / (1 + 30 d) = 0.02 for d = 1.46667, got {d:.5f}"
    )
    gamma = float(s.solve("exponential", 0.9, 0.02, 30))
    assert near(gamma, (0.02 / 0.9) ** (1 / 30)), (
        f"exponential: 0.9 γ³⁰ = 0.02, got γ = {gamma:.5f}"
    )


@test("q6", 1, hidden=True, hint="no warm-up at all; steps after `total`; many periods")
def schedule_edges(s):
    assert near(float(s.warmup_cosine(0, 0.5, 0, 7)), 0.5), (
        "without a warm-up step 0 has the full rate"
    )
    assert near(float(s.warmup_cosine(3, 0.5, 0, 6)), 0.25), "half way down"
    after = [float(s.warmup_cosine(t, 0.5, 2, 9)) for t in (9, 10, 13, 1000)]
    assert near(after, [0.0] * 4), f"after `total` the rate is 0; got {np.round(after, 3)}"
    assert near(float(s.warmup_cosine(0, 0.5, 1, 9)), 0.5), "a warm-up of one step"
    assert near(float(s.staircase(1000, 1.0, 0.9, 7)), 0.9**142), "staircase: step 1000"
    assert near(float(s.triangle(1001, 0.2, 1.2, 25)), 0.24), "triangle: step 1001"
    assert near(float(s.triangle(3, 0.0, 1.0, 1)), 1.0), "triangle: half a period of one step"


# %% tags=["wrong", "q6"]
# expect: the warm-up starts with a rate of 0
def inverse_time(t, lr, decay):
    return lr / (1 + decay * t)


def staircase(t, lr, factor, every):
    return lr * factor ** (t // every)


def triangle(t, low, high, half_period):
    return high - (high - low) * abs(t % (2 * half_period) / half_period - 1)


def warmup_cosine(t, lr, warmup, total):
    if t < warmup:
        return lr * t / warmup
    return lr / 2 * (1 + math.cos(math.pi * min(1, (t - warmup) / (total - warmup))))


def solve(name, lr, lr_end, steps):
    return (lr / lr_end - 1) / steps if name == "inverse_time" else (lr_end / lr) ** (1 / steps)


# %% tags=["wrong", "q6"]
# expect: the cosine counts from the start of training
def inverse_time(t, lr, decay):
    return lr / (1 + decay * t)


def staircase(t, lr, factor, every):
    return lr * factor ** (t // every)


def triangle(t, low, high, half_period):
    return high - (high - low) * abs(t % (2 * half_period) / half_period - 1)


def warmup_cosine(t, lr, warmup, total):
    if t < warmup:
        return lr * (t + 1) / warmup
    return lr / 2 * (1 + math.cos(math.pi * min(1, t / total)))


def solve(name, lr, lr_end, steps):
    return (lr / lr_end - 1) / steps if name == "inverse_time" else (lr_end / lr) ** (1 / steps)


# %% tags=["wrong", "q6"]
# expect: that is a smooth decay
def inverse_time(t, lr, decay):
    return lr / (1 + decay * t)


def staircase(t, lr, factor, every):
    return lr * factor ** (t / every)


def triangle(t, low, high, half_period):
    return high - (high - low) * abs(t % (2 * half_period) / half_period - 1)


def warmup_cosine(t, lr, warmup, total):
    if t < warmup:
        return lr * (t + 1) / warmup
    return lr / 2 * (1 + math.cos(math.pi * min(1, (t - warmup) / (total - warmup))))


def solve(name, lr, lr_end, steps):
    return (lr / lr_end - 1) / steps if name == "inverse_time" else (lr_end / lr) ** (1 / steps)


# %% tags=["wrong", "q6"]
# expect: after `total` the rate is 0
def inverse_time(t, lr, decay):
    return lr / (1 + decay * t)


def staircase(t, lr, factor, every):
    return lr * factor ** (t // every)


def triangle(t, low, high, half_period):
    return high - (high - low) * abs(t % (2 * half_period) / half_period - 1)


def warmup_cosine(t, lr, warmup, total):
    if t < warmup:
        return lr * (t + 1) / warmup
    return lr / 2 * (1 + math.cos(math.pi * (t - warmup) / (total - warmup)))


def solve(name, lr, lr_end, steps):
    return (lr / lr_end - 1) / steps if name == "inverse_time" else (lr_end / lr) ** (1 / steps)


# %% tags=["wrong", "q6"]
# expect: that is a saw
def inverse_time(t, lr, decay):
    return lr / (1 + decay * t)


def staircase(t, lr, factor, every):
    return lr * factor ** (t // every)


def triangle(t, low, high, half_period):
    return low + (high - low) * (t % half_period) / half_period


def warmup_cosine(t, lr, warmup, total):
    if t < warmup:
        return lr * (t + 1) / warmup
    return lr / 2 * (1 + math.cos(math.pi * min(1, (t - warmup) / (total - warmup))))


def solve(name, lr, lr_end, steps):
    return (lr / lr_end - 1) / steps if name == "inverse_time" else (lr_end / lr) ** (1 / steps)


# %% [markdown] tags=["q7", "outcome-3"]
# ## Question 7 · Clip by the global norm
#
# Write `clip_gradients(gradients, max_norm)` for a list of arrays of any shapes, float32 or float64.
# Their *global norm* is the Euclidean norm of all entries of all arrays, taken as one long vector.
# Where it exceeds `max_norm`, multiply all arrays by the same factor, so that the global norm becomes
# `max_norm`; else change nothing. Work *in place*: the caller's arrays change, and keep their dtype.
# Return the norm from before, as a number.
#
# - Entries may be as large as $10^{200}$, whose squares overflow; the norm must still be right (to
#   eight digits for float64, five for float32). By what could you divide all entries before you square
#   them, and put right afterwards?
# - Where an entry is NaN or infinite, raise `ValueError` and change nothing.
# - The list may be empty, an array may have no entries, or be a view of another array (transposed,
#   every second entry); the norm of no entries is 0.


# %% tags=["answer", "q7"]
def clip_gradients(gradients, max_norm):
    """Scale all arrays in place so that their global norm is at most max_norm; return the old norm."""
    # BEGIN SOLUTION
    largest = max((float(np.max(np.abs(g))) for g in gradients if g.size), default=0.0)
    if not all(np.isfinite(g).all() for g in gradients):
        raise ValueError("a gradient is not finite")
    if largest == 0.0:
        return 0.0
    squares = sum(np.sum((g.astype(np.float64) / largest) ** 2) for g in gradients)
    norm = largest * math.sqrt(squares)
    if norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q7"]
# **Why.** One factor for all arrays keeps the direction of the step; clipping each array for itself
# turns it. Dividing by the largest entry before squaring keeps every square at most 1, and the factor
# is taken out again at the end. `g *= factor` changes the array that the caller holds; `g = g * factor`
# makes a new one and gives the *name* `g` to it. A NaN compares false with everything: without the test
# `norm > max_norm` is false, and the NaN walks into the weights.


# %% tags=["test"]
def gradient_list(seed, scale=1.0, dtype=np.float64):
    r = rng(seed)
    shapes = ((3, 2), (5,), (), (1, 2, 2))
    return [np.array(scale * r.normal(size=shape), dtype=dtype) for shape in shapes]


def global_norm(gradients):
    top = max([float(abs(g).max()) for g in gradients if g.size], default=0.0) or 1.0
    return top * math.sqrt(sum(float(np.sum((g.astype(np.float64) / top) ** 2)) for g in gradients))


@test("q7", 1, hint="the root of the sum of *all* squares")
def norm_of_all_arrays(s):
    gs = gradient_list(51)
    norm = given(s.clip_gradients([g.copy() for g in gs], 1e9), "clip_gradients")
    assert np.ndim(norm) == 0, "return one number"
    assert not near(norm, global_norm(gs) ** 2), "the root of the sum of squares is missing"
    assert not near(norm, sum(global_norm([g]) for g in gs)), (
        "you added the norms of the arrays: add their *squares*, then take the root"
    )
    assert not near(norm, sum(np.abs(g).sum() for g in gs)), "that is the sum of absolute values"
    assert near(norm, global_norm(gs)), f"got {norm}, expected {global_norm(gs)}"


@test("q7", 1, hint="one factor, max_norm / norm, for all arrays, with g *= factor")
def clips_in_place(s):
    gs = gradient_list(52, scale=3.0)
    mine, norm = [g.copy() for g in gs], global_norm(gs)
    returned = s.clip_gradients(mine, 0.5)
    assert not all(near(a, b) for a, b in zip(mine, gs, strict=True)), (
        "the caller's arrays did not change: g = g * factor makes a new array"
    )
    each = [g * min(1.0, 0.5 / global_norm([g])) for g in gs]
    assert not all(near(a, b) for a, b in zip(mine, each, strict=True)), (
        "you clipped each array by its own norm, which turns the direction of the step"
    )
    assert all(near(a, g * 0.5 / norm) for a, g in zip(mine, gs, strict=True)), (
        f"the global norm is now {global_norm(mine):.5f}, not 0.5, or the directions changed"
    )
    assert not near(float(returned), 0.5), "return the norm from *before* clipping"
    assert near(float(returned), norm), f"returned {returned}, expected {norm}"


@test("q7", 0.5, hint="gradients below the limit stay as they are")
def small_gradients_stay(s):
    gs = gradient_list(53, scale=0.01)
    mine = [g.copy() for g in gs]
    s.clip_gradients(mine, 5.0)
    assert not near(global_norm(mine), 5.0), (
        "you scaled small gradients *up* to max_norm: the factor is at most 1"
    )
    assert all(np.array_equal(a, b) for a, b in zip(mine, gs, strict=True)), (
        "gradients below the limit must stay exactly as they are"
    )


@test("q7", 1, hint="gradient descent on x⁴ with clipped gradients")
def rescues_a_run(s):
    w, lr, norms = np.array([-3.0, 2.0]), 0.1, []
    for _ in range(60):
        g = 4 * w**3
        norms.append(float(s.clip_gradients([g], 1.0)))
        w = w - lr * g
        assert np.all(np.abs(w) < 10), (
            "the run still explodes: is the gradient that was passed clipped?"
        )
    assert norms[0] > 100, f"the first norm is {4 * math.hypot(27, 8):.1f}, you returned {norms[0]}"
    assert np.linalg.norm(w) < 0.6, f"60 clipped steps end at {w}"


@test("q7", 1, hidden=True, hint="divide by the largest entry before you square")
def huge_entries(s):
    for scale, dtype, digits in ((1e199, np.float64, 1e-8), (1e30, np.float32, 1e-5)):
        gs = gradient_list(54, scale, dtype)
        mine, norm = [g.copy() for g in gs], global_norm(gs)
        with np.errstate(all="ignore"):
            returned = float(s.clip_gradients(mine, 2.0))
        assert math.isfinite(returned), f"entries of {scale:g}: their squares overflow"
        assert near(returned, norm, rtol=digits), (
            f"entries of {scale:g}: the norm is {norm}, got {returned}"
        )
        assert near(global_norm(mine), 2.0, rtol=1e-5), (
            f"entries of {scale:g}: after clipping the norm is {global_norm(mine)}, not 2"
        )
        assert all(g.dtype == dtype for g in mine), "the dtype changed"


@test("q7", 1, hidden=True, hint="np.isfinite, for all arrays, before the first is changed")
def not_finite(s):
    for bad in (np.nan, np.inf, -np.inf):
        gs = gradient_list(55, scale=9.0)
        gs[1][3] = bad
        before = [g.copy() for g in gs]
        with np.errstate(all="ignore"), raises(ValueError, f"an entry that is {bad}"):
            s.clip_gradients(gs, 1.0)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(gs, before, strict=True)), (
            f"an entry is {bad}: raise before you change anything"
        )


@test("q7", 1, hidden=True, hint="no arrays, empty arrays, zeros, views")
def odd_lists(s):
    assert float(s.clip_gradients([], 1.0)) == 0.0, "an empty list has the norm 0"
    assert float(s.clip_gradients([np.zeros((0, 3)), np.zeros(2)], 1.0)) == 0.0, "zeros"
    base = rng(56).normal(size=(4, 6)) * 10
    old = base.copy()
    views = [base[:, ::2].T, np.zeros((2, 0))]
    norm = float(s.clip_gradients(views, 1.0))
    assert near(norm, global_norm([old[:, ::2]])), "a transposed view: the norm is wrong"
    assert near(views[0], (old[:, ::2] / norm).T), "a transposed view was not clipped in place"


# %% tags=["wrong", "q7"]
# expect: you clipped each array by its own norm
def clip_gradients(gradients, max_norm):
    norms = [np.sqrt(np.sum(g**2)) for g in gradients]
    for g, norm in zip(gradients, norms, strict=True):
        if norm > max_norm:
            g *= max_norm / norm
    return np.sqrt(sum(norm**2 for norm in norms))


# %% tags=["wrong", "q7"]
# expect: you added the norms of the arrays
def clip_gradients(gradients, max_norm):
    norm = sum(np.linalg.norm(g) for g in gradients)
    if norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm


# %% tags=["wrong", "q7"]
# expect: the factor is at most 1
def clip_gradients(gradients, max_norm):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    for g in gradients:
        g *= max_norm / norm
    return norm


# %% tags=["wrong", "q7"]
# expect: the caller's arrays did not change
def clip_gradients(gradients, max_norm):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    if norm > max_norm:
        gradients = [g * max_norm / norm for g in gradients]
    return norm


# %% tags=["wrong", "q7"]
# expect: their squares overflow
def clip_gradients(gradients, max_norm):
    if not all(np.isfinite(g).all() for g in gradients):
        raise ValueError("a gradient is not finite")
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    if norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm


# %% tags=["wrong", "q7"]
# expect: expected ValueError for an entry that is nan
def clip_gradients(gradients, max_norm):
    largest = max((np.max(np.abs(g)) for g in gradients if g.size), default=0.0)
    if largest == 0.0:
        return 0.0
    norm = largest * np.sqrt(sum(np.sum((g / largest) ** 2) for g in gradients))
    if norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm


# %% tags=["wrong", "q7"]
# expect: return the norm from
def clip_gradients(gradients, max_norm):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    for g in gradients:
        g *= min(1.0, max_norm / norm)
    return min(norm, max_norm)


# %% [markdown] tags=["q8", "outcome-4"]
# ## Question 8 · Variance through the layers (derivation)
#
# A network of ReLU layers without biases: $z_l = W_lh_{l-1}$, $h_l = \max(0, z_l)$ for $l = 1,\dots,L$,
# with the input $h_0$. $W_l$ has shape $(n_l, n_{l-1})$; its entries are independent, symmetric about
# 0, with standard deviation $s_l$. In the backward pass
# $\mathrm dz_l = \partial J/\partial z_l = (W_{l+1}^\top\mathrm dz_{l+1})\odot\mathbb 1[z_l > 0]$;
# count a unit as on with probability ½, independently of $\mathrm dz_{l+1}$. Derive how the variance
# travels, then write
#
# - `forward_variances(widths, stds, q)`: the list of
#   $\operatorname{Var} z_1,\dots,\operatorname{Var} z_L$ for one entry each, where `widths` is
#   $[n_0,\dots,n_L]$, `stds` $[s_1,\dots,s_L]$, and `q` the mean square $\mathbb E h^2$ of the entries
#   of $h_0$;
# - `backward_variances(widths, stds, q)`: the list of the mean squares of the entries of
#   $\mathrm dz_1,\dots,\mathrm dz_L$, where that of $\mathrm dz_L$ is `q`;
# - `fans(shape)`: `(fan_in, fan_out)` of a weight: for a linear layer its shape is `(out, in)`; for a
#   convolution `(out, in, …)`, and each further axis (the kernel's height, width) multiplies both;
# - `initial_weight(shape, kind, rng)`, drawn with the generator `rng`: `"he_normal"` is normal with
#   variance $2/\text{fan\_in}$, `"xavier_uniform"` is uniform about 0 with variance
#   $2/(\text{fan\_in}+\text{fan\_out})$.


# %% tags=["answer", "q8"]
def forward_variances(widths, stds, q):
    """Return the variances of the pre-activations of layers 1 … L of a ReLU network."""
    # BEGIN SOLUTION
    variances = []
    for fan_in, std in zip(widths[:-1], stds, strict=True):
        variances.append(fan_in * std**2 * q)
        q = variances[-1] / 2
    return variances
    # END SOLUTION


def backward_variances(widths, stds, q):
    """Return the mean squares of the gradients of the pre-activations of layers 1 … L."""
    # BEGIN SOLUTION
    squares = [q]
    for fan_out, std in zip(reversed(widths[2:]), reversed(stds[1:]), strict=True):
        squares.append(fan_out * std**2 * squares[-1] / 2)
    return squares[::-1]
    # END SOLUTION


def fans(shape):
    """Return (fan_in, fan_out) of a weight of shape (out, in, …)."""
    # BEGIN SOLUTION
    receptive_field = math.prod(shape[2:])
    return shape[1] * receptive_field, shape[0] * receptive_field
    # END SOLUTION


def initial_weight(shape, kind, rng):
    """Draw a weight of the given shape: "he_normal" or "xavier_uniform"."""
    fan_in, fan_out = fans(shape)
    # BEGIN SOLUTION
    if kind == "he_normal":
        return rng.normal(scale=math.sqrt(2.0 / fan_in), size=shape)
    if kind == "xavier_uniform":
        bound = math.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, size=shape)
    raise ValueError(f"unknown kind {kind!r}")
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q8"]
# **Why.** $z_l$ is a sum of $n_{l-1}$ uncorrelated terms of mean 0, each of variance
# $s_l^2\,\mathbb E h_{l-1}^2$ (the mean *square* of $h$, which for ReLU outputs is not their variance).
# As $z_l$ is symmetric about 0, ReLU keeps half of its mean square:
# $\mathbb E h_l^2 = \tfrac12\operatorname{Var} z_l$. So each layer multiplies by
# $\tfrac12 n_{l-1}s_l^2$, which is 1 for $s_l^2 = 2/n_{l-1}$: He's initialisation. Backwards an entry
# of $W^\top\mathrm dz$ sums over the $n_{l+1}$ *outputs*, and half of the units pass it on:
# $\tfrac12 n_{l+1}s_{l+1}^2$. Xavier's $2/(n_\text{in}+n_\text{out})$ is the compromise between
# $1/n_\text{in}$ and $1/n_\text{out}$, without the ½ of ReLU: 50 ReLU layers of equal width with it
# shrink the variance by $2^{-50}$. A uniform distribution on $\pm b$ has variance $b^2/3$.


# %% tags=["test"]
WIDTHS, STDS = [7, 12, 5, 9, 3], [0.3, 0.7, 0.2, 0.5]


def through_forwards(widths, stds, q, keep=0.5, fan=0):
    out = []
    for layer, std in enumerate(stds):
        out.append(widths[layer + fan] * std**2 * q)
        q = keep * out[-1]
    return out


def through_backwards(widths, stds, q, keep=0.5, fan=1, shift=0):
    out = [q]
    for layer in range(len(stds) - 1, 0, -1):
        out.insert(0, keep * widths[layer + fan] * stds[layer - shift] ** 2 * out[0])
    return out


@test("q8", 1, hint="Var z = n_in · s² · E h², and ReLU halves the mean square")
def forwards(s):
    got = np.array(given(s.forward_variances(WIDTHS, STDS, 1.7), "forward_variances"), dtype=float)
    assert got.shape == (4,), f"one variance for each of the 4 layers, got {got.shape}"
    assert not near(got, through_forwards(WIDTHS, STDS, 1.7, keep=1)), (
        "forward: the ½ of the ReLU is missing: half of the mean square is lost in each layer"
    )
    assert not near(got, through_forwards(WIDTHS, STDS, 1.7, fan=1)), (
        "forward: an entry of z_l sums over the n_in inputs, not the n_out outputs"
    )
    assert not near(got, np.array(through_forwards(WIDTHS, STDS, 1.7)) / 2), (
        "forward: these are the mean squares of h_l; the variances of z_l, before ReLU, are asked for"
    )
    expected = through_forwards(WIDTHS, STDS, 1.7)
    assert near(got, expected), f"forward: got {np.round(got, 4)}, expected {np.round(expected, 4)}"


@test(
    "q8", 1, hint="(Wᵀ dz) sums over the outputs of the layer above; half of the units pass it on"
)
def backwards(s):
    got = np.array(
        given(s.backward_variances(WIDTHS, STDS, 0.4), "backward_variances"), dtype=float
    )
    assert got.shape == (4,), f"one value for each of the 4 layers, got {got.shape}"
    expected = through_backwards(WIDTHS, STDS, 0.4)
    assert not near(got[::-1], expected), "backward: the list is in the wrong order: layer 1 first"
    assert near(got[-1], 0.4), f"backward: the last layer has {q_text(0.4)}, got {got[-1]}"
    assert not near(got, through_backwards(WIDTHS, STDS, 0.4, keep=1)), (
        "backward: units that are off pass nothing on: the ½ is missing"
    )
    assert not near(got, through_backwards(WIDTHS, STDS, 0.4, fan=0)), (
        "backward: Wᵀ dz sums over the n_out outputs of W, not over its inputs"
    )
    assert not near(got, through_backwards(WIDTHS, STDS, 0.4, shift=1)), (
        "backward: from dz_(l+1) to dz_l the gradient goes through W_(l+1), with s_(l+1)"
    )
    assert near(got, expected), (
        f"backward: got {np.round(got, 4)}, expected {np.round(expected, 4)}"
    )


def q_text(q):
    return f"the given mean square {q}"


@test("q8", 0.5, hint="(out, in, kh, kw): fan_in = in · kh · kw")
def fans_of_shapes(s):
    for shape, expected in (((5, 8), (8, 5)), ((6, 3, 5, 2), (30, 60)), ((4, 7, 3), (21, 12))):
        got = tuple(int(n) for n in several(s.fans(shape), "fans", 2))
        assert got != expected[::-1], (
            f"{shape}: fan_in and fan_out are swapped; axis 1 is the input"
        )
        assert got != (shape[1], shape[0]) or len(shape) == 2, (
            f"{shape}: each output of a convolution sums over the kernel's area too"
        )
        assert got == expected, f"fans({shape}): got {got}, expected {expected}"


def drawn(s, shape, kind, seed):
    weight = array(given(s.initial_weight(shape, kind, rng(seed)), "initial_weight"))
    assert weight.shape == shape, f"the weight has the shape {weight.shape}, not {shape}"
    return weight


@test(
    "q8", 1, hint="scale is the standard deviation; a uniform distribution on ±b has variance b²/3"
)
def drawn_weights(s):
    w = drawn(s, (150, 400), "he_normal", 1)
    ratio = np.var(w) / (2 / 400)
    assert not 0.48 < ratio < 0.52, "he_normal: the variance is 1 / fan_in, half of what ReLU needs"
    assert not 0.9 < np.var(w) / (2 / 150) < 1.1, "he_normal: you used fan_out"
    assert not 0.9 < np.std(w) / (2 / 400) < 1.1, (
        "he_normal: you passed the variance as `scale`, which is the standard deviation"
    )
    assert 0.97 < ratio < 1.03, f"he_normal: the variance is {ratio:.3f} times 2 / fan_in"
    assert abs(w.mean()) < 2e-3, "he_normal: the mean is not 0"
    w = drawn(s, (120, 360), "xavier_uniform", 2)
    ratio = np.var(w) / (2 / 480)
    assert not 0.3 < ratio < 0.37, (
        "xavier_uniform: you took the standard deviation for the bound; it is smaller by √3"
    )
    assert 0.97 < ratio < 1.03, (
        f"xavier_uniform: the variance is {ratio:.3f} times 2 / (fan_in + fan_out)"
    )
    assert np.abs(w).max() < 1.01 * math.sqrt(6 / 480), "xavier_uniform: not a uniform distribution"
    assert abs(w.mean()) < 2e-3, "xavier_uniform: the mean is not 0"


@test("q8", 1, hidden=True, hint="average over many random networks, forwards and backwards")
def measured_variances(s):
    widths, stds, nets = [30, 24, 40, 18], [0.2, 0.25, 0.3], 800
    r = rng(61)
    h, before, weights = r.normal(size=(nets, 30, 1)) + 1, [], []
    for n_in, n_out, std in zip(widths, widths[1:], stds, strict=False):
        weights.append(r.choice([-std, std], size=(nets, n_out, n_in)))
        before.append(weights[-1] @ h)
        h = np.maximum(0, before[-1])
    measured = [np.mean(a**2) for a in before]
    got = np.array(s.forward_variances(widths, stds, 2.0), dtype=float)
    assert near(got, measured, rtol=0.08), (
        f"800 random networks have {np.round(measured, 3)}, you predict {np.round(got, 3)}"
    )
    d = r.normal(size=(nets, 18, 1))
    measured = [np.mean(d**2)]
    for w, a in zip(weights[:0:-1], before[-2::-1], strict=True):
        d = (w.transpose(0, 2, 1) @ d) * (a > 0)
        measured.insert(0, np.mean(d**2))
    got = np.array(s.backward_variances(widths, stds, 1.0), dtype=float)
    assert near(got, measured, rtol=0.08), (
        f"800 random networks have gradients of {np.round(measured, 3)}, you predict {np.round(got, 3)}"
    )


@test(
    "q8",
    1,
    hidden=True,
    hint="He's variance 2 / fan_in keeps the size of the signal, layer after layer",
)
def fifty_layers(s):
    h = rng(62).normal(size=(80, 20))
    for layer in range(50):
        h = np.maximum(0, drawn(s, (80, 80), "he_normal", 100 + layer) @ h)
    size = float(np.mean(h**2))
    assert 1e-4 < size < 1e4, (
        f"after 50 layers of ReLU the mean square has gone from 1 to {size:.2g}"
    )
    predicted = np.array(s.forward_variances([64] * 51, [math.sqrt(2 / 64)] * 50, 1.0), dtype=float)
    assert near(predicted, [2.0] * 50), "equal widths, s² = 2/n: the variance is 2 in every layer"
    w = drawn(s, (64, 16, 3, 3), "he_normal", 3)
    assert 0.95 < np.var(w) * 144 / 2 < 1.05, "a convolution's fan_in counts the kernel's area"
    assert near(np.array(s.backward_variances([4, 6], [0.1], 3.0), dtype=float), [3.0]), "one layer"


# %% tags=["wrong", "q8"]
# expect: the ½ of the ReLU is missing
def forward_variances(widths, stds, q):
    variances = []
    for n, std in zip(widths[:-1], stds, strict=True):
        q = n * std**2 * q
        variances.append(q)
    return variances


def backward_variances(widths, stds, q):
    squares = [q]
    for n, std in zip(widths[:1:-1], stds[:0:-1], strict=True):
        squares.insert(0, n * std**2 * squares[0])
    return squares


def fans(shape):
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def initial_weight(shape, kind, rng):
    fan_in, fan_out = fans(shape)
    if kind == "he_normal":
        return rng.normal(0, math.sqrt(2 / fan_in), shape)
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


# %% tags=["wrong", "q8"]
# expect: Wᵀ dz sums over the n_out outputs of W
def forward_variances(widths, stds, q):
    variances = []
    for n, std in zip(widths[:-1], stds, strict=True):
        variances.append(n * std**2 * q)
        q = variances[-1] / 2
    return variances


def backward_variances(widths, stds, q):
    squares = [q]
    for n, std in zip(widths[-2:0:-1], stds[:0:-1], strict=True):
        squares.insert(0, n * std**2 * squares[0] / 2)
    return squares


def fans(shape):
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def initial_weight(shape, kind, rng):
    fan_in, fan_out = fans(shape)
    if kind == "he_normal":
        return rng.normal(0, math.sqrt(2 / fan_in), shape)
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


# %% tags=["wrong", "q8"]
# expect: each output of a convolution sums over the kernel's area too
def forward_variances(widths, stds, q):
    variances = []
    for n, std in zip(widths[:-1], stds, strict=True):
        variances.append(n * std**2 * q)
        q = variances[-1] / 2
    return variances


def backward_variances(widths, stds, q):
    squares = [q]
    for n, std in zip(widths[:1:-1], stds[:0:-1], strict=True):
        squares.insert(0, n * std**2 * squares[0] / 2)
    return squares


def fans(shape):
    return shape[1], shape[0]


def initial_weight(shape, kind, rng):
    fan_in, fan_out = fans(shape)
    if kind == "he_normal":
        return rng.normal(0, math.sqrt(2 / fan_in), shape)
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


# %% tags=["wrong", "q8"]
# expect: you took the standard deviation for the bound
def forward_variances(widths, stds, q):
    variances = []
    for n, std in zip(widths[:-1], stds, strict=True):
        variances.append(n * std**2 * q)
        q = variances[-1] / 2
    return variances


def backward_variances(widths, stds, q):
    squares = [q]
    for n, std in zip(widths[:1:-1], stds[:0:-1], strict=True):
        squares.insert(0, n * std**2 * squares[0] / 2)
    return squares


def fans(shape):
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def initial_weight(shape, kind, rng):
    fan_in, fan_out = fans(shape)
    if kind == "he_normal":
        return rng.normal(0, math.sqrt(2 / fan_in), shape)
    bound = math.sqrt(2 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


# %% tags=["wrong", "q8"]
# expect: half of what ReLU needs
def forward_variances(widths, stds, q):
    variances = []
    for n, std in zip(widths[:-1], stds, strict=True):
        variances.append(n * std**2 * q)
        q = variances[-1] / 2
    return variances


def backward_variances(widths, stds, q):
    squares = [q]
    for n, std in zip(widths[:1:-1], stds[:0:-1], strict=True):
        squares.insert(0, n * std**2 * squares[0] / 2)
    return squares


def fans(shape):
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def initial_weight(shape, kind, rng):
    fan_in, fan_out = fans(shape)
    if kind == "he_normal":
        return rng.normal(0, math.sqrt(1 / fan_in), shape)
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


# %% [markdown] tags=["q9", "outcome-5"]
# ## Question 9 · Batch normalisation: training and inference
#
# Write `batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5)`, as
# PyTorch has it, for `x` of shape `(n, c)`, or `(n, c, h, w)`, where mean and variance of a channel run
# over samples and places; the four other arrays have shape `(c,)`. Return
# `(y, running_mean, running_var)`, with $y = \gamma\,\dfrac{x - \mu}{\sqrt{\sigma^2+\epsilon}} + \beta$
# in each channel.
#
# - In training, $\mu$ and $\sigma^2$ are mean and *biased* variance (divided by $m$) of this batch's
#   $m$ values of the channel, and $\text{running} \leftarrow (1-p)\,\text{running} + p\,\text{batch}$
#   with $p$ = `momentum` for both running arrays; the running variance takes in the *unbiased* variance
#   of the batch (divided by $m-1$). Where $m = 1$, raise `ValueError`.
# - In inference $\mu$ and $\sigma^2$ are the running ones, which stay as they are.


# %% tags=["answer", "q9"]
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Return (y, running_mean, running_var); x has shape (n, c) or (n, c, h, w)."""
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)  # a channel's number, beside x
    # BEGIN SOLUTION
    mean, var = running_mean, running_var
    if training:
        m = x.size // x.shape[1]
        if m == 1:
            raise ValueError("training needs more than one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * m / (m - 1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    y = gamma.reshape(shape) * x_hat + beta.reshape(shape)
    return y, running_mean, running_var
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** A channel has one mean, whatever the place in the image, because a convolution uses one
# kernel at all places. In training each sample's output depends on the batch it is in; in inference it
# must not, since an answer may not depend on who else asks. In PyTorch `momentum` is the weight of the
# *new* batch; many texts write it the other way round. The batch is divided by its own biased spread,
# so that it comes out with variance 1, while the running variance estimates that of all data, hence
# $m-1$. $\epsilon$ stands under the root: $\sqrt{\sigma^2}+\epsilon$ would divide a constant channel by
# $10^{-5}$ instead of $0.003$.


# %% tags=["test"]
def norm_problem(seed, shape, scale=1.0):
    r = rng(seed)
    c = shape[1]
    x = scale * (r.normal(size=shape) * 2 + 3)
    return x, r.normal(size=c) + 2, r.normal(size=c), r.normal(size=c), r.uniform(0.5, 3, size=c)


def batch_norm_reference(x, gamma, beta, mean, var, eps=1e-5):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    g, b, m, v = (np.asarray(a).reshape(shape) for a in (gamma, beta, mean, var))
    return g * (x - m) / np.sqrt(v + eps) + b


def batch_statistics(x):
    axes = tuple(i for i in range(x.ndim) if i != 1)
    return x.mean(axis=axes), x.var(axis=axes), x.var(axis=axes, ddof=1)


def batch_norm_got(s, x, gamma, beta, mean, var, training, **settings):
    with unchanged(x=x, gamma=gamma, beta=beta, running_mean=mean, running_var=var):
        out = s.batch_norm(x, gamma, beta, mean, var, training, **settings)
    y, new_mean, new_var = several(out, "batch_norm", 3)
    same_shape(y, x, "y")
    same_shape(new_mean, mean, "running_mean")
    same_shape(new_var, var, "running_var")
    return y, new_mean, new_var


@test("q9", 1, hint="normalise with this batch's mean and biased variance, channel by channel")
def training_output(s):
    for shape in ((7, 3), (3, 4, 2, 5)):
        p = norm_problem(71, shape)
        x, gamma, beta, old_mean, old_var = p
        y = batch_norm_got(s, *p, True)[0]
        mean, biased, unbiased = batch_statistics(x)
        assert not near(y, batch_norm_reference(x, gamma, beta, old_mean, old_var)), (
            f"{shape}: training used the running statistics; it must use the batch's own"
        )
        assert not near(y, batch_norm_reference(x, gamma, beta, mean, unbiased)), (
            f"{shape}: the output was divided by the unbiased variance; that belongs into running_var only"
        )
        assert near(y, batch_norm_reference(x, gamma, beta, mean, biased)), (
            f"{shape}: the output in training is wrong; which axes are averaged?"
        )


@test(
    "q9",
    1,
    hint="momentum is the weight of the *new* batch; running_var takes the unbiased variance",
)
def running_statistics(s):
    for shape, rho in (((5, 3), 0.1), ((2, 3, 2, 2), 0.3)):
        p = norm_problem(72, shape)
        x, old_mean, old_var = p[0], p[3], p[4]
        _, got_mean, got_var = batch_norm_got(s, *p, True, momentum=rho)
        mean, biased, unbiased = batch_statistics(x)
        assert not near(got_mean, rho * old_mean + (1 - rho) * mean), (
            f"{shape}: momentum is the weight of the new batch, you gave it to the past"
        )
        assert not near(got_mean, old_mean), f"{shape}: running_mean did not change in training"
        assert near(got_mean, (1 - rho) * old_mean + rho * mean), f"{shape}: running_mean is wrong"
        assert not near(got_var, (1 - rho) * old_var + rho * biased), (
            f"{shape}: running_var took the biased variance; divide by m - 1 there"
        )
        n = len(x)
        assert x.ndim == 2 or not near(got_var, (1 - rho) * old_var + rho * biased * n / (n - 1)), (
            f"{shape}: m counts samples *and* places, not samples alone"
        )
        assert near(got_var, (1 - rho) * old_var + rho * unbiased), f"{shape}: running_var is wrong"


@test("q9", 1, hint="inference: running statistics, and they stay as they are")
def inference(s):
    p = norm_problem(73, (4, 3))
    x, gamma, beta, old_mean, old_var = p
    y, got_mean, got_var = batch_norm_got(s, *p, False)
    mean, biased, _ = batch_statistics(x)
    assert not near(y, batch_norm_reference(x, gamma, beta, mean, biased)), (
        "inference used the batch's statistics: an answer may not depend on the other samples of a batch"
    )
    assert near(y, batch_norm_reference(x, gamma, beta, old_mean, old_var)), "inference is wrong"
    assert near(got_mean, old_mean) and near(got_var, old_var), (
        "inference changed the running statistics"
    )


@test(
    "q9",
    1,
    hidden=True,
    hint="a batch of one: an image has many values a channel, a vector has one",
)
def batches_of_one(s):
    p = norm_problem(74, (1, 3))
    with raises(ValueError, "training with one value a channel"):
        s.batch_norm(*p, True)
    y = batch_norm_got(s, *p, False)[0]
    assert near(y, batch_norm_reference(*p)), "inference on a single sample is wrong"
    p = norm_problem(75, (1, 2, 3, 3))
    mean, biased, _ = batch_statistics(p[0])
    y = batch_norm_got(s, *p, True)[0]
    assert near(y, batch_norm_reference(*p[:3], mean, biased)), "one image of 3×3: m = 9 values"


@test("q9", 1, hidden=True, hint="ε is added to the variance, under the root")
def where_epsilon_stands(s):
    x, gamma, beta, old_mean, old_var = norm_problem(76, (6, 2))
    x[:, 1] = 4.0
    y = batch_norm_got(s, x, gamma, beta, old_mean, old_var, True)[0]
    assert np.isfinite(y).all(), "a constant channel: the output is not finite"
    assert near(y[:, 1], [beta[1]] * 6, atol=1e-6), "a constant channel comes out as beta"
    p = norm_problem(77, (9, 3), scale=1e-3)
    mean, biased, _ = batch_statistics(p[0])
    y = batch_norm_got(s, *p, True)[0]
    outside = p[1] * (p[0] - mean) / (np.sqrt(biased) + 1e-5) + p[2]
    assert not near(y, outside), "ε stands outside the root: it is √(σ² + ε)"
    assert near(y, batch_norm_reference(*p[:3], mean, biased)), "small values: the output is wrong"
    y = batch_norm_got(s, *p, True, eps=0.5)[0]
    assert near(y, batch_norm_reference(*p[:3], mean, biased, 0.5)), "eps=0.5 is not used"


# %% tags=["wrong", "q9"]
# expect: running_var took the biased variance
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: you gave it to the past
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean = momentum * running_mean + (1 - momentum) * mean
        running_var = momentum * running_var + (1 - momentum) * x.var(axis=axes, ddof=1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: inference used the batch's statistics
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = x.mean(axis=axes), x.var(axis=axes)
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * x.var(axis=axes, ddof=1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: training used the running statistics
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        running_mean = (1 - momentum) * running_mean + momentum * x.mean(axis=axes)
        running_var = (1 - momentum) * running_var + momentum * x.var(axis=axes, ddof=1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: ε stands outside the root
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * x.var(axis=axes, ddof=1)
    x_hat = (x - mean.reshape(shape)) / (np.sqrt(var.reshape(shape)) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: places, not samples alone
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        n = len(x)
        if n == 1:
            raise ValueError("one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% tags=["wrong", "q9"]
# expect: changed its input running_mean in place
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    shape = (1, -1) if x.ndim == 2 else (1, -1, 1, 1)
    mean, var = running_mean, running_var
    if training:
        if x.size == x.shape[1]:
            raise ValueError("one value a channel")
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (x.var(axis=axes, ddof=1) - running_var)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), running_mean, running_var


# %% [markdown] tags=["q10", "outcome-5"]
# ## Question 10 · The backward pass of layer normalisation (derivation)
#
# Section 4.13 derives the backward pass of batch normalisation. Derive that of layer normalisation: for
# `x` of shape `(n, c)` with $c\ge2$, in each *row* $\mu = \frac1c\sum_j x_j$,
# $\sigma^2 = \frac1c\sum_j(x_j-\mu)^2$, $\hat x_j = (x_j-\mu)/\sqrt{\sigma^2+\epsilon}$, and
# $y_j = \gamma_j\hat x_j+\beta_j$ with a $\gamma_j$ and a $\beta_j$ for each *column*, shared by all rows.
# Given `dy` of the shape of `x`, the gradient of the loss with respect to $y$, find those with respect to
# $x$, $\gamma$ and $\beta$: mind that $\mu$ and $\sigma^2$ depend on *every* entry of the row, and that
# $\gamma$ is not the same for all of them. Write `layer_norm_backward(dy, x, gamma, eps=1e-5)`, which
# returns `(dx, dgamma, dbeta)` of the shapes `(n, c)`, `(c,)`, `(c,)`. A hidden check compares every entry
# with a numeric gradient.


# %% tags=["answer", "q10"]
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    """Return (dx, dgamma, dbeta) of layer normalisation of the rows of x."""
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    # BEGIN SOLUTION
    dgamma, dbeta = np.sum(dy * x_hat, axis=0), np.sum(dy, axis=0)
    dx_hat = dy * gamma
    slope = np.mean(dx_hat * x_hat, axis=1, keepdims=True)
    dx = (dx_hat - dx_hat.mean(axis=1, keepdims=True) - x_hat * slope) / spread
    return dx, dgamma, dbeta
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q10"]
# **Why.** $\gamma$ and $\beta$ are shared by all rows, so their gradients are sums over the rows. With
# $a_i = \gamma_i\,\partial J/\partial y_i$ and $r = \sqrt{\sigma^2+\epsilon}$ of one row, the derivative
# of $\hat x_i$ has three parts:
#
# $$\frac{\partial\hat x_i}{\partial x_j} = \frac1r\Big(\delta_{ij} - \frac1c\Big) - \frac{x_i-\mu}{r^2}\,\frac{\partial r}{\partial x_j},
# \qquad \frac{\partial r}{\partial x_j} = \frac{1}{2r}\cdot\frac2c(x_j-\mu) = \frac{\hat x_j}{c}.$$
#
# (In $\partial\sigma^2/\partial x_j$ the part through $\mu$ vanishes, since $\sum_i(x_i-\mu) = 0$.)
# Therefore $\partial J/\partial x_j = \frac1r\big(a_j - \bar a - \hat x_j\,\overline{a\hat x}\big)$,
# where the bars are means over the row. It is (4.27) with rows in the place of columns, but for one thing:
# there $\gamma$ was the same for all entries that share a mean and could be taken out of the bars. Here
# it differs from entry to entry and must stay inside. The result is what remains of $a$ when its mean and its
# part along $\hat{x}$ are taken out: shifting or stretching a row changes nothing in the output, so the
# gradient does not point that way.


# %% tags=["test"]
def backward_problem(seed, n, c, scale=1.0):
    r = rng(seed)
    return r.normal(size=(n, c)), scale * r.normal(size=(n, c)) + 1.5, r.normal(size=c) + 2


def backward_reference(dy, x, gamma, eps=1e-5, variant=""):
    c = x.shape[1]
    r = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    xh = (x - x.mean(axis=1, keepdims=True)) / r
    d = dy * (1 if variant in ("no gamma", "gamma outside") else gamma)
    axis = 0 if variant == "over the batch" else 1
    a = d.mean(axis=axis, keepdims=True)
    b = xh * (d * xh).mean(axis=axis, keepdims=True)
    if variant in ("constants", "no mean"):
        a = 0
    if variant in ("constants", "no variance"):
        b = 0
    if variant == "sums":
        a, b = a * c, b * c
    if variant == "unbiased":
        b = b * c / (c - 1)
    dx = (d - a - b) / r * (gamma if variant == "gamma outside" else 1)
    return dx, (dy * xh).sum(axis=0), dy.sum(axis=0)


def backward_got(s, dy, x, gamma, **settings):
    with unchanged(dy=dy, x=x, gamma=gamma):
        out = several(s.layer_norm_backward(dy, x, gamma, **settings), "layer_norm_backward", 3)
    for value, like, name in zip(out, (x, gamma, gamma), ("dx", "dgamma", "dbeta"), strict=True):
        same_shape(value, like, name)
    return out


@test("q10", 1, hint="y = gamma * x_hat + beta, for every row with the same gamma and beta")
def shared_parameters(s):
    p = backward_problem(81, 6, 3)
    _, dgamma, dbeta = backward_got(s, *p)
    _, g, b = backward_reference(*p)
    assert not near(dbeta, p[0].mean(axis=0)), (
        "dbeta is a *sum* over the rows; a mean is already in the gradient of the loss"
    )
    assert not near(dgamma, (p[0] * p[1]).sum(axis=0)), "dgamma belongs to x_hat, not to x"
    assert near(dgamma, g), f"dgamma: got {dgamma}, expected {g}"
    assert near(dbeta, b), f"dbeta: got {dbeta}, expected {b}"


@test("q10", 1.5, hint="three parts: through x itself, through the mean, through the variance")
def gradient_of_the_input(s):
    p = backward_problem(82, 7, 4, scale=3.0)
    dx = backward_got(s, *p)[0]
    mistakes = {
        "constants": "dx: you took mean and variance for constants, but both depend on every x",
        "no variance": "dx: the part through the variance is missing",
        "no mean": "dx: the part through the mean is missing",
        "no gamma": "dx: gamma is missing",
        "gamma outside": "dx: gamma differs within a row: it belongs inside the two means",
        "over the batch": "dx: the two means are taken over the batch, as in batch norm; here the entries of a *row* share mean and variance",
        "sums": "dx: the two corrections are *means* over the row, you took sums",
        "unbiased": "dx: the variance in the forward pass is divided by c, not by c - 1",
    }
    for variant, message in mistakes.items():
        assert not near(dx, backward_reference(*p, variant=variant)[0], atol=1e-9), message
    assert np.allclose(dx.sum(axis=1), 0, atol=1e-9), (
        f"each row of dx must sum to 0 (a shift of a row changes nothing); the sums are {dx.sum(axis=1)}"
    )
    assert near(dx, backward_reference(*p)[0], atol=1e-9), "dx is wrong"


@test("q10", 2, hidden=True, hint="check your own function with (L(x + h) - L(x - h)) / 2h")
def numeric_gradient_of_layer_norm(s):
    dy, x, gamma = backward_problem(83, 5, 3)

    def loss(x, gamma):
        spread = np.sqrt(x.var(axis=1, keepdims=True) + 0.3)
        return float(np.sum(dy * gamma * (x - x.mean(axis=1, keepdims=True)) / spread))

    dx, dgamma, _ = backward_got(s, dy, x, gamma, eps=0.3)
    for name, got, slot in (("dx", dx, 0), ("dgamma", dgamma, 1)):
        for i in np.ndindex(got.shape):
            up, down = [x.copy(), gamma.copy()], [x.copy(), gamma.copy()]
            up[slot][i] += 1e-5
            down[slot][i] -= 1e-5
            numeric = (loss(*up) - loss(*down)) / 2e-5
            assert abs(got[i] - numeric) < 1e-7, (
                f"eps = 0.3: {name}{i} is {got[i]:.6f}, numerically {numeric:.6f}"
            )


@test("q10", 1, hidden=True, hint="one row, two columns, a constant row")
def backward_edges(s):
    p = backward_problem(84, 1, 2)
    assert near(backward_got(s, *p)[0], backward_reference(*p)[0], atol=1e-9), "n = 1, c = 2"
    dy, x, gamma = backward_problem(85, 2, 4, scale=1e4)
    x[0] = -7.0
    got = backward_got(s, dy, x, gamma)[0]
    assert np.isfinite(got).all(), "a constant row: dx is not finite"
    assert near(got, backward_reference(dy, x, gamma)[0], rtol=1e-5, atol=1e-7), (
        "a constant row, and one with values around 1e4"
    )


# %% tags=["wrong", "q10"]
# expect: you took mean and variance for constants
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    return dy * gamma / spread, np.sum(dy * x_hat, axis=0), np.sum(dy, axis=0)


# %% tags=["wrong", "q10"]
# expect: the part through the variance is missing
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    d = dy * gamma
    return (
        (d - d.mean(axis=1, keepdims=True)) / spread,
        np.sum(dy * x_hat, axis=0),
        np.sum(dy, axis=0),
    )


# %% tags=["wrong", "q10"]
# expect: are taken over the batch, as in batch norm
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    d = dy * gamma
    dx = (d - d.mean(axis=0) - x_hat * (d * x_hat).mean(axis=0)) / spread
    return dx, np.sum(dy * x_hat, axis=0), np.sum(dy, axis=0)


# %% tags=["wrong", "q10"]
# expect: it belongs inside the two means
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    dx = (
        gamma
        * (dy - dy.mean(axis=1, keepdims=True) - x_hat * (dy * x_hat).mean(axis=1, keepdims=True))
        / spread
    )
    return dx, np.sum(dy * x_hat, axis=0), np.sum(dy, axis=0)


# %% tags=["wrong", "q10"]
# expect: over the row, you took sums
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    d = dy * gamma
    total = d.sum(axis=1, keepdims=True)
    dx = (d - total - x_hat * (d * x_hat).sum(axis=1, keepdims=True)) / spread
    return dx, np.sum(dy * x_hat, axis=0), np.sum(dy, axis=0)


# %% tags=["wrong", "q10"]
# expect: a mean is already in the gradient of the loss
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    d = dy * gamma
    slope = (d * x_hat).mean(axis=1, keepdims=True)
    dx = (d - d.mean(axis=1, keepdims=True) - x_hat * slope) / spread
    return dx, np.mean(dy * x_hat, axis=0), np.mean(dy, axis=0)


# %% tags=["wrong", "q10"]
# expect: dgamma has the shape
def layer_norm_backward(dy, x, gamma, eps=1e-5):
    spread = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / spread
    d = dy * gamma
    slope = (d * x_hat).mean(axis=1, keepdims=True)
    dx = (d - d.mean(axis=1, keepdims=True) - x_hat * slope) / spread
    return dx, dy * x_hat, dy


# %% [markdown] tags=["q11", "outcome-5"]
# ## Question 11 · Batch, layer, instance and group normalisation
#
# They differ only in the numbers that share a mean and a variance. For `x` of shape `(n, c, h, w)`
# write `normalise(x, kind, groups=1, eps=1e-5)`, which returns $(x-\mu)/\sqrt{\sigma^2+\epsilon}$ with
# the biased variance, where $\mu$ and $\sigma^2$ are taken
#
# - for `"batch"` over each channel of all samples; for `"layer"` over all of one sample;
# - for `"instance"` over each channel of each sample;
# - for `"group"` over each group of channels of each sample: `groups` groups of $c$/`groups`
#   *neighbouring* channels (with $c = 6$ and 3 groups: channels 0, 1; 2, 3; 4, 5); `ValueError` where
#   `groups` does not divide $c$.
#
# Then `which_norm()`: a dictionary from the letters to `"batch"`, `"layer"`, `"instance"` or `"group"`
# (a word may fit twice), the one most in use for
#
# - `"a"`: an image classifier, a convolutional network trained with 256 images a batch;
# - `"b"`: a detector for large images, a convolutional network of which two images fit into memory;
# - `"c"`: a Transformer that writes text, one token after another;
# - `"d"`: style transfer, where the contrast of the single content image shall not count;
# - `"e"`: a recurrent network, inside each time step, on sentences of unequal length.


# %% tags=["answer", "q11"]
def normalise(x, kind, groups=1, eps=1e-5):
    """Normalise x of shape (n, c, h, w) over the numbers that `kind` puts together."""
    # BEGIN SOLUTION
    n, c, h, w = x.shape
    if kind == "group" and c % groups:
        raise ValueError(f"{groups} groups do not divide {c} channels")
    parts = {"batch": c, "layer": 1, "instance": c, "group": groups}[kind]
    split = x.reshape(n, parts, c // parts, h, w)
    axes = (0, 2, 3, 4) if kind == "batch" else (2, 3, 4)
    mean, var = split.mean(axis=axes, keepdims=True), split.var(axis=axes, keepdims=True)
    return ((split - mean) / np.sqrt(var + eps)).reshape(x.shape)
    # END SOLUTION


def which_norm():
    """Return a dictionary from the letters "a" … "e" to the kind of normalisation."""
    # BEGIN SOLUTION
    return {"a": "batch", "b": "group", "c": "layer", "d": "instance", "e": "layer"}
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q11"]
# **Why.** With the channels split into (parts, channels of a part), layer normalisation is one group,
# instance normalisation $c$ groups of one channel, and batch normalisation is the latter with the
# samples put together as well. Batch statistics of many images are good estimates, and cost nothing at
# inference, where they are constants (a). Of two images they are noise; groups do not look at the batch
# (b). A text is written with one sample and any length, and channels stand for features of one token:
# layer normalisation (c), as in a recurrent network, where the statistics of late time steps would come
# from few, long sentences (e). Mean and contrast of each channel of one image are its style: instance
# normalisation takes them out (d). In Transformers, layer normalisation runs over the features of each
# token alone; for images here it takes in all places of the sample, as PyTorch's `GroupNorm(1, c)`
# does.


# %% tags=["test"]
def normalised(x, kind, groups=1, eps=1e-5, ddof=0):
    out = np.empty_like(x)
    n, c = x.shape[:2]
    size = {"batch": 1, "layer": c, "instance": 1, "group": c // groups}[kind]
    for first in range(0, c, size):
        for rows in [slice(None)] if kind == "batch" else [slice(i, i + 1) for i in range(n)]:
            part = x[rows, first : first + size]
            out[rows, first : first + size] = (part - part.mean()) / np.sqrt(
                part.var(ddof=ddof) + eps
            )
    return out


def normalised_got(s, x, *args, **settings):
    with unchanged(x=x):
        y = given(s.normalise(x, *args, **settings), "normalise")
    same_shape(y, x, "the result")
    return y


@test("q11", 1, hint="which of the four axes are averaged? keepdims=True lets the rest stand")
def batch_layer_instance(s):
    x = rng(91).normal(size=(3, 4, 2, 5)) * 3 + np.array([1.0, -4.0, 9.0, 0.0]).reshape(1, 4, 1, 1)
    got = {kind: normalised_got(s, x, kind) for kind in ("batch", "layer", "instance")}
    for kind, y in got.items():
        assert not near(y, normalised(x, kind, ddof=1)), f"{kind}: the variance is the biased one"
    channels = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    assert not near(got["layer"], channels), (
        "layer: you averaged over the channels of each place alone; here all places of a sample belong together"
    )
    for kind, y in got.items():
        for other in ("batch", "layer", "instance"):
            assert other == kind or not near(y, normalised(x, other)), (
                f"{kind}: that is {other} normalisation"
            )
        assert near(y, normalised(x, kind)), f"{kind} normalisation is wrong"


@test("q11", 1, hint="reshape to (n, groups, c // groups, h, w)")
def groups_of_neighbours(s):
    x = rng(92).normal(size=(2, 6, 3, 2)) + np.linspace(-5, 5, 6).reshape(1, 6, 1, 1)
    y = normalised_got(s, x, "group", 3)
    strided = np.empty_like(x)
    for g in range(3):
        strided[:, g::3] = normalised(x[:, g::3], "layer")
    assert not near(y, strided), (
        "group: a group is made of *neighbouring* channels, not every third"
    )
    assert not near(y, normalised(x, "group", 2)), "group: `groups` is their number, not their size"
    assert near(y, normalised(x, "group", 3)), "group: 6 channels in 3 groups are wrong"


@test("q11", 0.5, hint="a: the batch is large; b: the batch is tiny; d: single images")
def choices(s):
    answers = given(s.which_norm(), "which_norm")
    assert answers.get("a") == "batch", "a: 256 images give good statistics"
    assert answers.get("b") != "batch", "b: mean and variance of two images are mostly noise"
    assert answers.get("b") == "group", (
        "b: which kind was made for convolutions with small batches?"
    )
    assert answers.get("d") == "instance", "d: take out each image's contrast, channel by channel"


@test(
    "q11", 1, hidden=True, hint="a batch of one, groups of one channel, groups that do not divide c"
)
def normalise_edges(s):
    x = rng(93).normal(size=(1, 5, 1, 3)) * 1e4
    for kind in ("batch", "layer", "instance"):
        assert near(normalised_got(s, x, kind), normalised(x, kind)), f"{kind}: a batch of one"
    assert near(normalised_got(s, x, "group", 5), normalised(x, "instance")), (
        "5 groups of 5 channels"
    )
    assert near(normalised_got(s, x, "group", 1), normalised(x, "layer")), "one group"
    with raises(ValueError, "2 groups of 5 channels"):
        s.normalise(x, "group", 2)
    x = rng(94).normal(size=(4, 2, 3, 1)) * 1e-3
    got = normalised_got(s, x.transpose(0, 1, 3, 2), "layer", eps=1e-4)
    assert near(got, normalised(x.transpose(0, 1, 3, 2), "layer", eps=1e-4)), "a view; eps = 1e-4"


@test("q11", 0.5, hidden=True, hint="neither other samples nor the length of the text may matter")
def choices_for_text(s):
    answers = s.which_norm()
    for letter in "ce":
        assert answers.get(letter) != "batch", (
            f"{letter}: with sentences of unequal length, a batch has other statistics at each step"
        )
        assert answers.get(letter) == "layer", f"{letter}: one token's features, by themselves"


# %% tags=["wrong", "q11"]
# expect: you averaged over the channels of each place alone
def normalise(x, kind, groups=1, eps=1e-5):
    if kind == "group":
        n, c, h, w = x.shape
        if c % groups:
            raise ValueError("groups must divide the channels")
        x5 = x.reshape(n, groups, -1)
        mean, var = x5.mean(axis=2, keepdims=True), x5.var(axis=2, keepdims=True)
        return ((x5 - mean) / np.sqrt(var + eps)).reshape(x.shape)
    axes = {"batch": (0, 2, 3), "layer": (1,), "instance": (2, 3)}[kind]
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def which_norm():
    return {"a": "batch", "b": "group", "c": "layer", "d": "instance", "e": "layer"}


# %% tags=["wrong", "q11"]
# expect: channels, not every third
def normalise(x, kind, groups=1, eps=1e-5):
    if kind == "group":
        n, c, h, w = x.shape
        if c % groups:
            raise ValueError("groups must divide the channels")
        x5 = x.reshape(n, c // groups, groups, h, w)
        axes = (1, 3, 4)
        mean, var = x5.mean(axis=axes, keepdims=True), x5.var(axis=axes, keepdims=True)
        return ((x5 - mean) / np.sqrt(var + eps)).reshape(x.shape)
    axes = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}[kind]
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def which_norm():
    return {"a": "batch", "b": "group", "c": "layer", "d": "instance", "e": "layer"}


# %% tags=["wrong", "q11"]
# expect: batch: that is layer normalisation
def normalise(x, kind, groups=1, eps=1e-5):
    if kind == "group":
        n, c, h, w = x.shape
        if c % groups:
            raise ValueError("groups must divide the channels")
        x5 = x.reshape(n, groups, -1)
        mean, var = x5.mean(axis=2, keepdims=True), x5.var(axis=2, keepdims=True)
        return ((x5 - mean) / np.sqrt(var + eps)).reshape(x.shape)
    axes = {"batch": (1, 2, 3), "layer": (0, 2, 3), "instance": (2, 3)}[kind]
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def which_norm():
    return {"a": "batch", "b": "group", "c": "layer", "d": "instance", "e": "layer"}


# %% tags=["wrong", "q11"]
# expect: mean and variance of two images are mostly noise
def normalise(x, kind, groups=1, eps=1e-5):
    n, c, h, w = x.shape
    if c % groups:
        raise ValueError("groups must divide the channels")
    parts = {"batch": c, "layer": 1, "instance": c, "group": groups}[kind]
    x5 = x.reshape(n, parts, -1)
    axes = (0, 2) if kind == "batch" else (2,)
    mean, var = x5.mean(axis=axes, keepdims=True), x5.var(axis=axes, keepdims=True)
    return ((x5 - mean) / np.sqrt(var + eps)).reshape(x.shape)


def which_norm():
    return {"a": "batch", "b": "batch", "c": "layer", "d": "instance", "e": "batch"}


# %% [markdown] tags=["q12", "outcome-6"]
# ## Question 12 · A fair comparison (experiment)
#
# `run(name, rate, seed, split)` trains the optimiser called `name` once, with this learning rate and
# seed, and returns its loss on `split`, which is `"val"` or `"test"`; smaller is better, and a run that
# diverged returns NaN or infinity. Write `compare(run, grids, budget, tuning_seeds, test_seeds)`, where
# `grids` is a dictionary from names to lists of rates:
#
# 1. *Equal budgets.* Each optimiser is tuned with exactly the first `budget` rates of its list, each
#    run once with each of the tuning seeds, on `"val"`. Where a list is shorter than that, raise
#    `ValueError` before the first run.
# 2. *Tune on validation data, over seeds.* Choose the rate whose mean validation loss is smallest; a
#    rate of which some run was not finite is not chosen (you may rely on one rate that is fine).
# 3. *Then test.* Only when all optimisers are tuned, run each of them once with each of the test seeds
#    on `"test"`, with its chosen rate.
# 4. Return `(results, winner)`. `results[name]` is `(rate, mean, error)`: the chosen rate, the mean of
#    the $k \ge 2$ test losses and its standard error $s/\sqrt k$ with $s^2$ the unbiased variance
#    (divided by $k-1$). `winner` is the name with the smallest mean, provided that for *each* other
#    optimiser the difference of the means exceeds $3\sqrt{e^2 + e'^2}$, where $e$, $e'$ are the two
#    standard errors; else `None`.
#
# As in section 4.8, three standard errors are asked for. This one knows only the second term of (4.19),
# the seeds: `run` returns one number, so the chance in which pictures are tested, the first term, cannot
# be estimated. A winner here is one on *these* test pictures.
#
# The next cell gives such a `run`, so that you can compare three optimisers on handwritten digits
# afterwards.


# %%
def train_digits(name, rate, seed, split):
    """Train a network of 32 hidden units for 60 steps; return its loss on "val" or "test"."""
    from dlnotes import data, nn, optim, random
    from dlnotes.autograd import Tensor

    digits = data.load("digits")
    x, y = digits.train.x.reshape(-1, 64), digits.train.y
    random.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    loss, parameters = nn.CrossEntropyLoss(), list(net.parameters())
    optimizer = {
        "SGD": lambda: optim.SGD(parameters, lr=rate),
        "momentum": lambda: optim.SGD(parameters, lr=rate, momentum=0.9),
        "Adam": lambda: optim.Adam(parameters, lr=rate),
    }[name]()
    for _ in range(60):
        batch = random.generator().choice(1000, size=50, replace=False)
        optimizer.zero_grad()
        loss(net(Tensor(x[batch])), Tensor(y[batch])).backward()
        optimizer.step()
    if split == "val":
        x, y = x[1000:], y[1000:]
    else:
        x, y = digits.test.x.reshape(-1, 64), digits.test.y
    return loss(net(Tensor(x)), Tensor(y)).item()


# %% tags=["answer", "q12"]
def compare(run, grids, budget, tuning_seeds, test_seeds):
    """Tune all optimisers alike, then test them; return (results, winner)."""
    # BEGIN SOLUTION
    for name, rates in grids.items():
        if len(rates) < budget:
            raise ValueError(f"{name} has {len(rates)} rates, the budget is {budget}")
    chosen = {}
    for name, rates in grids.items():
        means = [
            np.mean([run(name, rate, seed, "val") for seed in tuning_seeds])
            for rate in rates[:budget]
        ]
        means = [mean if np.isfinite(mean) else math.inf for mean in means]
        chosen[name] = rates[int(np.argmin(means))]
    results = {}
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        error = np.std(losses, ddof=1) / math.sqrt(len(losses))
        results[name] = (rate, float(np.mean(losses)), float(error))
    best = min(results, key=lambda name: results[name][1])
    _, mean, error = results[best]
    clear = all(
        other_mean - mean > 3.0 * math.hypot(error, other_error)
        for name, (_, other_mean, other_error) in results.items()
        if name != best
    )
    return results, best if clear else None
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q12"]
# **Why.** The more settings one tries, the better the best of them looks: unequal budgets compare
# patience, not methods. The single luckiest run is luck for the same reason, so the *mean* over seeds
# decides. The test data stay unseen until everything is chosen; a rate chosen on them fits their noise.
# `np.argmin` of a list with a NaN returns the place of the NaN, the diverged run: make it infinite
# first. The standard error says how well the mean is known, and shrinks with $\sqrt k$; the standard
# deviation says how much single runs scatter, and does not. The difference of two independent means has
# the variance $e^2 + e'^2$. Two standard deviations of it are a usual border; with so few seeds and
# several comparisons at once luck passes it too often (section 4.8 tries it), hence three. And look where the chosen rate lies: at an end of
# its list, a longer list might hold a better one, and the comparison is not yet fair.


# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz

viz.use_style()
rate_grids = {"SGD": [0.3, 1.0, 3.0], "momentum": [0.1, 0.3, 1.0], "Adam": [0.01, 0.03, 0.1]}
try:
    results, winner = compare(train_digits, rate_grids, 3, [1, 2], [11, 12, 13, 14, 15])
except NotImplementedError:
    print("Write compare first; this cell then draws what it finds.")
else:
    fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
    for place, (rate, mean, error) in enumerate(results.values()):
        ax.errorbar(place, mean, yerr=error, fmt="o", capsize=6)
        ax.annotate(f"rate {rate}", (place, mean), xytext=(8, 0), textcoords="offset points")
    ax.set_xticks(range(len(results)), list(results))
    ax.set(
        xlim=(-0.5, 2.8),
        xlabel="optimiser",
        ylabel="test loss after 60 steps",
        title=f"clear winner: {winner}",
    )
    viz.show(
        fig,
        alt="Mean test loss of SGD, momentum and Adam on handwritten digits, each with the rate "
        "that tuning chose; the bars are one standard error over five seeds.",
    )


# %% tags=["test"]
class Laboratory:
    """A made-up training whose losses are known; it writes down every run."""

    def __init__(self, table, spread=0.0):
        self.table, self.spread, self.runs, self.early = table, spread, [], ""
        self.tuned_last = None

    def run(self, name, rate, seed, split):
        name, rate, seed, split = str(name), float(rate), int(seed), str(split)
        self.runs.append((name, rate, seed, split))
        val, test = self.table[name][rate]
        noise = self.spread * float(np.sin(12.9898 * seed + 78.233 * rate))
        return (val if split == "val" else test) + noise

    def tuning(self):
        return [r for r in self.runs if r[3] == "val"]

    def testing(self):
        return [r for r in self.runs if r[3] == "test"]


def book_keeping(lab, grids, budget, tuning_seeds, test_seeds):
    """Check what was run, and when, whatever came out of it."""
    assert lab.runs, "run was never called"
    first = next((i for i, r in enumerate(lab.runs) if r[3] == "test"), len(lab.runs))
    chosen = {(r[0], r[1]) for r in lab.testing()}
    assert not any(r[3] == "val" for r in lab.runs[first:]), (
        "the test data were looked at before all tuning was over"
    )
    assert len(chosen) <= len(grids), (
        "the test data were used with several rates of one optimiser: that is tuning on them"
    )
    spent = {name: sum(r[0] == name for r in lab.tuning()) for name in grids}
    full = {name: len(rates) * len(tuning_seeds) for name, rates in grids.items()}
    assert spent != full or len(set(full.values())) == 1, (
        f"unequal budgets: you tried all rates of each list, {spent} runs; the first `budget` rates are allowed"
    )
    for name, rates in grids.items():
        expected = sorted(
            (name, rate, seed, "val") for rate in rates[:budget] for seed in tuning_seeds
        )
        got = sorted(r for r in lab.tuning() if r[0] == name)
        seeds = {r[2] for r in got}
        assert seeds == set(tuning_seeds), (
            f"{name} was tuned with the seeds {sorted(seeds)}, not {sorted(tuning_seeds)}"
        )
        assert got == expected, (
            f"{name}: {len(got)} tuning runs, expected {len(expected)}: the first {budget} rates, each once with each tuning seed"
        )
        tests = sorted(r[2] for r in lab.testing() if r[0] == name)
        assert tests == sorted(test_seeds), (
            f"{name} was tested with the seeds {tests}, not {test_seeds}"
        )


def compared(s, lab, grids, budget, tuning_seeds, test_seeds):
    calls = [list(rates) for rates in grids.values()]
    out = s.compare(lab.run, grids, budget, tuning_seeds, test_seeds)
    results, winner = several(out, "compare", 2)
    assert [list(rates) for rates in grids.values()] == calls, "compare changed the grids"
    assert set(results) == set(grids), f"results has {sorted(results)}, not {sorted(grids)}"
    book_keeping(lab, grids, budget, tuning_seeds, test_seeds)
    return {name: tuple(float(v) for v in value) for name, value in results.items()}, winner


def table_of(seed, grids):
    r = rng(seed)
    return {
        n: {rate: tuple(r.uniform(0.3, 2, size=2)) for rate in rates} for n, rates in grids.items()
    }


@test(
    "q12", 1, hint="rates[:budget], each with each tuning seed on val; then the test seeds on test"
)
def equal_budgets(s):
    grids = {"plain": [0.5, 0.1, 0.02, 0.9], "newest": [3.0, 1.0, 0.3, 0.03, 0.01, 0.003]}
    lab = Laboratory(table_of(101, grids), 0.05)
    compared(s, lab, grids, 3, [4, 9], [21, 22, 23])


@test("q12", 1, hint="the smallest *mean* validation loss over the tuning seeds")
def chosen_rates(s):
    grids = {"a": [1.0, 0.1, 0.01], "b": [2.0, 0.2, 0.02]}
    table = {
        "a": {1.0: (0.9, 0.1), 0.1: (0.5, 0.6), 0.01: (0.7, 0.2)},
        "b": {2.0: (0.4, 0.8), 0.2: (0.6, 0.3), 0.02: (0.8, 0.4)},
    }
    lab = Laboratory(table)
    results, _ = compared(s, lab, grids, 3, [1, 2], [7, 8])
    assert results["a"][0] != 1.0 and results["b"][0] != 0.2, (
        "the rate was chosen by its test loss: choose by the validation loss"
    )
    assert results["a"][0] == 0.1 and results["b"][0] == 2.0, f"chosen: {results}"
    assert near(results["a"][1], 0.6), f"a: the mean *test* loss is 0.6, got {results['a'][1]}"

    def lucky(name, rate, seed, split):
        return {(1.0, 1): 0.1, (1.0, 2): 1.1}.get((float(rate), int(seed)), 0.5)

    results, _ = several(s.compare(lucky, {"a": [1.0, 0.1]}, 2, [1, 2], [3, 4]), "compare", 2)
    assert float(results["a"][0]) == 0.1, (
        "losses 0.1 and 1.1 against 0.5 and 0.5: you took the luckiest run; the mean over the seeds decides"
    )


@test(
    "q12",
    1,
    hint="s / √k with s² divided by k - 1; a difference counts from three standard errors of it on",
)
def error_bars_and_winner(s):
    losses = {
        "a": [0.30, 0.50, 0.40, 0.36],
        "b": [0.51, 0.57, 0.71, 0.65],
        "c": [0.9, 0.8, 1.0, 1.1],
    }

    def run(name, rate, seed, split):
        return losses[str(name)][int(seed) % 4] if str(split) == "test" else 0.5

    grids = {name: [0.1] for name in losses}
    results, winner = several(s.compare(run, grids, 1, [1], [4, 5, 6, 7]), "compare", 2)
    for name, values in losses.items():
        error = float(results[name][2])
        assert not near(error, np.std(values, ddof=1)), (
            "that is the standard deviation of single runs; the standard error of their mean is smaller by √k"
        )
        assert not near(error, np.std(values) / 2), (
            "the variance is the unbiased one: divide by k - 1"
        )
        assert near(error, np.std(values, ddof=1) / 2), f"{name}: error {error:.4f} is wrong"
        assert near(float(results[name][1]), np.mean(values)), f"{name}: the mean is wrong"
    assert winner == "a", f"0.39 ± 0.04 against 0.61 ± 0.04 is a clear win for 'a', got {winner!r}"
    losses["b"] = [0.32, 0.52, 0.42, 0.39]
    _, winner = s.compare(run, grids, 1, [1], [4, 5, 6, 7])
    assert winner is None, f"0.39 ± 0.04 against 0.41 ± 0.04 has no winner, got {winner!r}"
    losses["b"] = [0.44, 0.50, 0.64, 0.58]
    _, winner = s.compare(run, grids, 1, [1], [4, 5, 6, 7])
    assert winner is None, (
        f"0.39 ± 0.04 against 0.54 ± 0.04: the difference is 2.5 standard errors of it, and 3 are asked for; got {winner!r}"
    )


@test("q12", 1, hidden=True, hint="np.argmin finds a NaN first; make what is not finite infinite")
def diverged_runs(s):
    grids = {"a": [9.0, 3.0, 0.5], "b": [0.1, 7.0, 8.0]}
    for bad in (math.nan, math.inf):
        table = {
            "a": {9.0: (bad, 0.0), 3.0: (0.4, 0.4), 0.5: (0.8, 0.8)},
            "b": {0.1: (0.7, 0.7), 7.0: (bad, 0.0), 8.0: (bad, 0.0)},
        }
        results, winner = compared(s, Laboratory(table), grids, 3, [1, 2, 3], [5, 6])
        assert (results["a"][0], results["b"][0]) == (3.0, 0.1), (
            f"a rate whose runs gave {bad} was chosen: {results}"
        )
        assert winner == "a", "0.4 against 0.7 without any spread: 'a' wins"


@test(
    "q12",
    1,
    hidden=True,
    hint="a short list is refused before the first run; one optimiser wins alone",
)
def refusals_and_loners(s):
    grids = {"a": [0.3, 0.2, 0.1], "b": [0.3, 0.2]}
    lab = Laboratory(table_of(102, grids))
    with raises(ValueError, "a list shorter than the budget"):
        s.compare(lab.run, grids, 3, [1], [2, 3])
    assert not lab.runs, "raise before the first run: a training is costly"
    lab = Laboratory({"only": {0.1: (0.5, 0.6)}}, 0.1)
    _, winner = compared(s, lab, {"only": [0.1]}, 1, [1], [2, 3])
    assert winner == "only", "a single optimiser beats all others, as there are none"


# %% tags=["wrong", "q12"]
# expect: the test data were used with several rates of one optimiser
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    results = {}
    for name, rates in grids.items():
        losses = {
            rate: [run(name, rate, seed, "test") for seed in test_seeds] for rate in rates[:budget]
        }
        rate = min(losses, key=lambda rate: np.mean(losses[rate]))
        error = np.std(losses[rate], ddof=1) / np.sqrt(len(test_seeds))
        results[name] = (rate, np.mean(losses[rate]), error)
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 3 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% tags=["wrong", "q12"]
# expect: unequal budgets
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        means = [np.mean([run(name, rate, seed, "val") for seed in tuning_seeds]) for rate in rates]
        chosen[name] = rates[int(np.nanargmin(means))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses)))
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 3 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% tags=["wrong", "q12"]
# expect: you took the luckiest run
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        best = [
            min(run(name, rate, seed, "val") for seed in tuning_seeds) for rate in rates[:budget]
        ]
        chosen[name] = rates[int(np.nanargmin(best))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses)))
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 3 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% tags=["wrong", "q12"]
# expect: a rate whose runs gave nan was chosen
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        means = [
            np.mean([run(name, rate, seed, "val") for seed in tuning_seeds])
            for rate in rates[:budget]
        ]
        chosen[name] = rates[int(np.argmin(means))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses)))
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 3 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% tags=["wrong", "q12"]
# expect: the standard error of their mean is smaller by √k
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        means = [
            np.mean([run(name, rate, seed, "val") for seed in tuning_seeds])
            for rate in rates[:budget]
        ]
        chosen[name] = rates[int(np.argmin(np.where(np.isfinite(means), means, np.inf)))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1))
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 3 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% tags=["wrong", "q12"]
# expect: has no winner, got 'a'
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        means = [
            np.mean([run(name, rate, seed, "val") for seed in tuning_seeds])
            for rate in rates[:budget]
        ]
        chosen[name] = rates[int(np.argmin(np.where(np.isfinite(means), means, np.inf)))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses)))
    return results, min(results, key=lambda name: results[name][1])


# %% tags=["wrong", "q12"]
# expect: the difference is 2.5 standard errors of it
def compare(run, grids, budget, tuning_seeds, test_seeds):
    if min(len(rates) for rates in grids.values()) < budget:
        raise ValueError("too few rates")
    chosen, results = {}, {}
    for name, rates in grids.items():
        means = [
            np.mean([run(name, rate, seed, "val") for seed in tuning_seeds])
            for rate in rates[:budget]
        ]
        chosen[name] = rates[int(np.argmin(np.where(np.isfinite(means), means, np.inf)))]
    for name, rate in chosen.items():
        losses = [run(name, rate, seed, "test") for seed in test_seeds]
        results[name] = (rate, np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses)))
    best = min(results, key=lambda name: results[name][1])
    clear = all(
        r[1] - results[best][1] > 2 * np.hypot(r[2], results[best][2])
        for name, r in results.items()
        if name != best
    )
    return results, best if clear else None


# %% [markdown] tags=["q13", "outcome-6", "outcome-1", "outcome-3"]
# ## Question 13 · What is wrong with these training runs? (bug clinic)
#
# The next cell trains ReLU networks on 1 000 images of handwritten digits, seven times. Runs B, D and F
# are Adam with $\beta_1 = 0.9$, $\beta_2 = 0.999$ and batch normalisation, the others SGD without; six
# have something wrong. The rows of panels show, by step:
#
# 1. the cross-entropy of the training data ($\ln 10 \approx 2.3$ is the loss of guessing);
# 2. that of 200 validation images put through the network all at once (solid), and of the same images
#    in batches of five, sorted by class (dashed); where only one line is to be seen, they agree;
# 3. the norm of the gradient of the first layer's weights; where the line leaves the panel downwards,
#    it is 0;
# 4. the largest entry of the step, divided by the learning rate.
#
# Write `diagnosis()`: a dictionary from the runs `"A"` … `"G"` to **one** word each; two of the words
# are not needed.
#
# - `"healthy"`;
# - `"rate_too_high"`: the learning rate is far above the stable one;
# - `"noise_floor"`: mini-batches of two images and a constant rate: the noise holds the loss up;
# - `"no_clipping"`: one broken batch had a huge gradient, and no clipping stopped it;
# - `"small_init"`: the initial weights are far too small for that many layers;
# - `"no_bias_correction"`: Adam without the division by $1-\beta^t$, in both averages;
# - `"training_mode"`: batch normalisation is evaluated in training mode;
# - `"overfitting"`: the network learns the training data by heart, and the validation loss rises;
# - `"no_zero_grad"`: the gradients of all steps are added up.
#
# And write `equal_steps(t, beta1, beta2)`: in Adam without the two corrections, by which factor is step
# $t = 1, 2, \dots$ too long, if the gradient is the same in all steps (and $\epsilon$ of no account)? For
# $t = 1$ it holds for *any* gradient, and you can read off one panel whether it is right.

# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz
from dlnotes.course import clinic

viz.use_style()
runs = clinic.optimisation_runs()

rows = {
    "training loss": (0.005, 20),
    "validation loss": (0.005, 20),
    "gradient norm": (1e-6, 1e3),
    "largest step / rate": (-0.3, 8),
}
for names in ("ABCD", "EFG"):
    fig, axes = plt.subplots(
        4, 4, figsize=(6.4, 7.6), layout="constrained", sharex=True, sharey="row"
    )
    for column, name in enumerate(names):
        steps, training, at_once, by_five, gradient, largest = runs[name].T
        axes[0, column].set_title(f"run {name}")
        for row, curve in enumerate((training, at_once, gradient, largest)):
            axes[row, column].plot(steps, curve, linewidth=1.2)
        axes[1, column].plot(steps, by_five, "--", linewidth=1.2)
        axes[3, column].set_xlabel("step")
    for row, (label, limits) in enumerate(rows.items()):
        axes[row, 0].set(ylabel=label, ylim=limits, yscale="linear" if row == 3 else "log")
        for ax in axes[row, len(names) :]:
            ax.set_axis_off()
    viz.show(
        fig,
        alt=f"Runs {', '.join(names)} by step: training loss in the first row, validation loss all at "
        "once and in batches of five in the second, norm of the gradient in the third, largest step "
        "in the fourth.",
    )


# %% tags=["answer", "q13"]
def diagnosis():
    """Return a dictionary from the runs "A" … "G" to one word each."""
    # BEGIN SOLUTION
    return {
        "A": "no_clipping",
        "B": "training_mode",
        "C": "small_init",
        "D": "no_bias_correction",
        "E": "noise_floor",
        "F": "healthy",
        "G": "rate_too_high",
    }
    # END SOLUTION


def equal_steps(t, beta1, beta2):
    """Return the length of uncorrected Adam's step t, in units of that with both corrections."""
    # BEGIN SOLUTION
    return (1 - beta1**t) / math.sqrt(1 - beta2**t)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q13"]
# **Why.** A: all is well until one step has a gradient a thousand times as long as the others; the loss
# jumps in that step, and what was learnt is gone. B: the training loss is that of a good run, and so is
# the validation loss all at once; five images of one class, normalised by their own mean, look like any
# other five. An overfitted network would be as bad all at once. C: the loss stays at that of guessing,
# a plateau: six layers have weights of a fifth of He's size, and the gradient of the first comes
# through the five others, $5^5 \approx 3000$ times too small. D: the first step is
# $0.1/\sqrt{0.001} = 3.16$ times the rate, and longer still after a few steps, since $1-0.9^t$ grows
# faster than $\sqrt{1-0.999^t}$; the healthy run F starts at exactly 1. E: it learns, then wavers at a
# high level while its gradients stay as large as ever; a decaying rate or larger batches would lower
# the floor. G: the first steps throw the weights so far that the units die; the gradient is 0 soon
# after, and the loss is that of guessing. With summed gradients, the steps would grow from one to the
# next, which they do in no run.


# %% tags=["test"]
ILLNESSES = {
    "healthy",
    "rate_too_high",
    "noise_floor",
    "no_clipping",
    "small_init",
    "no_bias_correction",
    "training_mode",
    "overfitting",
    "no_zero_grad",
}


def illness(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in ILLNESSES, f"{answer[run]!r} is not one of {', '.join(sorted(ILLNESSES))}"
    return answer[run]


@test("q13", 0.5, hint="what happens to the gradient in the step in which the loss jumps?")
def patient_a(s):
    assert illness(s, "A") != "rate_too_high", (
        "A: this rate served well for a hundred steps; what was different in *one* of them?"
    )
    assert illness(s, "A") == "no_clipping", "A: look at the third row, where the loss jumps"


@test("q13", 0.5, hint="the same images, the same network: why should the size of a batch matter?")
def patient_b(s):
    assert illness(s, "B") != "overfitting", (
        "B: an overfitted network would be as bad with all images at once; only small batches are bad here"
    )
    assert illness(s, "B") == "training_mode", (
        "B: the answer for an image depends on the others in its batch"
    )


@test("q13", 0.5, hint="the loss of guessing from the first step on; how large is the gradient?")
def patient_c(s):
    assert illness(s, "C") != "rate_too_high", (
        "C: the loss does not move at all, the steps are tiny"
    )
    assert illness(s, "C") == "small_init", (
        "C: its gradient is a thousand times smaller than that of others"
    )


@test("q13", 0.5, hint="how long is the first step of Adam, with the corrections?")
def patients_d_and_f(s):
    assert illness(s, "D") != "healthy", (
        "D: fast, but look at its first step: with the corrections it is exactly the learning rate"
    )
    assert illness(s, "D") == "no_bias_correction", "D: compare the fourth row with that of F"
    assert illness(s, "F") == "healthy", "F: both losses fall, smoothly, and the steps begin at 1"


@test("q13", 0.5, hint="of equal gradients m holds the share 1 - β₁ᵗ and s the share 1 - β₂ᵗ")
def steps_without_correction(s):
    factor = float(given(s.equal_steps(1, 0.9, 0.999), "equal_steps"))
    assert not near(factor, 1 / math.sqrt(0.001), rtol=1e-3), "m is too small as well: 1 - β₁ᵗ"
    assert not near(factor, 100.0, rtol=1e-3), "the *root* of s: √(1 - β₂ᵗ)"
    assert near(factor, 0.1 / math.sqrt(0.001), rtol=1e-6), (
        f"t = 1: got {factor}; run D shows another value"
    )
    for t, beta1, beta2 in ((2, 0.9, 0.999), (7, 0.8, 0.97), (5000, 0.5, 0.9)):
        factor = float(s.equal_steps(t, beta1, beta2))
        first = (1 - beta1) / math.sqrt(1 - beta2)
        assert not near(factor, first, rtol=1e-6), (
            f"t = {t}: that is the factor of the first step; the averages fill up from step to step"
        )
        expected = (1 - beta1**t) / math.sqrt(1 - beta2**t)
        assert near(factor, expected, rtol=1e-6), (
            f"t = {t}, betas {beta1} and {beta2}: got {factor:.4f}, expected {expected:.4f}"
        )


@test(
    "q13", 0.5, hidden=True, hint="E learns; its loss stays high and restless, its gradients large"
)
def patient_e(s):
    assert illness(s, "E") != "overfitting", "E: the *training* loss is high too"
    assert illness(s, "E") != "healthy", (
        "E: after 240 steps its loss is more than ten times that of F"
    )
    assert illness(s, "E") == "noise_floor", (
        "E: it goes down on average, but each step pulls elsewhere"
    )


@test("q13", 0.5, hidden=True, hint="G has the loss of guessing, but not from the start on")
def patient_g(s):
    assert illness(s, "G") != "small_init", (
        "G: its first gradients are large, and its loss jumps up first"
    )
    assert illness(s, "G") != "no_zero_grad", "G: summed gradients grow; these end at 0"
    assert illness(s, "G") == "rate_too_high", "G: after a few huge steps all units are off"


# %% tags=["wrong", "q13"]
# expect: B: an overfitted network would be as bad with all images at once
def diagnosis():
    return {
        "A": "no_clipping",
        "B": "overfitting",
        "C": "small_init",
        "D": "no_bias_correction",
        "E": "noise_floor",
        "F": "healthy",
        "G": "rate_too_high",
    }


def equal_steps(t, beta1, beta2):
    return (1 - beta1**t) / (1 - beta2**t) ** 0.5


# %% tags=["wrong", "q13"]
# expect: D: fast, but look at its first step
def diagnosis():
    return {
        "A": "no_clipping",
        "B": "training_mode",
        "C": "small_init",
        "D": "healthy",
        "E": "noise_floor",
        "F": "no_bias_correction",
        "G": "rate_too_high",
    }


def equal_steps(t, beta1, beta2):
    return (1 - beta1**t) / (1 - beta2**t) ** 0.5


# %% tags=["wrong", "q13"]
# expect: A: this rate served well for a hundred steps
def diagnosis():
    return {
        "A": "rate_too_high",
        "B": "training_mode",
        "C": "small_init",
        "D": "no_bias_correction",
        "E": "overfitting",
        "F": "healthy",
        "G": "no_clipping",
    }


def equal_steps(t, beta1, beta2):
    return (1 - beta1**t) / (1 - beta2**t) ** 0.5


# %% tags=["wrong", "q13"]
# expect: G: its first gradients are large
def diagnosis():
    return {
        "A": "no_clipping",
        "B": "training_mode",
        "C": "rate_too_high",
        "D": "no_bias_correction",
        "E": "noise_floor",
        "F": "healthy",
        "G": "small_init",
    }


def equal_steps(t, beta1, beta2):
    return (1 - beta1**t) / (1 - beta2**t) ** 0.5


# %% tags=["wrong", "q13"]
# expect: m is too small as well
def diagnosis():
    return {
        "A": "no_clipping",
        "B": "training_mode",
        "C": "small_init",
        "D": "no_bias_correction",
        "E": "noise_floor",
        "F": "healthy",
        "G": "rate_too_high",
    }


def equal_steps(t, beta1, beta2):
    return 1 / math.sqrt(1 - beta2**t)


# %% tags=["wrong", "q13"]
# expect: that is the factor of the first step
def diagnosis():
    return {
        "A": "no_clipping",
        "B": "training_mode",
        "C": "small_init",
        "D": "no_bias_correction",
        "E": "noise_floor",
        "F": "healthy",
        "G": "rate_too_high",
    }


def equal_steps(t, beta1, beta2):
    return (1 - beta1) / math.sqrt(1 - beta2)


# %% [markdown] tags=["q14", "outcome-2", "outcome-3"]
# ## Question 14 · An optimiser for unknown problems (open challenge)
#
# Write `minimise(f, w0, budget)`: `f(w)` returns `(loss, gradient)` for `w` of the shape `(d,)` of
# `w0`; you may call it at most `budget` times, and nothing else is known of the problem. Return the
# best weights that you found. With `budget` = 200, the loss must fall from its start towards its
# minimum, $\dfrac{J(w)-J^\star}{J(w_0)-J^\star}$, to
#
# | problem | target |
# |---|---|
# | bowls, $\tfrac12(w-c)^\top A(w-c)$, $d = 20$, condition number 100, $\lambda_{\max}$ from $10^{-2}$ to $10^6$ | $10^{-6}$ |
# | Rosenbrock's curved valley, $100\,(w_2-w_1^2)^2+(1-w_1)^2$, from $(-1.2, 1)$ | $10^{-4}$ |
# | a ravine: a bowl with $d = 30$, condition number 1000, $\lambda_{\max}$ as above | $10^{-4}$ |
# | logistic regression with features of unlike scales | $10^{-4}$ |
# | a start beside a saddle point; a start *at* the minimum | $10^{-4}$; stay |
#
# No one rate fits all of these. Question 1 says what limits it, questions 3 to 5 what makes ravines
# shorter; how could the optimiser notice by itself that its rate is too high, or that its momentum
# carries it uphill? Any method goes that you write yourself.


# %% tags=["answer", "q14"]
def minimise(f, w0, budget):
    """Return weights with a small loss, after at most `budget` calls of f(w) -> (loss, gradient)."""
    # BEGIN SOLUTION
    w = np.array(w0, dtype=float)
    ahead, (value, g), calls = w, f(w), 1  # the point that the next step starts from
    lr, t = 1.0, 0
    while calls < budget and g.any():
        new = ahead - lr * g
        new_value, new_g = f(new)
        calls += 1
        if not new_value <= value - 0.5 * lr * (g @ g):  # too far, or NaN: a shorter step
            lr /= 2
            continue
        t = 0 if g @ (new - w) > 0 else t + 1  # momentum went uphill: forget it
        ahead, value, g = new + t / (t + 3) * (new - w), new_value, new_g
        w, lr = new, 1.1 * lr
        if t > 0 and calls < budget:
            value, g = f(ahead)
            calls += 1
    return w
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q14"]
# **Why.** Three ideas, each for one of the difficulties. *Backtracking* finds the rate: a step of
# length $\alpha g$ with $\alpha \le 1/\lambda_{\max}$ lowers the loss by at least
# $\tfrac12\alpha\lVert g\rVert^2$; where it does not, the rate is halved, and after each success it may
# grow a little (Armijo 1966). Nesterov's *look-ahead*, with a momentum that grows as $t/(t+3)$, turns
# the $\kappa$ of plain gradient descent's step count into about $\sqrt\kappa$ (Nesterov 1983). A
# *restart* drops the momentum when the step went against the last gradient, so that it never has to be
# tuned (O'Donoghue and Candès 2015). `not … <=` instead of `>` catches a loss of NaN as well. Adam with
# a decaying rate gets far, but not down the long ravine: it scales each axis for itself, and these
# ravines lie askew. Methods that estimate the curvature between the axes from past gradients, such as
# L-BFGS (Nocedal 1980), do better still on problems as small and free of noise as these; with
# mini-batches their line search and curvature drown in noise.


# %% tags=["test"]
def bowl(seed, d, condition, scale=1.0):
    r = rng(seed)
    q = np.linalg.qr(r.normal(size=(d, d)))[0]
    a = scale * (q * np.geomspace(1 / condition, 1, d)) @ q.T
    c = r.normal(size=d)

    def f(w):
        return 0.5 * (w - c) @ a @ (w - c), a @ (w - c)

    return f, np.zeros(d), 0.0


def valley(w):
    x, y = w
    slope = np.array([-400 * x * (y - x**2) - 2 * (1 - x), 200 * (y - x**2)])
    return 100 * (y - x**2) ** 2 + (1 - x) ** 2, slope


def challenge(s, problem, target, what, budget=200):
    f, w0, lowest = problem
    calls = []

    def counted(w):
        calls.append(1)
        w = np.array(w, dtype=float)
        assert w.shape == w0.shape, (
            f"f was called with an array of the shape {w.shape}, not {w0.shape}"
        )
        with np.errstate(all="ignore"):
            value, gradient = f(w)
        return float(value), gradient.copy()

    with unchanged(w0=w0), np.errstate(all="ignore"):
        w = array(given(s.minimise(counted, w0, budget), "minimise"))
    same_shape(w, w0, "the result")
    assert len(calls) <= budget, (
        f"{what}: f was called {len(calls)} times, the budget is {budget}; a rejected step costs a call too"
    )
    assert np.isfinite(w).all(), (
        f"{what}: the run diverged, the result is not finite; can the rate adapt?"
    )
    start, end = float(f(w0)[0]) - lowest, float(f(w)[0]) - lowest
    assert end <= start, (
        f"{what}: the loss has grown from {start:.3g} to {end:.3g} above its minimum: the run diverged"
    )
    assert end <= target * start, (
        f"{what}: {end / start:.1g} of the start is left after {len(calls)} calls, the target is {target:g}"
    )


@test("q14", 2, hint="try a step, see whether the loss fell by enough, else shorten the rate")
def bowls_of_any_scale(s):
    for scale in (1e6, 1e-2):
        challenge(s, bowl(122, 20, 100, scale), 1e-6, f"bowl times {scale:g}")


@test(
    "q14",
    1,
    hint="the curvature changes along the valley: the rate must be able to fall and to rise",
)
def curved_valley(s):
    challenge(s, (valley, np.array([-1.2, 1.0]), 0.0), 1e-4, "Rosenbrock's valley")


@test(
    "q14", 0.5, hint="count every call of f, also that of a step that you reject; return your best"
)
def small_budgets(s):
    for budget in (1, 2, 3, 7):
        challenge(s, bowl(123, 4, 10), 1.0, f"a budget of {budget}", budget)


@test("q14", 1, hidden=True, hint="momentum, and a restart where it carries uphill")
def long_ravine(s):
    challenge(s, bowl(131, 30, 1000, 1e4), 1e-4, "ravine, κ = 1000, times 10000")


@test(
    "q14",
    1,
    hidden=True,
    hint="features from 0.3 to 3: the curvature is as unlike as their squares",
)
def unlike_features(s):
    r = rng(4)
    scales = np.geomspace(0.3, 3, 6)
    x = r.normal(size=(60, 6)) * scales
    y = np.sign(x @ (r.normal(size=6) / scales) + 0.7 * r.normal(size=60))

    def f(w):
        m = y * (x @ w)
        p = 0.5 - 0.5 * np.tanh(m / 2)
        return np.logaddexp(0, -m).mean() + 5e-4 * w @ w, -x.T @ (y * p) / 60 + 1e-3 * w

    w = np.zeros(6)
    for _ in range(60):  # damped Newton steps to the minimum
        p = 0.5 - 0.5 * np.tanh(y * (x @ w) / 2)
        w = w - 0.7 * np.linalg.solve((x.T * (p * (1 - p))) @ x / 60 + 1e-3 * np.eye(6), f(w)[1])
    challenge(s, (f, np.zeros(6), f(w)[0]), 1e-4, "logistic regression")


@test("q14", 0.5, hidden=True, hint="a gradient of 0 must not be divided by")
def special_starts(s):
    def saddle(w):
        return w[0] ** 4 / 4 - w[0] ** 2 / 2 + 5 * w[1] ** 2, np.array(
            [w[0] ** 3 - w[0], 10 * w[1]]
        )

    challenge(s, (saddle, np.array([1e-3, 1.0]), -0.25), 1e-4, "a start beside a saddle point", 100)

    def quartic(w):
        return np.sum((w - 3) ** 4), 4 * (w - 3) ** 3

    challenge(s, (quartic, np.array([3.0]), 0.0), 1e-4, "a start at the minimum")


# %% tags=["wrong", "q14"]
# expect: the run diverged
def minimise(f, w0, budget):
    w = w0.copy()
    for _ in range(budget):
        w = w - 0.1 * f(w)[1]
    return w


# %% tags=["wrong", "q14"]
# expect: of the start is left after 200 calls
def minimise(f, w0, budget):
    w, m, v = w0.copy(), 0.0, 0.0
    for t in range(1, budget + 1):
        g = f(w)[1]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.001 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


# %% tags=["wrong", "q14"]
# expect: a rejected step costs a call too
def minimise(f, w0, budget):
    w, lr = w0.copy(), 1.0
    for _ in range(budget):
        value, g = f(w)
        for _ in range(60):
            if f(w - lr * g)[0] <= value - 0.5 * lr * (g @ g):
                break
            lr /= 2
        w, lr = w - lr * g, 2 * lr
    return w


# %% tags=["wrong", "q14"]
# expect: changed its input w0 in place
def minimise(f, w0, budget):
    lr = 1.0
    value, g = f(w0)
    for _ in range(budget - 1):
        new_value, new_g = f(w0 - lr * g)
        if new_value <= value - 0.5 * lr * (g @ g):
            w0 -= lr * g
            value, g, lr = new_value, new_g, 1.5 * lr
        else:
            lr /= 2
    return w0
