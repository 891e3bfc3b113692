# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 90 · A tiny exercise
#
# Three questions on which the tests of the exercise system run.

# %% tags=["setup"]
import numpy as np

from dlnotes.course import Grader

grader = Grader("90_tiny")

# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · Softmax
#
# Write `softmax(z)` along the last axis of `z`, of shape (…, k).


# %% tags=["answer", "q1"]
def softmax(z):
    """Softmax along the last axis."""
    # BEGIN SOLUTION
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# Subtracting the largest entry changes nothing, since it cancels, and keeps the exponential finite.


# %% tags=["test"]
def softmax_oracle(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@test("q1", 1, hint="divide by the sum of the exponentials of the same row")
def rows_sum_to_one(s):
    """each row sums to one"""
    z = np.random.default_rng(0).normal(size=(3, 5))
    with unchanged(z=z):
        p = s.softmax(z)
    assert p is not None, "softmax returned None: is there a return?"
    sums = np.sum(p, axis=-1)
    assert np.shape(sums) == (3,), f"the result has shape {np.shape(p)} where (3, 5) is right"
    assert np.allclose(sums, 1), f"the first row sums to {sums[0]:.3f}"


# What is compared here stays hidden.
@test("q1", 1, hint="subtract the row's largest entry first", hidden=True)
def large_entries(s):
    """entries of a thousand do not overflow"""
    z = np.array([[1000.0, 1001.0, -1000.0]])
    expected = softmax_oracle(z)
    with np.errstate(all="ignore"):
        p = array(s.softmax(z))
    assert np.isfinite(p).all(), "exp overflows: the result holds NaN"
    assert np.allclose(p, expected), f"got {p}, expected {expected}"


# %% tags=["wrong", "q1"]
# expect: exp overflows
def softmax(z):
    with np.errstate(all="ignore"):
        e = np.exp(z)
        return e / e.sum(axis=-1, keepdims=True)


# %% tags=["wrong", "q1"]
# expect: the first row sums to
def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


# %% tags=["wrong", "q1"]
# expect: changed its input z in place
def softmax(z):
    z -= z.max(axis=-1, keepdims=True)
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


# %% [markdown] tags=["q2", "outcome-2"]
# ## Question 2 · Numeric derivative
#
# Write `slope(f, x)`, the central difference of the function `f` at the number `x`.


# %% tags=["answer", "q2"]
def slope(f, x, eps=1e-5):
    """Central difference of f at x."""
    # BEGIN SOLUTION
    return (f(x + eps) - f(x - eps)) / (2 * eps)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# The errors of second order of the two sides cancel.


# %% tags=["test"]
@test("q2", 1, hint="f(x + eps) - f(x - eps), divided by the distance between the two points")
def cube(s):
    """the slope of x³ at 2"""
    got = s.slope(lambda x: x**3, 2.0)
    assert got is not None, "slope returned None: is there a return?"
    assert np.isclose(got, 12.0, rtol=1e-6), f"the slope of x**3 at 2 is 12, got {got}"


@test("q2", 2, hint="take points on both sides of x", hidden=True)
def order(s):
    """the error is of second order"""
    got = s.slope(np.exp, 0.0, eps=1e-3)
    assert abs(got - 1) < 1e-5, f"the error at eps = 1e-3 is {abs(got - 1):.1e}: one-sided?"


# %% tags=["wrong", "q2"]
# expect: one-sided?
def slope(f, x, eps=1e-5):
    return (f(x + eps) - f(x)) / eps


# %% tags=["wrong", "q2"]
# expect: is 12, got 24
def slope(f, x, eps=1e-5):
    return (f(x + eps) - f(x - eps)) / eps


# %% tags=["wrong", "q2"]
# expect: slope returned None
def slope(f, x, eps=1e-5):
    (f(x + eps) - f(x - eps)) / (2 * eps)


# %% [markdown] tags=["q3", "outcome-1", "outcome-3"]
# ## Question 3 · A counter and a diagnosis
#
# Write the class `Counter` with `add(key)`, which counts, and the attribute `counts`, a dict;
# and say which of the two runs "a" and "b" diverges.

# %% tags=["answer", "q3"]
# BEGIN SOLUTION
# BLANK: diverging = ...
diverging = "b"
# END SOLUTION


class Counter:
    """Counts keys."""

    def __init__(self):
        # BEGIN SOLUTION
        self.counts = {}
        # END SOLUTION

    def add(self, key):
        """Count the key once more."""
        # BEGIN SOLUTION
        self.counts[key] = self.counts.get(key, 0) + 1
        # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# Each counter needs a dictionary of its own.


# %% tags=["test"]
@test("q3", 1, hint="look at the right end of each curve")
def names_the_run(s):
    """the diverging run"""
    assert s.diverging == "b", f"run {s.diverging!r} does not diverge"


@test("q3", 1, hint="counts.get(key, 0)")
def counts(s):
    """keys are counted"""
    c = s.Counter()
    for key in ["x", "y", "x"]:
        c.add(key)
    assert dict(c.counts) == {"x": 2, "y": 1}, f"after x, y, x the counts are {c.counts}"


@test("q3", 1, hint="make the dictionary in __init__", hidden=True)
def counters_are_separate(s):
    """two counters do not share"""
    a, b = s.Counter(), s.Counter()
    a.add("x")
    assert not dict(b.counts), f"a second counter already holds {b.counts}"


# %% tags=["wrong", "q3"]
# expect: a second counter already holds
diverging = "b"


class Counter:
    counts = {}

    def add(self, key):
        self.counts[key] = self.counts.get(key, 0) + 1


# %% tags=["wrong", "q3"]
# expect: run 'a' does not diverge
diverging = "a"


class Counter:
    def __init__(self):
        self.counts = {}

    def add(self, key):
        self.counts[key] = self.counts.get(key, 0) + 1


# %% tags=["wrong", "q3"]
# expect: after x, y, x the counts are
diverging = "b"


class Counter:
    def __init__(self):
        self.counts = {}

    def add(self, key):
        self.counts[key] = 1
