"""Visible checks of exercises/02_mlp.ipynb.

Built from solutions/02_mlp.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "Logic from threshold units (warm-up)", "visible": 3, "hidden": 0.5, "hidden_checks": 1},
    "q2": {"title": "The perceptron", "visible": 2.5, "hidden": 1.5, "hidden_checks": 2},
    "q3": {"title": "The backward pass of a two-layer network (derivation)", "visible": 3, "hidden": 3, "hidden_checks": 2},
    "q4": {"title": "Why the order must be topological", "visible": 2.5, "hidden": 2, "hidden_checks": 2},
    "q5": {"title": "A tape", "visible": 2.5, "hidden": 2, "hidden_checks": 2},
    "q6": {"title": "Activations, and units that died", "visible": 3, "hidden": 1.5, "hidden_checks": 2},
    "q7": {"title": "Which loss belongs to a sigmoid?", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q8": {"title": "The training loop", "visible": 3, "hidden": 2.5, "hidden_checks": 3},
    "q9": {"title": "Gradients through a deep network (experiment, open challenge)", "visible": 2.5, "hidden": 2.5, "hidden_checks": 2},
    "q10": {"title": "What is wrong with these training runs? (bug clinic)", "visible": 2.5, "hidden": 0.5, "hidden_checks": 1},
}


def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


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
