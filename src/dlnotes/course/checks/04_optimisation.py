"""Visible checks of exercises/04_optimisation.ipynb.

Built from solutions/04_optimisation.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "How fast may gradient descent go? (warm-up)", "visible": 3, "hidden": 2, "hidden_checks": 2},
    "q2": {"title": "Saddle points and the noise of a mini-batch", "visible": 2.5, "hidden": 2, "hidden_checks": 3},
    "q3": {"title": "SGD with momentum, as PyTorch has it", "visible": 2.5, "hidden": 2.5, "hidden_checks": 3},
    "q4": {"title": "AdaGrad, RMSProp, AdaDelta", "visible": 3, "hidden": 1.5, "hidden_checks": 2},
    "q5": {"title": "Adam and AdamW", "visible": 3.5, "hidden": 2, "hidden_checks": 2},
    "q6": {"title": "Learning-rate schedules", "visible": 4, "hidden": 1, "hidden_checks": 1},
    "q7": {"title": "Clip by the global norm", "visible": 3.5, "hidden": 3, "hidden_checks": 3},
    "q8": {"title": "Variance through the layers (derivation)", "visible": 3.5, "hidden": 2, "hidden_checks": 2},
    "q9": {"title": "Batch normalisation: training and inference", "visible": 3, "hidden": 2, "hidden_checks": 2},
    "q10": {"title": "The backward pass of layer normalisation (derivation)", "visible": 2.5, "hidden": 3, "hidden_checks": 2},
    "q11": {"title": "Batch, layer, instance and group normalisation", "visible": 2.5, "hidden": 1.5, "hidden_checks": 2},
    "q12": {"title": "A fair comparison (experiment)", "visible": 3, "hidden": 2, "hidden_checks": 2},
    "q13": {"title": "What is wrong with these training runs? (bug clinic)", "visible": 2.5, "hidden": 1, "hidden_checks": 2},
    "q14": {"title": "An optimiser for unknown problems (open challenge)", "visible": 3.5, "hidden": 2.5, "hidden_checks": 3},
}


import math


def near(actual, expected, rtol=1e-6, atol=1e-12):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


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
