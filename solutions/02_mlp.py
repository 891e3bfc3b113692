# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises 2 · Multilayer perceptrons and backpropagation
#
# Ten questions on [chapter 2](../notebooks/02_mlp.ipynb), from a warm-up to an open
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

grader = Grader("02_mlp")


# %% tags=["test"]
def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


# %% [markdown] tags=["q1", "outcome-1"]
# ## Question 1 · Logic from threshold units (warm-up)
#
# A McCulloch-Pitts unit fires, $\hat y = 1$, where $\mathbf w^\top\mathbf x + b > 0$, and else gives
# $\hat y = 0$. Inputs are 0 or 1. Write
#
# - `logic_units()`, which returns a dictionary: `"and"`, `"or"` and `"nand"`, each a pair `(w, b)`
#   with `w` an array of shape `(2,)`, and `"not"`, a pair with `w` of shape `(1,)`;
# - `xor_network()`, which returns `(W, c, v, d)`: `W` of shape `(2, 2)` and `c` of shape `(2,)` for two
#   hidden units (unit $j$ has the weights `W[j]` and the bias `c[j]`), `v` of shape `(2,)` and the
#   number `d` for the output unit, so that the network computes the exclusive or.


# %% tags=["answer", "q1"]
def logic_units():
    """Return (w, b) of a threshold unit for each of "and", "or", "nand", "not"."""
    # BEGIN SOLUTION
    return {
        "and": (np.array([1.0, 1.0]), -1.5),
        "or": (np.array([1.0, 1.0]), -0.5),
        "nand": (np.array([-1.0, -1.0]), 1.5),
        "not": (np.array([-1.0]), 0.5),
    }
    # END SOLUTION


def xor_network():
    """Return (W, c, v, d) of two hidden threshold units and one output unit that compute XOR."""
    # BEGIN SOLUTION
    units = logic_units()
    (w_or, b_or), (w_nand, b_nand), (v, d) = units["or"], units["nand"], units["and"]
    return np.stack([w_or, w_nand]), np.array([b_or, b_nand]), v, d
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q1"]
# **Why.** $x_1 + x_2$ is 0, 1 or 2: AND needs a threshold between 1 and 2, OR one between 0 and 1,
# NAND is AND with all signs turned. No single line parts $\{(0,1),(1,0)\}$ from $\{(0,0),(1,1)\}$,
# but XOR = (OR) AND (NAND): the hidden layer moves the four points so that a line can part them.

# %% tags=["test"]
CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)


def fires(w, b, x):
    assert np.shape(w) == (x.shape[1],), f"w has shape {np.shape(w)}, not ({x.shape[1]},)"
    return (x @ np.asarray(w, dtype=float) + b > 0).astype(int)


def table(s, name, expected):
    units = given(s.logic_units(), "logic_units")
    assert name in units, f"there is no unit {name!r}"
    got = fires(*units[name], CORNERS if name != "not" else np.array([[0.0], [1.0]]))
    assert near(got, expected), (
        f"{name}: the unit gives {got.tolist()}, the truth table says {expected}"
    )


@test("q1", 0.5, hint="both inputs on: the sum is 2; one on: 1. Put the threshold between")
def and_unit(s):
    table(s, "and", [0, 0, 0, 1])


@test("q1", 0.5, hint="the unit fires only when the sum is *greater* than 0")
def or_unit(s):
    table(s, "or", [0, 1, 1, 1])


@test("q1", 0.5, hint="turn every sign of AND")
def nand_unit(s):
    table(s, "nand", [1, 1, 1, 0])


@test("q1", 0.5, hint="a negative weight and a positive bias")
def not_unit(s):
    table(s, "not", [1, 0])


@test("q1", 1, hint="XOR is OR and NAND at once")
def exclusive_or(s):
    W, c, v, d = given(s.xor_network(), "xor_network")
    assert np.shape(W) == (2, 2) and np.shape(c) == (2,), f"W {np.shape(W)}, c {np.shape(c)}"
    hidden = np.stack([fires(W[0], c[0], CORNERS), fires(W[1], c[1], CORNERS)], axis=1)
    got = fires(v, d, hidden.astype(float))
    assert not near(got, [0, 1, 1, 1]), "xor_network computes OR: it must not fire for (1, 1)"
    assert near(got, [0, 1, 1, 0]), f"xor_network gives {got.tolist()} for 00, 01, 10, 11"


@test("q1", 0.5, hidden=True, hint="try the network on every pair of inputs, and on its own output")
def parity_of_three_bits(s):
    W, c, v, d = s.xor_network()

    def xor(x):
        hidden = np.stack([fires(W[0], c[0], x), fires(W[1], c[1], x)], axis=1).astype(float)
        return fires(v, d, hidden).astype(float)

    bits = np.array([[i >> k & 1 for k in range(3)] for i in range(8)], dtype=float)
    parity = xor(np.stack([xor(bits[:, :2]), bits[:, 2]], axis=1))
    assert near(parity, bits.sum(axis=1) % 2), f"xor of (xor of two bits) and a third: {parity}"


# %% tags=["wrong", "q1"]
# expect: and: the unit gives [0, 1, 1, 1]
def logic_units():
    return {
        "and": (np.array([1.0, 1.0]), -0.5),
        "or": (np.array([1.0, 1.0]), -0.5),
        "nand": (np.array([-1.0, -1.0]), 1.5),
        "not": (np.array([-1.0]), 0.5),
    }


def xor_network():
    return np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([-0.5, 1.5]), np.array([1.0, 1.0]), -1.5


# %% tags=["wrong", "q1"]
# expect: nand: the unit gives [0, 0, 0, 0]
def logic_units():
    return {
        "and": (np.array([1.0, 1.0]), -1.5),
        "or": (np.array([1.0, 1.0]), -0.5),
        "nand": (np.array([-1.0, -1.0]), -1.5),
        "not": (np.array([-1.0]), 0.5),
    }


def xor_network():
    return np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([-0.5, 1.5]), np.array([1.0, 1.0]), -1.5


# %% tags=["wrong", "q1"]
# expect: xor_network computes OR
def logic_units():
    return {
        "and": (np.array([1.0, 1.0]), -1.5),
        "or": (np.array([1.0, 1.0]), -0.5),
        "nand": (np.array([-1.0, -1.0]), 1.5),
        "not": (np.array([-1.0]), 0.5),
    }


def xor_network():
    return np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([-0.5, -1.5]), np.array([1.0, 1.0]), -0.5


# %% tags=["wrong", "q1"]
# expect: or: the unit gives [0, 0, 0, 1]
def logic_units():
    return {
        "and": (np.array([1.0, 1.0]), -1.0),
        "or": (np.array([1.0, 1.0]), -1.0),
        "nand": (np.array([-1.0, -1.0]), 1.5),
        "not": (np.array([-1.0]), 0.5),
    }


def xor_network():
    return np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([-0.5, 1.5]), np.array([1.0, 1.0]), -1.5


# %% [markdown] tags=["q2", "outcome-1"]
# ## Question 2 · The perceptron
#
# Write `train_perceptron(x, y, max_epochs)` for `x` of shape `(n, d)` and labels `y` of shape `(n,)`
# that are −1 or +1. Start from $\mathbf w = 0$, $b = 0$. Go through the samples in their order; a
# sample is a *mistake* where $y(\mathbf w^\top\mathbf x + b) \le 0$; then, and only then,
# $\mathbf w \leftarrow \mathbf w + y\mathbf x$ and $b \leftarrow b + y$. Stop after the first pass without a
# mistake or after `max_epochs` passes. Return `(w, b, mistakes)`, where `mistakes` is the list of
# the number of mistakes in each pass made (its last entry is 0 when the data were separated).


# %% tags=["answer", "q2"]
def train_perceptron(x, y, max_epochs):
    """Return (w, b, mistakes per pass) of the perceptron, shapes (d,), (), list of int."""
    w, b, mistakes = np.zeros(x.shape[1]), 0.0, []
    # BEGIN SOLUTION
    for _ in range(max_epochs):
        wrong = 0
        for x_i, y_i in zip(x, y, strict=True):
            if y_i * (w @ x_i + b) <= 0:
                w, b, wrong = w + y_i * x_i, b + y_i, wrong + 1
        mistakes.append(wrong)
        if wrong == 0:
            break
    return w, b, mistakes
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q2"]
# **Why.** From $\mathbf w = 0$ every score is exactly 0: with `< 0` instead of `<= 0` nothing
# would ever be learnt. The sum changes only by mistakes, which is why the number of mistakes on
# separable data is bounded whatever the number of passes (Novikoff 1962). On XOR it never stops.


# %% tags=["test"]
def reference_perceptron(x, y, max_epochs):
    w, b, mistakes = np.zeros(x.shape[1]), 0.0, []
    for _ in range(max_epochs):
        wrong = 0
        for a, t in zip(x, y, strict=True):
            if t * (w @ a + b) <= 0:
                w, b, wrong = w + t * a, b + t, wrong + 1
        mistakes.append(wrong)
        if not wrong:
            break
    return w, b, mistakes


def separable(seed, n, d):
    r = rng(seed)
    x, w = r.normal(size=(4 * n, d)), r.normal(size=d)
    score = x @ w + 0.7
    keep = np.flatnonzero(abs(score) > 0.3)[:n]
    return x[keep], np.sign(score[keep])


@test("q2", 1, hint="a score of exactly 0 is a mistake too: the start would never change otherwise")
def learns_at_all(s):
    x, y = separable(1, 20, 2)
    w, b, mistakes = given(s.train_perceptron(x, y, 50), "train_perceptron")
    assert np.any(w != 0), "w is still 0: a score of exactly 0 must count as a mistake"
    assert np.all(y * (x @ w + b) > 0), "the data are separable, but some samples are still wrong"


@test("q2", 1, hint="leave right samples alone; change w and b for wrong ones")
def same_path(s):
    x, y = separable(2, 30, 3)
    w, b, _ = s.train_perceptron(x, y, 100)
    rw, rb, _ = reference_perceptron(x, y, 100)
    assert b != 0 or rb == 0, "b never changes: it is updated by y at each mistake"
    assert near(w, rw) and near(b, rb), f"got w = {w}, b = {b}; expected w = {rw}, b = {rb}"


@test("q2", 0.5, hint="one entry a pass; the pass without mistakes counts, and ends the training")
def counts_mistakes(s):
    x, y = separable(3, 25, 2)
    mistakes = list(s.train_perceptron(x, y, 200)[2])
    expected = reference_perceptron(x, y, 200)[2]
    assert len(mistakes) != 200 or len(expected) == 200, (
        "stop after the first pass without a mistake"
    )
    assert mistakes == expected, f"got {mistakes}, expected {expected}"


@test("q2", 1, hidden=True, hint="max_epochs bounds the passes when no line parts the classes")
def gives_up_on_xor(s):
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.array([-1.0, 1.0, 1.0, -1.0])
    mistakes = s.train_perceptron(x, y, 25)[2]
    assert len(mistakes) == 25 and min(mistakes) > 0, f"XOR: got {mistakes}"


@test("q2", 0.5, hidden=True, hint="one sample is enough to train on")
def one_sample(s):
    w, b, mistakes = s.train_perceptron(np.array([[2.0, -1.0]]), np.array([-1.0]), 10)
    assert near(w, [-2.0, 1.0]) and b == -1 and list(mistakes) == [1, 0]


# %% tags=["wrong", "q2"]
# expect: a score of exactly 0 must count as a mistake
def train_perceptron(x, y, max_epochs):
    w, b, mistakes = np.zeros(x.shape[1]), 0.0, []
    for _ in range(max_epochs):
        wrong = 0
        for x_i, y_i in zip(x, y, strict=True):
            if y_i * (w @ x_i + b) < 0:
                w, b, wrong = w + y_i * x_i, b + y_i, wrong + 1
        mistakes.append(wrong)
        if wrong == 0:
            break
    return w, b, mistakes


# %% tags=["wrong", "q2"]
# expect: b never changes
def train_perceptron(x, y, max_epochs):
    w, b, mistakes = np.zeros(x.shape[1]), 0.0, []
    for _ in range(max_epochs):
        wrong = 0
        for x_i, y_i in zip(x, y, strict=True):
            if y_i * (w @ x_i + b) <= 0:
                w, wrong = w + y_i * x_i, wrong + 1
        mistakes.append(wrong)
        if wrong == 0:
            break
    return w, b, mistakes


# %% tags=["wrong", "q2"]
# expect: stop after the first pass without a mistake
def train_perceptron(x, y, max_epochs):
    w, b, mistakes = np.zeros(x.shape[1]), 0.0, []
    for _ in range(max_epochs):
        wrong = 0
        for x_i, y_i in zip(x, y, strict=True):
            if y_i * (w @ x_i + b) <= 0:
                w, b, wrong = w + y_i * x_i, b + y_i, wrong + 1
        mistakes.append(wrong)
    return w, b, mistakes


# %% [markdown] tags=["q3", "outcome-2"]
# ## Question 3 · The backward pass of a two-layer network (derivation)
#
# A network with one hidden layer of ReLU units: $\mathbf A = \mathbf X\mathbf W_1^\top + \mathbf b_1$,
# $\mathbf H = \max(0, \mathbf A)$, $\hat{\mathbf Y} = \mathbf H\mathbf W_2^\top + \mathbf b_2$, and the loss
# $L = \frac{1}{nk}\sum_{i,j}(\hat Y_{ij} - Y_{ij})^2$, the mean over all entries. Shapes: `x` `(n, d)`,
# `w1` `(h, d)`, `b1` `(h,)`, `w2` `(k, h)`, `b2` `(k,)`, `y` `(n, k)`.
#
# Derive the four gradients on paper, then write `mlp_gradients(x, y, w1, b1, w2, b2)`, which returns
# `(loss, dw1, db1, dw2, db2)`. A hidden check compares every entry with a numeric gradient.


# %% tags=["answer", "q3"]
def mlp_gradients(x, y, w1, b1, w2, b2):
    """Return (loss, dw1, db1, dw2, db2) of a ReLU network with mean squared error."""
    a = x @ w1.T + b1
    hidden = np.maximum(0.0, a)
    prediction = hidden @ w2.T + b2
    # BEGIN SOLUTION
    residual = prediction - y
    loss = np.mean(residual**2)
    dprediction = 2.0 * residual / residual.size
    dw2, db2 = dprediction.T @ hidden, dprediction.sum(axis=0)
    da = (dprediction @ w2) * (a > 0)
    return loss, da.T @ x, da.sum(axis=0), dw2, db2
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q3"]
# **Why.** From the loss backwards, each line is one step of the chain rule: the mean gives
# $2(\hat Y - Y)/(nk)$; a linear layer sends $\delta$ back as $\delta\mathbf W$ and gives its weight
# $\delta^\top$ input and its bias the sum of $\delta$ over the *samples*; ReLU lets through what arrives
# where its input was positive.

# %% tags=["test"]
NAMES = ("dw1", "db1", "dw2", "db2")


def network(seed, n, d, h, k):
    r = rng(seed)
    shapes = [(n, d), (n, k), (h, d), (h,), (k, h), (k,)]
    return [r.normal(size=shape) for shape in shapes]


def network_loss(x, y, w1, b1, w2, b2):
    return float(np.mean((np.maximum(0, x @ w1.T + b1) @ w2.T + b2 - y) ** 2))


def reference_gradients(x, y, w1, b1, w2, b2, masked=True):
    a = x @ w1.T + b1
    h = np.maximum(0, a)
    dy = 2 * (h @ w2.T + b2 - y) / y.size
    da = dy @ w2 * (a > 0 if masked else 1)
    return dy, da, {"dw1": da.T @ x, "db1": da.sum(0), "dw2": dy.T @ h, "db2": dy.sum(0)}


def answers(s, problem, names=NAMES):
    values = given(s.mlp_gradients(*problem), "mlp_gradients")
    assert len(values) == 5, f"expected five values, got {len(values)}"
    for name, value, like in zip(NAMES, values[1:], problem[2:], strict=True):
        if name in names:
            assert np.shape(value) == like.shape, (
                f"{name} has shape {np.shape(value)}, not {like.shape}"
            )
    return values[0], dict(zip(NAMES, values[1:], strict=True))


@test("q3", 0.5, hint="the mean runs over samples and outputs")
def loss(s):
    p = network(1, 5, 3, 4, 2)
    value = given(s.mlp_gradients(*p), "mlp_gradients")[0]
    assert near(value, network_loss(*p)), f"got {value}, expected {network_loss(*p)}"


@test("q3", 1, hint="start from 2 (prediction - y) / (n k)")
def output_layer(s):
    p = network(2, 4, 3, 5, 4)
    _, got = answers(s, p, ("dw2", "db2"))
    dy, _, expected = reference_gradients(*p)
    assert not near(got["dw2"], 4 * expected["dw2"]), (
        "dw2 is k times too large: the mean runs over all n*k entries, you divided by n"
    )
    assert not near(got["db2"], dy.sum(axis=1)), "db2: you summed over the wrong axis"
    assert near(got["dw2"], expected["dw2"]), "dw2 is wrong"
    assert near(got["db2"], expected["db2"]), "db2 is wrong"


@test("q3", 1.5, hint="ReLU passes the gradient on where its input was positive, and 0 elsewhere")
def hidden_layer(s):
    p = network(3, 6, 3, 6, 2)
    _, got = answers(s, p, ("dw1", "db1"))
    _, da, expected = reference_gradients(*p)
    unmasked = reference_gradients(*p, masked=False)[2]
    assert not near(got["dw1"], unmasked["dw1"]), (
        "dw1: the gradient also flowed through units that are off"
    )
    assert not near(got["db1"], da.sum(axis=1)), "db1: you summed over the wrong axis"
    assert near(got["dw1"], expected["dw1"]), "dw1 is wrong"
    assert near(got["db1"], expected["db1"]), "db1 is wrong"


@test("q3", 2, hidden=True, hint="check your own function with (L(p + h) - L(p - h)) / 2h")
def numeric_gradient(s):
    p = network(4, 7, 2, 3, 3)
    _, got = answers(s, p)
    for slot, name in enumerate(NAMES, start=2):
        for i in np.ndindex(p[slot].shape):
            q = [a.copy() for a in p]
            q[slot][i] += 1e-6
            up = network_loss(*q)
            q[slot][i] -= 2e-6
            numeric = (up - network_loss(*q)) / 2e-6
            assert abs(got[name][i] - numeric) < 1e-6, (
                f"{name}{i}: {got[name][i]:.6f}, numerically {numeric:.6f}"
            )


@test("q3", 1, hidden=True, hint="a batch of one, one hidden unit, one output")
def batch_of_one(s):
    p = network(5, 1, 4, 1, 1)
    _, got = answers(s, p)
    for name, value in reference_gradients(*p)[2].items():
        assert near(got[name], value), f"batch of one: {name} is wrong"


# %% tags=["wrong", "q3"]
# expect: the gradient also flowed through units that are off
def mlp_gradients(x, y, w1, b1, w2, b2):
    a = x @ w1.T + b1
    hidden = np.maximum(0.0, a)
    prediction = hidden @ w2.T + b2
    residual = prediction - y
    dprediction = 2.0 * residual / residual.size
    dw2, db2 = dprediction.T @ hidden, dprediction.sum(axis=0)
    da = dprediction @ w2
    return np.mean(residual**2), da.T @ x, da.sum(axis=0), dw2, db2


# %% tags=["wrong", "q3"]
# expect: db2: you summed over the wrong axis
def mlp_gradients(x, y, w1, b1, w2, b2):
    a = x @ w1.T + b1
    hidden = np.maximum(0.0, a)
    prediction = hidden @ w2.T + b2
    residual = prediction - y
    dprediction = 2.0 * residual / residual.size
    dw2, db2 = dprediction.T @ hidden, dprediction.sum(axis=1)
    da = (dprediction @ w2) * (a > 0)
    return np.mean(residual**2), da.T @ x, da.sum(axis=0), dw2, db2


# %% tags=["wrong", "q3"]
# expect: you divided by n
def mlp_gradients(x, y, w1, b1, w2, b2):
    a = x @ w1.T + b1
    hidden = np.maximum(0.0, a)
    prediction = hidden @ w2.T + b2
    residual = prediction - y
    dprediction = 2.0 * residual / len(x)
    dw2, db2 = dprediction.T @ hidden, dprediction.sum(axis=0)
    da = (dprediction @ w2) * (a > 0)
    return np.mean(residual**2), da.T @ x, da.sum(axis=0), dw2, db2


# %% tags=["wrong", "q3"]
# expect: dw1 has shape
def mlp_gradients(x, y, w1, b1, w2, b2):
    a = x @ w1.T + b1
    hidden = np.maximum(0.0, a)
    prediction = hidden @ w2.T + b2
    residual = prediction - y
    dprediction = 2.0 * residual / residual.size
    dw2, db2 = dprediction.T @ hidden, dprediction.sum(axis=0)
    da = (dprediction @ w2) * (a > 0)
    return np.mean(residual**2), x.T @ da, da.sum(axis=0), dw2, db2


# %% [markdown] tags=["q4", "outcome-3"]
# ## Question 4 · Why the order must be topological
#
# A computational graph is given as a dictionary from each node's name to the list of its parents, the
# nodes that it was computed from; a parent may occur twice. The graph of `b = a + a; c = b + b` is
# `{"c": ["b", "b"], "b": ["a", "a"], "a": []}`.
#
# Write `backward_order(parents, output)`: the names of all nodes that `output` depends on, `output`
# first, in an order in which *each node comes after every node that was computed from it*. Each name
# occurs once, nodes that `output` does not depend on do not occur. The graph may be a
# chain of 5 000 nodes, so recursion is not deep enough.


# %% tags=["answer", "q4"]
def backward_order(parents, output):
    """Return the nodes that output depends on, each after all nodes computed from it."""
    # BEGIN SOLUTION
    waiting = {output: 0}
    stack = [output]
    while stack:
        for parent in set(parents[stack.pop()]):
            if parent not in waiting:
                waiting[parent] = 0
                stack.append(parent)
    for node in waiting:
        for parent in set(parents[node]):
            waiting[parent] += 1
    order, ready = [], [output]
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in set(parents[node]):
            waiting[parent] -= 1
            if waiting[parent] == 0:
                ready.append(parent)
    return order
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q4"]
# **Why.** A node may send its gradient on only when the last of its users has added its part: else
# it sends an unfinished sum, or sends twice. The solution counts for every node how many users
# have not yet been visited, and takes it when the count reaches 0 (Kahn 1962). Depth-first search that
# lists a node after its parents, read backwards, does as well; breadth-first order does not, because
# a short path to a node does not say that all paths have been walked.


# %% tags=["test"]
def check_order(order, parents, output):
    order = list(given(order, "backward_order"))
    needed, stack = {output}, [output]
    while stack:
        for p in parents[stack.pop()]:
            if p not in needed:
                needed.add(p)
                stack.append(p)
    assert len(order) == len(set(order)), "a node occurs twice in the order"
    assert not set(order) - needed, (
        f"{sorted(set(order) - needed)[:3]}: output does not depend on them"
    )
    assert not needed - set(order), f"{sorted(needed - set(order))[:3]} are missing"
    assert order[0] == output, f"the order starts with {order[0]!r}, not with the output"
    place = {name: i for i, name in enumerate(order)}
    for node in needed:
        for p in parents[node]:
            assert place[p] > place[node], (
                f"{p!r} comes before {node!r}, which was computed from it: its gradient is not complete yet"
            )


def random_graph(seed, n):
    r = rng(seed)
    graph = {"n0": []}
    for i in range(1, n):
        graph[f"n{i}"] = [f"n{j}" for j in r.integers(0, i, size=r.integers(1, 4))]
    return graph


@test("q4", 1, hint="every node once, the output first")
def doubled_twice(s):
    graph = {"c": ["b", "b"], "b": ["a", "a"], "a": []}
    check_order(s.backward_order(graph, "c"), graph, "c")


@test("q4", 1, hint="a node must wait for *all* of its users, also those on longer paths")
def long_and_short_path(s):
    graph = {"z": ["x", "v"], "v": ["u"], "u": ["x"], "x": ["w"], "w": []}
    check_order(s.backward_order(graph, "z"), graph, "z")


@test("q4", 0.5, hint="start from the output and follow the parents")
def unused_nodes(s):
    graph = {"loss": ["a"], "a": [], "metric": ["a", "other"], "other": []}
    check_order(s.backward_order(graph, "loss"), graph, "loss")


@test("q4", 1, hidden=True, hint="draw the graph for which it fails")
def random_graphs(s):
    for seed in range(12):
        graph = random_graph(seed, 25)
        check_order(s.backward_order(graph, "n24"), graph, "n24")


@test("q4", 1, hidden=True, hint="use your own stack instead of recursion")
def long_chain(s):
    graph = {"n0": []} | {f"n{i}": [f"n{i - 1}"] for i in range(1, 5000)}
    try:
        order = s.backward_order(graph, "n4999")
    except RecursionError:
        raise AssertionError("a chain of 5 000 nodes is too deep for recursion") from None
    except Exception as error:
        assert "Recursion" not in f"{type(error).__name__} {error}", (
            "a chain of 5 000 nodes is too deep for recursion"
        )
        raise
    check_order(order, graph, "n4999")


# %% tags=["wrong", "q4"]
# expect: its gradient is not complete yet
def backward_order(parents, output):
    order, queue = [], [output]
    while queue:
        node = queue.pop(0)
        if node not in order:
            order.append(node)
            queue.extend(parents[node])
    return order


# %% tags=["wrong", "q4"]
# expect: a node occurs twice
def backward_order(parents, output):
    order, queue = [], [output]
    while queue:
        node = queue.pop(0)
        order.append(node)
        queue.extend(parents[node])
    return order


# %% tags=["wrong", "q4"]
# expect: too deep for recursion
def backward_order(parents, output):
    order, seen = [], set()

    def visit(node):
        seen.add(node)
        for parent in parents[node]:
            if parent not in seen:
                visit(parent)
        order.append(node)

    visit(output)
    return order[::-1]


# %% tags=["wrong", "q4"]
# expect: output does not depend on them
def backward_order(parents, output):
    order, waiting = [], dict.fromkeys(parents, 0)
    for node in parents:
        for parent in set(parents[node]):
            waiting[parent] += 1
    ready = [node for node in parents if waiting[node] == 0 and node != output] + [output]
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in set(parents[node]):
            waiting[parent] -= 1
            if waiting[parent] == 0:
                ready.append(parent)
    return order


# %% [markdown] tags=["q5", "outcome-3"]
# ## Question 5 · A tape
#
# A *tape* lists what was computed, in the order in which it was computed: each entry is a tuple
# `(name, op, arguments)`, for instance `("c", "mul", ["a", "b"])`. The operations are `"add"` and
# `"mul"` (two arguments), `"exp"` and `"tanh"` (one). Write `run_tape(tape, inputs)`, where `inputs` is a
# dictionary from names to numbers. Return `(value, gradients)`: the value of the last entry of the
# tape, and a dictionary with its derivative with respect to *every input* (0.0 for an input that it
# does not depend on). The same name may be used any number of times, but is assigned once.


# %% tags=["answer", "q5"]
def run_tape(tape, inputs):
    """Run the tape forwards, then backwards; return (value, {input name: derivative})."""
    values = dict(inputs)
    for name, op, arguments in tape:
        a = [values[argument] for argument in arguments]
        if op == "add":
            values[name] = a[0] + a[1]
        elif op == "mul":
            values[name] = a[0] * a[1]
        elif op == "exp":
            values[name] = np.exp(a[0])
        elif op == "tanh":
            values[name] = np.tanh(a[0])
        else:
            raise ValueError(f"unknown operation {op!r}")
    # BEGIN SOLUTION
    gradients = dict.fromkeys(values, 0.0)
    gradients[tape[-1][0]] = 1.0
    for name, op, arguments in reversed(tape):
        upstream = gradients[name]
        if op == "add":
            local = [1.0, 1.0]
        elif op == "mul":
            local = [values[arguments[1]], values[arguments[0]]]
        elif op == "exp":
            local = [values[name]]
        else:
            local = [1.0 - values[name] ** 2]
        for argument, derivative in zip(arguments, local, strict=True):
            gradients[argument] += upstream * derivative
    return values[tape[-1][0]], {name: gradients[name] for name in inputs}
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q5"]
# **Why.** A value is listed before everything that is computed from it; read backwards, the tape is a
# topological order, so each gradient is complete when it is used. `+=` is the multivariate chain
# rule: a value that is used twice gets the *sum* of what both uses send back. For
# `b = a + a` both arguments are the same name, and `a` must get 2.


# %% tags=["test"]
def numeric(s, tape, inputs, name, h=1e-6):
    up, down = dict(inputs), dict(inputs)
    up[name] += h
    down[name] -= h
    return (s.run_tape(tape, up)[0] - s.run_tape(tape, down)[0]) / (2 * h)


@test("q5", 0.5, hint="the derivative of a product by one factor is the other factor")
def product(s):
    value, gradients = given(
        s.run_tape([("c", "mul", ["a", "b"])], {"a": 3.0, "b": -2.0}), "run_tape"
    )
    assert near(value, -6.0), f"value: got {value}"
    assert set(gradients) == {"a", "b"}, f"one gradient for each input, got {sorted(gradients)}"
    assert not near(gradients["a"], 3.0), "mul: the derivative by a is b, not a"
    assert near(gradients["a"], -2.0) and near(gradients["b"], 3.0), f"got {gradients}"


@test("q5", 1, hint="a value that is used twice gets the sum of both gradients: +=, not =")
def used_twice(s):
    tape = [("b", "add", ["a", "a"]), ("c", "add", ["b", "b"])]
    value, gradients = s.run_tape(tape, {"a": 1.5})
    assert near(value, 6.0)
    assert not near(gradients["a"], 1.0), (
        "b = a + a; c = b + b: the gradients of the uses must be added"
    )
    assert near(gradients["a"], 4.0), f"dc/da: got {gradients['a']}, expected 4"


@test("q5", 1, hint="go through the tape backwards, from the last entry to the first")
def a_formula_of_the_book(s):
    tape = [("bc", "mul", ["b", "c"]), ("u", "add", ["a", "bc"]), ("J", "mul", ["three", "u"])]
    value, g = s.run_tape(tape, {"a": 5.0, "b": 3.0, "c": 2.0, "three": 3.0})
    assert near(value, 33.0), f"J = 3(a + bc): got {value}"
    assert near(g["a"], 3.0) and near(g["b"], 6.0) and near(g["c"], 9.0), (
        f"3, 3c = 6, 3b = 9 expected, got {g}"
    )


@test("q5", 1.5, hidden=True, hint="d tanh = 1 - tanh², d exp = exp")
def random_tapes(s):
    r, one, two = rng(3), ["exp", "tanh"], ["add", "mul"]
    for _ in range(4):
        names, tape = ["x", "y", "z"], []
        for i in range(6):
            op = str(r.choice(one + two)) if i else "tanh"
            op = "tanh" if op == "exp" and i > 2 else op
            arguments = [str(a) for a in r.choice(names, size=1 if op in one else 2)]
            names.append(f"v{i}")
            tape.append((f"v{i}", op, arguments))
        inputs = dict(zip("xyz", r.uniform(-0.7, 0.7, size=3).tolist(), strict=True))
        gradients = s.run_tape(tape, inputs)[1]
        for name in inputs:
            expected = numeric(s, tape, inputs, name)
            assert abs(gradients[name] - expected) < 1e-5 * (1 + abs(expected)), (
                f"{tape}: d/d{name} is {gradients[name]:.6f}, numerically {expected:.6f}"
            )


@test("q5", 0.5, hidden=True, hint="an input that is never used has derivative 0")
def unused_input(s):
    gradients = s.run_tape([("b", "exp", ["a"])], {"a": 0.3, "idle": 7.0})[1]
    assert gradients.get("idle") == 0.0, f"an input that is not used: got {gradients}"


# %% tags=["wrong", "q5"]
# expect: the gradients of the uses must be added
def run_tape(tape, inputs):
    values = dict(inputs)
    functions = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "exp": np.exp,
        "tanh": np.tanh,
    }
    for name, op, arguments in tape:
        values[name] = functions[op](*(values[a] for a in arguments))
    gradients = dict.fromkeys(values, 0.0)
    gradients[tape[-1][0]] = 1.0
    for name, op, arguments in reversed(tape):
        local = {
            "add": lambda: [1.0, 1.0],
            "mul": lambda: [values[arguments[1]], values[arguments[0]]],
            "exp": lambda: [values[name]],
            "tanh": lambda: [1.0 - values[name] ** 2],
        }[op]()
        for argument, derivative in zip(arguments, local, strict=True):
            gradients[argument] = gradients[name] * derivative
    return values[tape[-1][0]], {name: gradients[name] for name in inputs}


# %% tags=["wrong", "q5"]
# expect: mul: the derivative by a is b, not a
def run_tape(tape, inputs):
    values = dict(inputs)
    functions = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "exp": np.exp,
        "tanh": np.tanh,
    }
    for name, op, arguments in tape:
        values[name] = functions[op](*(values[a] for a in arguments))
    gradients = dict.fromkeys(values, 0.0)
    gradients[tape[-1][0]] = 1.0
    for name, op, arguments in reversed(tape):
        local = {
            "add": lambda: [1.0, 1.0],
            "mul": lambda: [values[arguments[0]], values[arguments[1]]],
            "exp": lambda: [values[name]],
            "tanh": lambda: [1.0 - values[name] ** 2],
        }[op]()
        for argument, derivative in zip(arguments, local, strict=True):
            gradients[argument] += gradients[name] * derivative
    return values[tape[-1][0]], {name: gradients[name] for name in inputs}


# %% tags=["wrong", "q5"]
# expect: an input that is not used
def run_tape(tape, inputs):
    values = dict(inputs)
    functions = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "exp": np.exp,
        "tanh": np.tanh,
    }
    for name, op, arguments in tape:
        values[name] = functions[op](*(values[a] for a in arguments))
    gradients = {tape[-1][0]: 1.0}
    for name, op, arguments in reversed(tape):
        local = {
            "add": lambda: [1.0, 1.0],
            "mul": lambda: [values[arguments[1]], values[arguments[0]]],
            "exp": lambda: [values[name]],
            "tanh": lambda: [1.0 - values[name] ** 2],
        }[op]()
        for argument, derivative in zip(arguments, local, strict=True):
            upstream = gradients.get(name, 0.0)
            gradients[argument] = gradients.get(argument, 0.0) + upstream * derivative
    return values[tape[-1][0]], {name: gradients[name] for name in inputs if name in gradients}


# %% tags=["wrong", "q5"]
# expect: 3, 3c = 6, 3b = 9 expected
def run_tape(tape, inputs):
    values = dict(inputs)
    functions = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "exp": np.exp,
        "tanh": np.tanh,
    }
    for name, op, arguments in tape:
        values[name] = functions[op](*(values[a] for a in arguments))
    gradients = dict.fromkeys(values, 0.0)
    gradients[tape[-1][0]] = 1.0
    for name, op, arguments in tape:
        local = {
            "add": lambda: [1.0, 1.0],
            "mul": lambda: [values[arguments[1]], values[arguments[0]]],
            "exp": lambda: [values[name]],
            "tanh": lambda: [1.0 - values[name] ** 2],
        }[op]()
        for argument, derivative in zip(arguments, local, strict=True):
            gradients[argument] += gradients[name] * derivative
    return values[tape[-1][0]], {name: gradients[name] for name in inputs}


# %% [markdown] tags=["q6", "outcome-4"]
# ## Question 6 · Activations, and units that died
#
# Write
#
# - `activation(name, x)` for `"sigmoid"`, `"tanh"`, `"relu"` and `"leaky_relu"` (slope 0.01), which returns
#   `(value, derivative)`, two arrays of the shape of `x`, finite for entries up to ±10 000; the
#   derivative of the ReLU at 0 counts as 0, that of the leaky ReLU as 0.01;
# - `dead_units(x, weight, bias)` for a layer of ReLU units, `x` of shape `(n, d)`, `weight` `(h, d)`,
#   `bias` `(h,)`: a boolean array of shape `(h,)`, true for a unit whose output is 0 for *every* row of `x`.


# %% tags=["answer", "q6"]
def activation(name, x):
    """Return (value, derivative) of an activation function at x, same shape as x."""
    # BEGIN SOLUTION
    if name == "sigmoid":
        value = 0.5 + 0.5 * np.tanh(x / 2)
        return value, value * (1.0 - value)
    if name == "tanh":
        value = np.tanh(x)
        return value, 1.0 - value**2
    if name == "relu":
        return np.maximum(0.0, x), np.where(x > 0, 1.0, 0.0)
    if name == "leaky_relu":
        return np.where(x > 0, x, 0.01 * x), np.where(x > 0, 1.0, 0.01)
    raise ValueError(f"unknown activation {name!r}")
    # END SOLUTION


def dead_units(x, weight, bias):
    """Return a boolean array (h,): which ReLU units give 0 for every row of x."""
    # BEGIN SOLUTION
    return np.all(x @ weight.T + bias <= 0, axis=0)
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q6"]
# **Why.** $1/(1+e^{-x})$ overflows in $e^{-x}$ for $x < -709$; $\tfrac12 + \tfrac12\tanh(x/2)$ is the same
# function and cannot. Its derivative is at most $\tfrac14$ (at 0), that of tanh at most 1. A unit is
# dead on a data set when *no* row switches it on: then its gradient is 0 for every row, and no
# amount of training on these rows brings it back.


# %% tags=["test"]
def value_and_derivative(s, name, x):
    answer = given(s.activation(name, x), "activation")
    assert len(answer) == 2, "return two arrays, value and derivative"
    return np.asarray(answer[0]), np.asarray(answer[1])


@test("q6", 1, hint="the derivative of the sigmoid is s (1 - s), of tanh 1 - t²")
def sigmoid_and_tanh(s):
    x = 2 * rng(1).normal(size=(3, 4))
    sigma = 1 / (1 + np.exp(-x))
    value, derivative = value_and_derivative(s, "sigmoid", x)
    assert near(value, sigma), "sigmoid: the value is wrong"
    assert not near(derivative, sigma), "sigmoid: the derivative is s (1 - s), not s"
    assert near(derivative, sigma * (1 - sigma)), "sigmoid: the derivative is wrong"
    value, derivative = value_and_derivative(s, "tanh", x)
    assert near(value, np.tanh(x)), "tanh: the value is wrong"
    assert not near(derivative, 1 - np.tanh(x)), "tanh: the square is missing in 1 - tanh²"
    assert near(derivative, 1 - np.tanh(x) ** 2), "tanh: the derivative is wrong"


@test("q6", 1, hint="slope 1 on the right; on the left 0 for relu and 0.01 for leaky_relu")
def relu_and_leaky_relu(s):
    x = np.array([-2.0, -0.5, 0.0, 0.5, 3.0])
    value, derivative = value_and_derivative(s, "relu", x)
    assert near(value, [0.0, 0.0, 0.0, 0.5, 3.0]), f"relu: got {value}"
    assert near(derivative.astype(float), [0.0, 0.0, 0.0, 1.0, 1.0]), (
        f"relu derivative: got {derivative}"
    )
    value, derivative = value_and_derivative(s, "leaky_relu", x)
    assert near(value, [-0.02, -0.005, 0.0, 0.5, 3.0]), f"leaky_relu: got {value}"
    assert near(derivative, [0.01, 0.01, 0.01, 1.0, 1.0]), (
        f"leaky_relu derivative: got {derivative}"
    )


@test("q6", 1, hint="np.all over the rows")
def dead_on_every_row(s):
    r = rng(2)
    x, w = r.normal(size=(40, 5)), r.normal(size=(7, 5))
    b = np.array([0.0, -100.0, 0.3, 100.0, -2.0, -100.0, -4.0])
    off = x @ w.T + b <= 0
    dead = np.asarray(given(s.dead_units(x, w, b), "dead_units"))
    assert dead.shape == (7,), f"one answer for each unit: shape {dead.shape}, not (7,)"
    assert not np.array_equal(dead, off.any(axis=0)), (
        "a dead unit is off for *every* row, not for some row"
    )
    assert np.array_equal(dead, off.all(axis=0)), f"got {dead}"


@test("q6", 1, hidden=True, hint="the sigmoid is ½ + ½ tanh(x/2), which cannot overflow")
def huge_inputs(s):
    x = np.array([-1e4, -750.0, 750.0, 1e4])
    for name in ("sigmoid", "tanh", "relu", "leaky_relu"):
        with np.errstate(all="ignore"):
            value, derivative = value_and_derivative(s, name, x)
        assert np.all(np.isfinite(value)), f"{name} is not finite at ±10 000: {value}"
        assert np.all(np.isfinite(derivative)), f"the derivative of {name} is not finite at ±10 000"
    assert near(value_and_derivative(s, "sigmoid", x)[0], [0.0, 0.0, 1.0, 1.0])


@test("q6", 0.5, hidden=True, hint="one row, one unit")
def one_row(s):
    x = np.array([[1.0, -2.0]])
    assert np.asarray(s.dead_units(x, np.array([[1.0, 1.0]]), np.array([0.0]))).tolist() == [True]
    assert np.asarray(s.dead_units(x, np.array([[1.0, 0.0]]), np.array([0.0]))).tolist() == [False]


# %% tags=["wrong", "q6"]
# expect: the derivative is s (1 - s), not s
def activation(name, x):
    if name == "sigmoid":
        value = 0.5 + 0.5 * np.tanh(x / 2)
        return value, value
    if name == "tanh":
        return np.tanh(x), 1.0 - np.tanh(x) ** 2
    slope = 0.01 if name == "leaky_relu" else 0.0
    return np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)


def dead_units(x, weight, bias):
    return np.all(x @ weight.T + bias <= 0, axis=0)


# %% tags=["wrong", "q6"]
# expect: off for *every* row
def activation(name, x):
    if name == "sigmoid":
        value = 0.5 + 0.5 * np.tanh(x / 2)
        return value, value * (1 - value)
    if name == "tanh":
        return np.tanh(x), 1.0 - np.tanh(x) ** 2
    slope = 0.01 if name == "leaky_relu" else 0.0
    return np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)


def dead_units(x, weight, bias):
    return np.any(x @ weight.T + bias <= 0, axis=0)


# %% tags=["wrong", "q6"]
# expect: the derivative of sigmoid is not finite
def activation(name, x):
    if name == "sigmoid":
        return 0.5 + 0.5 * np.tanh(x / 2), np.exp(-x) / (1 + np.exp(-x)) ** 2
    if name == "tanh":
        return np.tanh(x), 1.0 - np.tanh(x) ** 2
    slope = 0.01 if name == "leaky_relu" else 0.0
    return np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)


def dead_units(x, weight, bias):
    return np.all(x @ weight.T + bias <= 0, axis=0)


# %% tags=["wrong", "q6"]
# expect: the square is missing
def activation(name, x):
    if name == "sigmoid":
        value = 0.5 + 0.5 * np.tanh(x / 2)
        return value, value * (1 - value)
    if name == "tanh":
        return np.tanh(x), 1.0 - np.tanh(x)
    slope = 0.01 if name == "leaky_relu" else 0.0
    return np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)


def dead_units(x, weight, bias):
    return np.all(x @ weight.T + bias <= 0, axis=0)


# %% [markdown] tags=["q7", "outcome-4"]
# ## Question 7 · Which loss belongs to a sigmoid?
#
# One output unit, $a = \sigma(z)$, labels 0 or 1. Write `sigmoid_loss_gradients(z, y)` for arrays of shape
# `(n,)`; return `(d_squared, d_cross_entropy)`, the derivatives of *each sample's* loss with
# respect to its $z$: of the squared error $(a - y)^2$, and of the cross-entropy
# $-y\ln a - (1-y)\ln(1-a)$, simplified as far as it goes. Both must be finite and exact for $|z|$ up to 1 000.


# %% tags=["answer", "q7"]
def sigmoid_loss_gradients(z, y):
    """Return d(a - y)²/dz and d cross-entropy/dz for a = sigmoid(z), both of shape (n,)."""
    # BEGIN SOLUTION
    a = 0.5 + 0.5 * np.tanh(z / 2)
    return 2.0 * (a - y) * a * (1.0 - a), a - y
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q7"]
# **Why.** The chain rule gives $\partial(a-y)^2/\partial z = 2(a-y)\,\sigma'(z)$ with $\sigma' = a(1-a)$. For the
# cross-entropy, $\partial\ell/\partial a = (a-y)/(a(1-a))$, and the $\sigma'$ of the chain rule cancels
# the denominator: $a - y$. So a confidently wrong unit ($z = -10$, $y = 1$) gets a gradient
# of about −1 from the cross-entropy and about $-10^{-4}$ from the squared error: it learns slowly just
# when it is most wrong. The cancellation happens in the *output* layer; the hidden layers keep their
# own derivatives.


# %% tags=["test"]
def logits(seed, n):
    r = rng(seed)
    return 2 * r.normal(size=n), r.integers(0, 2, size=n).astype(float)


@test("q7", 1, hint="chain rule: 2 (a - y) times the derivative of the sigmoid")
def squared_error(s):
    z, y = logits(1, 9)
    a = 1 / (1 + np.exp(-z))
    d = given(s.sigmoid_loss_gradients(z, y), "sigmoid_loss_gradients")[0]
    assert not near(d, 2 * (a - y)), "squared error: the derivative of the sigmoid is missing"
    assert not near(d, (a - y) * a * (1 - a)), "squared error: the factor 2 is missing"
    assert near(d, 2 * (a - y) * a * (1 - a)), f"squared error: got {d}"


@test("q7", 1, hint="the derivative of the sigmoid cancels")
def cross_entropy(s):
    z, y = logits(2, 8)
    a = 1 / (1 + np.exp(-z))
    d = s.sigmoid_loss_gradients(z, y)[1]
    assert not near(d, (a - y) * a * (1 - a)), (
        "cross-entropy: the factor a (1 - a) cancels, you have one too many"
    )
    assert not near(d, y - a), "cross-entropy: the sign is wrong"
    assert near(d, a - y), f"cross-entropy: got {d}"


@test(
    "q7", 1, hidden=True, hint="write the simplified formula, with a sigmoid that cannot overflow"
)
def confidently_wrong(s):
    z, y = np.array([-1000.0, -40.0, 40.0, 1000.0]), np.array([1.0, 1.0, 0.0, 0.0])
    with np.errstate(all="ignore"):
        squared, entropy = s.sigmoid_loss_gradients(z, y)
    assert np.all(np.isfinite(entropy)) and np.all(np.isfinite(squared)), (
        "not finite for large |z|: use the simplified form, not a quotient"
    )
    assert near(entropy, [-1.0, -1.0, 1.0, 1.0]), f"cross-entropy far out: got {entropy}"
    assert np.all(abs(squared) < 1e-15), f"squared error far out: got {squared}"


# %% tags=["wrong", "q7"]
# expect: the derivative of the sigmoid is missing
def sigmoid_loss_gradients(z, y):
    a = 0.5 + 0.5 * np.tanh(z / 2)
    return 2.0 * (a - y), a - y


# %% tags=["wrong", "q7"]
# expect: you have one too many
def sigmoid_loss_gradients(z, y):
    a = 0.5 + 0.5 * np.tanh(z / 2)
    return 2.0 * (a - y) * a * (1.0 - a), (a - y) * a * (1.0 - a)


# %% tags=["wrong", "q7"]
# expect: use the simplified form, not a quotient
def sigmoid_loss_gradients(z, y):
    a = 0.5 + 0.5 * np.tanh(z / 2)
    slope = a * (1.0 - a)
    return 2.0 * (a - y) * slope, (a - y) / slope * slope


# %% [markdown] tags=["q8", "outcome-5"]
# ## Question 8 · The training loop
#
# Initialise, batch, forward, loss, backward, update. Write the loop:
# `train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng)`.
#
# - `parameters` is a list of arrays; return *new* arrays and leave the given ones as they are;
# - `loss_and_gradients(parameters, x_batch, y_batch)` returns the mean loss of a batch and a list of
#   gradients, in the order of the parameters;
# - each epoch draws one `rng.permutation(n)` and goes through it in batches of `batch_size`, the last
#   one smaller where need be;
# - the update is that of `torch.optim.SGD`: velocity $\mathbf v \leftarrow \mu\mathbf v + \mathbf g$ from
#   $\mathbf v = 0$, then $\mathbf w \leftarrow \mathbf w - \eta\,\mathbf v$;
# - return `(parameters, history)`: `history` is a list with each epoch's mean loss *over samples*, every
#   sample's loss counted once, as it was when its batch came.


# %% tags=["answer", "q8"]
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    """Train by SGD with momentum; return (list of arrays, list of mean losses per epoch)."""
    parameters = [p.copy() for p in parameters]
    # BEGIN SOLUTION
    velocities = [np.zeros_like(p) for p in parameters]
    n, history = len(x), []
    for _ in range(epochs):
        order, total = rng.permutation(n), 0.0
        for start in range(0, n, batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
            parameters = [p - lr * v for p, v in zip(parameters, velocities, strict=True)]
            total += loss * len(batch)
        history.append(total / n)
    return parameters, history
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q8"]
# **Why.** The batch losses are means over batches of different sizes: weighting each by its size makes
# the epoch's figure the mean over samples. With torch's momentum the learning rate multiplies the
# velocity, not the gradient inside it; both forms agree only while the rate is constant. A
# factor $(1-\mu)$ on the gradient would be the same method with a learning rate smaller by that factor.


# %% tags=["test"]
def linear_problem(parameters, x, y):
    w, b = parameters
    r = x @ w + b - y
    return float(np.mean(r**2)), [2 * x.T @ r / len(y), np.array(2 * np.mean(r))]


def reference_train(parameters, f, x, y, lr, momentum, epochs, batch_size, rng):
    ps, vs, history = [p.copy() for p in parameters], [0.0 for _ in parameters], []
    for _ in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for i in range(0, len(x), batch_size):
            k = order[i : i + batch_size]
            loss, gs = f(ps, x[k], y[k])
            vs = [momentum * v + g for v, g in zip(vs, gs, strict=True)]
            ps = [p - lr * v for p, v in zip(ps, vs, strict=True)]
            total += loss * len(k)
        history.append(total / len(x))
    return ps, history


def case(seed, n=13, d=3):
    r = rng(seed)
    return [r.normal(size=d), np.array(0.5)], r.normal(size=(n, d)), r.normal(size=n)


def same(got, expected):
    return all(near(a, b, rtol=1e-8) for a, b in zip(got, expected, strict=True))


@test("q8", 1, hint="one batch with all samples, no momentum: w - lr * g")
def full_batch_step(s):
    p, x, y = case(1)
    got, _ = given(s.train(p, linear_problem, x, y, 0.1, 0.0, 1, 13, rng(1)), "train")
    expected, _ = reference_train(p, linear_problem, x, y, 0.1, 0.0, 1, 13, rng(1))
    assert not same(got, p), "the parameters did not change"
    assert same(got, expected), f"after one step: got {got}, expected {expected}"


@test("q8", 1, hint="range(0, n, batch_size), also for the last, smaller batch")
def mini_batches(s):
    p, x, y = case(2)
    got, _ = s.train(p, linear_problem, x, y, 0.05, 0.0, 2, 4, rng(2))
    assert same(got, reference_train(p, linear_problem, x, y, 0.05, 0.0, 2, 4, rng(2))[0]), (
        "two epochs of batches 4, 4, 4, 1: the parameters differ. Is the last batch used, is there one "
        "permutation an epoch?"
    )


@test("q8", 1, hint="v = momentum * v + g; w = w - lr * v")
def momentum(s):
    p, x, y = case(3)
    got, _ = s.train(p, linear_problem, x, y, 0.05, 0.9, 3, 13, rng(3))
    args = (linear_problem, x, y, 0.05, 0.9, 3, 13)
    expected = reference_train(p, *args, rng(3))[0]
    damped = reference_train(p, linear_problem, x, y, 0.05 * (1 - 0.9), 0.9, 3, 13, rng(3))[0]
    plain = reference_train(p, linear_problem, x, y, 0.05, 0.0, 3, 13, rng(3))[0]
    assert not same(got, damped), "momentum: torch does not multiply the gradient by (1 - momentum)"
    assert not same(got, plain), "momentum has no effect: the velocity must outlive the step"
    assert same(got, expected), f"momentum: got {got}, expected {expected}"


@test("q8", 1, hidden=True, hint="weight each batch's mean loss by the batch's size, divide by n")
def history_counts_every_sample_once(s):
    p, x, y = case(4)
    history = s.train(p, linear_problem, x, y, 0.05, 0.5, 3, 5, rng(4))[1]
    expected = reference_train(p, linear_problem, x, y, 0.05, 0.5, 3, 5, rng(4))[1]
    assert len(history) == 3, f"one loss an epoch: got {len(history)}"
    assert near(np.array(history, dtype=float), expected), (
        f"history: got {history}, expected {expected}; a small last batch must count less"
    )


@test("q8", 1, hidden=True, hint="p -= … changes the caller's array: copy, or write p = p - …")
def given_arrays_stay(s):
    p, x, y = case(5)
    before = [a.copy() for a in p]
    x0, y0 = x.copy(), y.copy()
    s.train(p, linear_problem, x, y, 0.1, 0.9, 2, 4, rng(5))
    assert same(p, before), "the given parameters were changed"
    assert near(x, x0) and near(y, y0), "x or y was changed"


@test(
    "q8",
    0.5,
    hidden=True,
    hint="no epochs: the start and an empty history; a batch larger than the data",
)
def edges(s):
    p, x, y = case(6, n=1)
    got, history = s.train(p, linear_problem, x, y, 0.1, 0.0, 0, 4, rng(6))
    assert same(got, p) and list(history) == []
    got, _ = s.train(p, linear_problem, x, y, 0.1, 0.0, 1, 99, rng(6))
    assert same(got, reference_train(p, linear_problem, x, y, 0.1, 0.0, 1, 99, rng(6))[0])


# %% tags=["wrong", "q8"]
# expect: torch does not multiply the gradient by (1 - momentum)
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    parameters = [p.copy() for p in parameters]
    velocities = [np.zeros_like(p) for p in parameters]
    history = []
    for _ in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            velocities = [
                momentum * v + (1 - momentum) * g
                for v, g in zip(velocities, gradients, strict=True)
            ]
            parameters = [p - lr * v for p, v in zip(parameters, velocities, strict=True)]
            total += loss * len(batch)
        history.append(total / len(x))
    return parameters, history


# %% tags=["wrong", "q8"]
# expect: a small last batch must count less
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    parameters = [p.copy() for p in parameters]
    velocities = [np.zeros_like(p) for p in parameters]
    history = []
    for _ in range(epochs):
        order, losses = rng.permutation(len(x)), []
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
            parameters = [p - lr * v for p, v in zip(parameters, velocities, strict=True)]
            losses.append(loss)
        history.append(np.mean(losses))
    return parameters, history


# %% tags=["wrong", "q8"]
# expect: Is the last batch used
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    parameters = [p.copy() for p in parameters]
    velocities = [np.zeros_like(p) for p in parameters]
    history = []
    for _ in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
            parameters = [p - lr * v for p, v in zip(parameters, velocities, strict=True)]
            total += loss * len(batch)
        history.append(total / len(x))
    return parameters, history


# %% tags=["wrong", "q8"]
# expect: the given parameters were changed
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    velocities = [np.zeros_like(p) for p in parameters]
    history = []
    for _ in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            for p, v, g in zip(parameters, velocities, gradients, strict=True):
                v[...] = momentum * v + g
                p -= lr * v
            total += loss * len(batch)
        history.append(total / len(x))
    return [p.copy() for p in parameters], history


# %% tags=["wrong", "q8"]
# expect: the velocity must outlive the step
def train(parameters, loss_and_gradients, x, y, lr, momentum, epochs, batch_size, rng):
    parameters = [p.copy() for p in parameters]
    history = []
    for _ in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            loss, gradients = loss_and_gradients(parameters, x[batch], y[batch])
            velocities = [np.zeros_like(p) for p in parameters]
            velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
            parameters = [p - lr * v for p, v in zip(parameters, velocities, strict=True)]
            total += loss * len(batch)
        history.append(total / len(x))
    return parameters, history


# %% [markdown] tags=["q9", "outcome-6"]
# ## Question 9 · Gradients through a deep network (experiment, open challenge)
#
# A deep network without biases: $\mathbf H_0 = \mathbf X$, $\mathbf H_l = \tanh(\mathbf H_{l-1}\mathbf W_l^\top)$ for
# $l = 1,\dots,L$. Write `layer_gradients(weights, x, dh)`: `weights` is the list of the $L$ matrices, `x` has
# shape `(n, d)`, and `dh` is the gradient of the loss with respect to $\mathbf H_L$. Return the list of the
# gradients $\partial\mathcal L/\partial\mathbf W_l$, from the first layer to the last.
#
# Then explore: draw the norms of the gradients over the layers for 30 layers of width 64, with weights of
# standard deviation $s/\sqrt{64}$ for several $s$. Which $s$ keeps the first layers alive? Does it
# depend on the size of the inputs? (There is no check for this part.)


# %% tags=["answer", "q9"]
def layer_gradients(weights, x, dh):
    """Return the gradients of all weights of a deep tanh network, first layer first."""
    # BEGIN SOLUTION
    activations = [x]
    for w in weights:
        activations.append(np.tanh(activations[-1] @ w.T))
    gradients = []
    for w, before, after in zip(
        reversed(weights), reversed(activations[:-1]), reversed(activations[1:]), strict=True
    ):
        da = dh * (1.0 - after**2)
        gradients.append(da.T @ before)
        dh = da @ w
    return gradients[::-1]
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q9"]
# **Why.** Each layer multiplies the gradient by $\mathbf W_l$ and by $1 - \mathbf H_l^2 \le 1$, the derivative *at that
# layer's own output*. With $s < 1$ the product shrinks exponentially with depth; with $s$ far above 1 the
# units saturate, so that $1 - \mathbf H^2$ is almost 0 while the matrices grow. Near $s = 1$ both stay in
# balance for tens of layers.


# %% tags=["test"]
def deep(seed, depth, width, n):
    r = rng(seed)
    weights = [r.normal(size=(width, width)) / np.sqrt(width) for _ in range(depth)]
    return weights, r.normal(size=(n, width)), r.normal(size=(n, width))


def reference_layers(weights, x, dh):
    hs = [x]
    for w in weights:
        hs.append(np.tanh(hs[-1] @ w.T))
    out = []
    for i in range(len(weights) - 1, -1, -1):
        da = dh * (1 - hs[i + 1] ** 2)
        out.insert(0, da.T @ hs[i])
        dh = da @ weights[i]
    return out


def all_near(got, expected):
    return len(got) == len(expected) and all(
        near(a, b, rtol=1e-8) for a, b in zip(got, expected, strict=True)
    )


@test("q9", 1, hint="one layer: dW = (dh * (1 - h²))ᵀ x")
def one_layer(s):
    weights, x, dh = deep(1, 1, 3, 5)
    got = given(s.layer_gradients(weights, x, dh), "layer_gradients")
    assert len(got) == 1, f"one gradient for each matrix: got {len(got)}"
    assert not near(got[0], dh.T @ x), "the derivative of tanh, 1 - h², is missing"
    assert near(got[0], reference_layers(weights, x, dh)[0]), f"got {got[0]}"


@test("q9", 1.5, hint="send da back through w: dh = da @ w; keep every layer's own output")
def four_layers(s):
    weights, x, dh = deep(2, 4, 3, 6)
    got, expected = s.layer_gradients(weights, x, dh), reference_layers(weights, x, dh)
    assert not all_near(got[::-1], expected), "the list is in the wrong order: first layer first"
    assert near(got[-1], expected[-1]), "the gradient of the last layer is wrong"
    assert near(got[-2], expected[-2]), (
        "the last layer is right, the one before it is not: does each layer use its own output, and its own matrix?"
    )
    assert all_near(got, expected), "the first layers are wrong"


@test("q9", 1.5, hidden=True, hint="compare with a numeric gradient of sum(dh * H_L)")
def numeric_gradient(s):
    weights, x, dh = deep(3, 3, 2, 4)
    got = s.layer_gradients(weights, x, dh)

    def value(ws):
        h = x
        for w in ws:
            h = np.tanh(h @ w.T)
        return np.sum(h * dh)

    for layer, w in enumerate(weights):
        for i in np.ndindex(w.shape):
            up, down = [a.copy() for a in weights], [a.copy() for a in weights]
            up[layer][i] += 1e-6
            down[layer][i] -= 1e-6
            numeric = (value(up) - value(down)) / 2e-6
            assert abs(got[layer][i] - numeric) < 1e-6, (
                f"layer {layer}, entry {i}: {got[layer][i]:.6f}, numerically {numeric:.6f}"
            )


@test(
    "q9", 1, hidden=True, hint="layers of different widths: the shapes of the matrices lead the way"
)
def different_widths(s):
    r = rng(4)
    widths = [5, 3, 7, 2]
    weights = [r.normal(size=(b, a)) for a, b in zip(widths, widths[1:], strict=False)]
    x, dh = r.normal(size=(1, 5)), r.normal(size=(1, 2))
    assert all_near(s.layer_gradients(weights, x, dh), reference_layers(weights, x, dh))


# %% tags=["wrong", "q9"]
# expect: the derivative of tanh, 1 - h², is missing
def layer_gradients(weights, x, dh):
    activations = [x]
    for w in weights:
        activations.append(np.tanh(activations[-1] @ w.T))
    gradients = []
    for i in range(len(weights) - 1, -1, -1):
        gradients.append(dh.T @ activations[i])
        dh = dh @ weights[i]
    return gradients[::-1]


# %% tags=["wrong", "q9"]
# expect: the list is in the wrong order
def layer_gradients(weights, x, dh):
    activations = [x]
    for w in weights:
        activations.append(np.tanh(activations[-1] @ w.T))
    gradients = []
    for i in range(len(weights) - 1, -1, -1):
        da = dh * (1.0 - activations[i + 1] ** 2)
        gradients.append(da.T @ activations[i])
        dh = da @ weights[i]
    return gradients


# %% tags=["wrong", "q9"]
# expect: does each layer use its own output
def layer_gradients(weights, x, dh):
    activations = [x]
    for w in weights:
        activations.append(np.tanh(activations[-1] @ w.T))
    gradients = []
    for i in range(len(weights) - 1, -1, -1):
        da = dh * (1.0 - activations[-1] ** 2)
        gradients.append(da.T @ activations[i])
        dh = da @ weights[i]
    return gradients[::-1]


# %% [markdown] tags=["q10", "outcome-6"]
# ## Question 10 · What is wrong with these training runs? (bug clinic)
#
# The next cell trains the same network (64 → 32 → 10, ReLU) on 1 000 images of handwritten digits six
# times; five of the six loops have one bug each. The first row of panels shows the mean cross-entropy of the
# training data; $\ln 10 \approx 2.3$ is the loss of guessing. Give for each run the **one** word that fits:
#
# - `"zero_init"`: all weights start at 0;
# - `"no_zero_grad"`: gradients are never reset, they add up over the steps;
# - `"wrong_sign"`: the step goes along the gradient, not against it;
# - `"dead_relu"`: the biases start so low that no hidden unit ever fires;
# - `"double_softmax"`: the softmax is applied before a loss that applies it again;
# - `"healthy"`.
#
# Two of the runs have the same loss curve. The other rows tell them apart: they show the share of
# hidden units that are on (averaged over images) and the norm of the first layer's weights. A curve
# that leaves its panel goes on growing.

# %% tags=["look"]
import matplotlib.pyplot as plt

from dlnotes import viz
from dlnotes.course import clinic

viz.use_style()
runs = clinic.mlp_runs()

rows = {"loss": (0, 5), "share of units on": (-0.05, 1), "weight norm": (-2, 40)}
fig, axes = plt.subplots(3, 6, figsize=(11, 6), layout="constrained", sharex=True, sharey="row")
for column, (name, run) in enumerate(runs.items()):
    axes[0, column].set_title(f"run {name}")
    for row, (label, limits) in enumerate(rows.items()):
        axes[row, column].plot(run[:, row])
        axes[row, column].set(xlabel="epoch", ylabel=label, ylim=limits)
viz.show(
    fig,
    alt="Six runs A to F by epoch: the loss in the first row, the share of hidden units that are on "
    "in the second, the norm of the first layer's weights in the third.",
)


# %% tags=["answer", "q10"]
def diagnosis():
    """Return a dictionary from the runs "A" … "F" to one word each."""
    # BEGIN SOLUTION
    return {
        "A": "double_softmax",
        "B": "dead_relu",
        "C": "healthy",
        "D": "wrong_sign",
        "E": "zero_init",
        "F": "no_zero_grad",
    }
    # END SOLUTION


# %% tags=["test"]
WORDS = {"zero_init", "no_zero_grad", "wrong_sign", "dead_relu", "double_softmax", "healthy"}


def word(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in WORDS, f"{answer[run]!r} is not one of {', '.join(sorted(WORDS))}"
    return answer[run]


@test("q10", 0.5, hint="it learns, but far more slowly than C")
def run_a(s):
    assert word(s, "A") != "healthy", "A: compare its loss after the last epoch with that of C"
    assert word(s, "A") == "double_softmax", "A: which bug flattens the output without stopping it?"


@test("q10", 0.5, hint="the loss stays near ln 10; look at the share of active units")
def run_b(s):
    assert word(s, "B") != "zero_init", (
        "B: zero weights and dead units look alike; which of B and E has weights at all?"
    )
    assert word(s, "B") == "dead_relu", "B: no hidden unit is on, no gradient passes"


@test("q10", 0.5, hint="what would you want to see?")
def run_c(s):
    assert word(s, "C") == "healthy", "C: the loss falls fast and smoothly"


@test("q10", 0.5, hint="the loss grows from the first epoch on")
def run_d(s):
    assert word(s, "D") != "no_zero_grad", (
        "D: adding up gradients makes the loss swing; this one only grows"
    )
    assert word(s, "D") == "wrong_sign", "D: it climbs the hill"


@test("q10", 0.5, hint="the loss stays near ln 10; which of the two such runs has no weights?")
def run_e(s):
    assert word(s, "E") == "zero_init", "E: look at the norm of its weights"


@test("q10", 0.5, hidden=True, hint="the steps grow with every batch")
def run_f(s):
    assert word(s, "F") != "wrong_sign", "F: it does not climb all the time, it is thrown about"
    assert word(s, "F") == "no_zero_grad", "F: the old gradients keep pushing"


# %% [markdown] tags=["reasoning", "q10"]
# **Why.** A: a second softmax of numbers between 0 and 1 gives nearly equal probabilities, so the gradient is small
# even when the decision is wrong. B and E: no signal passes the hidden layer in either; in B the biases of −9 keep the
# units off, in E all weights are 0, so that each factor of the products in both gradients is 0; only the output
# bias learns the class frequencies. D: the loss grows without end. F: the accumulated gradient acts like momentum with $\mu = 1$, which
# never forgets: the loss is thrown about.


# %% tags=["wrong", "q10"]
# expect: zero weights and dead units look alike
def diagnosis():
    return {
        "A": "double_softmax",
        "B": "zero_init",
        "C": "healthy",
        "D": "wrong_sign",
        "E": "dead_relu",
        "F": "no_zero_grad",
    }


# %% tags=["wrong", "q10"]
# expect: A: compare its loss after the last epoch
def diagnosis():
    return {
        "A": "healthy",
        "B": "dead_relu",
        "C": "healthy",
        "D": "wrong_sign",
        "E": "zero_init",
        "F": "no_zero_grad",
    }


# %% tags=["wrong", "q10"]
# expect: D: adding up gradients makes the loss swing
def diagnosis():
    return {
        "A": "double_softmax",
        "B": "dead_relu",
        "C": "healthy",
        "D": "no_zero_grad",
        "E": "zero_init",
        "F": "wrong_sign",
    }
