"""Training runs for the bug clinics of the exercises: the patients, without their diagnoses.

Each function trains the runs of one clinic afresh, in well under a second, and returns their
curves by letter. Which letter has which illness is what the reader is asked; the solutions say.
"""

import itertools

import numpy as np
from jaxtyping import Float

Curves = dict[str, Float[np.ndarray, "steps columns"]]


def logistic_runs(steps: int = 200) -> Curves:
    """Train five logistic regressions on the breast-cancer data (chapter 1).

    Returns for each run "A" … "E" an array (steps, 2): mean log loss on the training and on the
    validation data before each step of full-batch gradient descent.
    """
    from dlnotes import data

    cancer = data.load("breast_cancer")
    x = np.asarray(cancer.train.x, dtype=np.float64)
    y = np.asarray(cancer.train.y, dtype=np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    order = np.random.default_rng(7).permutation(len(y))
    train, val = order[:150], order[150:400]
    one = np.ones((len(y), 1))
    noise = np.random.default_rng(8).normal(size=(len(y), 400))
    weak = np.hstack([x[:, 9:10], noise])

    def run(features, train, lr):
        w, curve = np.zeros(features.shape[1]), []
        for _ in range(steps):
            margins = (2 * y - 1) * (features @ w)
            curve.append([np.logaddexp(0, -margins[part]).mean() for part in (train, val)])
            p = 0.5 + 0.5 * np.tanh(features[train] @ w / 2)
            w = w - lr * features[train].T @ (p - y[train]) / len(train)
        return np.array(curve)

    return {
        "A": run(x, train, 0.0005),
        "B": run(x, train, 0.3),
        "C": run(one, train, 0.3),
        "D": run(weak, train[:40], 0.3),
        "E": run(x[:, 8:10], train, 100.0),
    }


def mlp_runs(epochs: int = 12, lr: float = 0.2) -> Curves:
    """Train a 64 → 32 → 10 ReLU network six times on 1 000 handwritten digits (chapter 2).

    Returns for each run "A" … "F" an array (epochs + 1, 3): mean cross-entropy, share of hidden
    units that are on, and the Euclidean norm of the first layer's weights, at the start and after
    each epoch. Five of the six training loops have one bug.
    """
    from dlnotes import data
    from dlnotes.kernels import softmax

    digits = data.load("digits")
    x = np.asarray(digits.train.x, dtype=np.float64)[:1000].reshape(1000, -1)
    x, y = x / x.max(), np.asarray(digits.train.y)[:1000]
    one_hot = np.eye(10)[y]

    def run(weight_scale=1.0, hidden_bias=0.0, sign=-1.0, twice=False, keep=0.0):
        rng = np.random.default_rng(0)
        w1 = weight_scale * rng.normal(size=(32, 64)) / 6
        w2 = weight_scale * rng.normal(size=(10, 32)) / 4
        parameters = [w1, np.full(32, hidden_bias), w2, np.zeros(10)]
        kept, curve = [0.0] * 4, []

        def record():
            w1, b1, w2, b2 = parameters
            h = np.maximum(0.0, x @ w1.T + b1)
            z = h @ w2.T + b2
            top = z.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0]
            loss = np.mean(log_sum - z[np.arange(len(y)), y])
            curve.append([loss, np.mean(h > 0), np.linalg.norm(w1)])

        record()
        for _ in range(epochs):
            for batch in np.split(rng.permutation(len(y)), 20):
                w1, b1, w2, b2 = parameters
                h = np.maximum(0.0, x[batch] @ w1.T + b1)
                p = softmax(h @ w2.T + b2)
                q = softmax(p) if twice else p
                dz = (q - one_hot[batch]) / len(batch)
                if twice:
                    dz = p * (dz - np.sum(dz * p, axis=1, keepdims=True))
                da = dz @ w2 * (h > 0)
                gradients = [da.T @ x[batch], da.sum(axis=0), dz.T @ h, dz.sum(axis=0)]
                kept = [keep * k + g for k, g in zip(kept, gradients, strict=True)]
                parameters = [w + sign * lr * k for w, k in zip(parameters, kept, strict=True)]
            record()
        return np.array(curve)

    return {
        "A": run(twice=True),
        "B": run(hidden_bias=-9.0),
        "C": run(),
        "D": run(sign=0.05),
        "E": run(weight_scale=0.0),
        "F": run(keep=1.0),
    }


def convolution_runs(epochs: int = 12) -> Curves:
    """Train a small convolutional network six times on handwritten digits of 8 × 8 (chapter 3).

    Eight 3×3 kernels, ReLU, max pooling 2×2, a dense layer; SGD with batches of 25. Returns for
    each run "A" … "F" an array (epochs + 1, 4): mean cross-entropy on the training data and on 200
    validation images, Euclidean norm of the kernels' gradient on the training data, and distance
    of the kernels from their start, at the start and after each epoch. Five runs have one fault.
    """
    from dlnotes import data, kernels

    digits = data.load("digits")
    x = np.asarray(digits.train.x, dtype=np.float64)[:700].reshape(700, 1, 8, 8)
    x, y = x / x.max() - 0.5, np.asarray(digits.train.y)[:700]

    def run(lr=0.1, n=500, kernel_step=1.0, turned=False, mixed=False):
        rng = np.random.default_rng(0)
        w, b = rng.normal(size=(8, 1, 3, 3)) / 2, np.zeros(8)
        v, c = rng.normal(size=(10, 128)) / 12, np.zeros(10)
        start, curve = w, []
        val = x[500:].swapaxes(2, 3) if turned else x[500:]
        labels = rng.permutation(y[:n]) if mixed else y[:n]

        def gradients(x, y):
            maps = kernels.conv2d(x, w, b, 1, 1)
            pooled = kernels.max_pool2d(np.maximum(maps, 0), 2)
            flat = pooled.reshape(len(x), -1)
            z = flat @ v.T + c
            log_sum = np.logaddexp.reduce(z, axis=1)
            loss = np.mean(log_sum - z[np.arange(len(y)), y])
            dz = (np.exp(z - log_sum[:, None]) - np.eye(10)[y]) / len(x)
            dpooled = (dz @ v).reshape(pooled.shape)
            dmaps = kernels.max_pool2d_backward(dpooled, np.maximum(maps, 0), 2) * (maps > 0)
            _, dw, db = kernels.conv2d_backward(dmaps, x, w, b, 1, 1)
            return loss, dw, db, dz.T @ flat, dz.sum(axis=0)

        for epoch in range(epochs + 1):
            loss, dw, *_ = gradients(x[:n], labels)
            sizes = np.linalg.norm(dw), np.linalg.norm(w - start)
            curve.append([loss, gradients(val, y[500:])[0], *sizes])
            for batch in np.split(rng.permutation(n), n // 25) if epoch < epochs else ():
                _, dw, db, dv, dc = gradients(x[batch], labels[batch])
                w, b = w - kernel_step * lr * dw, b - kernel_step * lr * db
                v, c = v - lr * dv, c - lr * dc
        return np.array(curve)

    return {
        "A": run(turned=True),
        "B": run(kernel_step=0.0),
        "C": run(lr=4.0),
        "D": run(),
        "E": run(n=25, lr=0.3),
        "F": run(mixed=True),
    }


def optimisation_runs(steps: int = 240, every: int = 4) -> Curves:
    """Train a ReLU network seven times on 1 000 handwritten digits (chapter 4).

    Returns for each run "A" … "G" an array (records, 6), one row for the first step and one for
    each `every` steps. Its columns: the step, counted from 1; the mean cross-entropy of the
    training data; of 200 validation images put through the network all at once; of the same images
    in batches of five, sorted by class; the Euclidean norm of the gradient of the first layer's
    weights; the largest entry of the step, divided by the learning rate. Losses are those before
    the step. Runs B, D and F use Adam and batch normalisation, the others SGD without it.
    """
    from dlnotes import data
    from dlnotes.kernels import softmax

    digits = data.load("digits")
    x = np.asarray(digits.train.x, dtype=np.float64)[:1200].reshape(1200, -1)
    x, y = x / x.max(), np.asarray(digits.train.y)[:1200]
    x = x - x[:1000].mean(axis=0)
    one_hot = np.eye(10)[y]
    train, val = np.arange(1000), 1000 + np.argsort(y[1000:], kind="stable")

    def run(
        lr, hidden=(32, 32), batch=50, adam=False, corrected=True, evaluates=True, scale=1.0, bad=0
    ):
        rng = np.random.default_rng(3)
        widths, last = [64, *hidden, 10], len(hidden)
        pairs = itertools.pairwise(widths)
        weights = [scale * np.sqrt(2 / a) * rng.normal(size=(b, a)) for a, b in pairs]
        weights[last] /= 2
        biases = [np.zeros(b) for b in widths[1:]]
        parameters = weights + biases
        means, variances = [np.zeros(b) for b in hidden], [np.ones(b) for b in hidden]
        m, v, curve = [0.0] * len(parameters), [0.0] * len(parameters), []

        def forward(images, training, keep=False):
            h, tape = images, []
            for layer in range(last):
                a, spread = h @ weights[layer].T + biases[layer], 1.0
                if adam:
                    mean, var = a.mean(axis=-2, keepdims=True), a.var(axis=-2, keepdims=True)
                    if keep:
                        means[layer] = 0.9 * means[layer] + 0.1 * mean
                        variances[layer] = 0.9 * variances[layer] + 0.1 * var
                    if not training:
                        mean, var = means[layer], variances[layer]
                    spread = np.sqrt(var + 1e-5)
                    a = (a - mean) / spread
                tape.append((h, a, spread))
                h = np.maximum(0.0, a)
            return h @ weights[last].T + biases[last], [*tape, (h, None, None)]

        def loss(part, size):
            batches = x[part].reshape(-1, size, 64)
            z = forward(batches, not evaluates)[0].reshape(-1, 10)
            top = z.max(axis=1, keepdims=True)
            return np.mean(
                np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(len(z)), y[part]]
            )

        for step in range(1, steps + 1):
            part = rng.choice(train, size=batch, replace=False)
            z, tape = forward(x[part] * (1000.0 if step == bad else 1.0), True, keep=True)
            d = (softmax(z) - one_hot[part]) / batch
            dw, db = [d.T @ tape[last][0]], [d.sum(axis=0)]
            for layer in reversed(range(last)):
                h, a, spread = tape[layer]
                d = d @ weights[layer + 1] * (a > 0)
                if adam:
                    d = (d - d.mean(axis=0) - a * (d * a).mean(axis=0)) / spread
                dw.insert(0, d.T @ h)
                db.insert(0, d.sum(axis=0))
            moves = dw + db
            if adam:
                m = [0.9 * old + 0.1 * g for old, g in zip(m, dw + db, strict=True)]
                v = [0.999 * old + 0.001 * g**2 for old, g in zip(v, dw + db, strict=True)]
                c1, c2 = (1 - 0.9**step, 1 - 0.999**step) if corrected else (1.0, 1.0)
                moves = [a / c1 / (np.sqrt(b / c2) + 1e-8) for a, b in zip(m, v, strict=True)]
            if step == 1 or step % every == 0:
                losses = [loss(train, 1000), loss(val, 200), loss(val, 5)]
                largest = max(abs(move).max() for move in moves)
                curve.append([step, *losses, np.linalg.norm(dw[0]), largest])
            for parameter, move in zip(parameters, moves, strict=True):
                parameter -= lr * move
        return np.array(curve)

    return {
        "A": run(0.2, bad=120),
        "B": run(0.01, adam=True, evaluates=False),
        "C": run(0.1, hidden=(32,) * 5, scale=0.2),
        "D": run(0.01, adam=True, corrected=False),
        "E": run(0.4, hidden=(32,), batch=2),
        "F": run(0.01, adam=True),
        "G": run(8.0),
    }


def regularization_runs(epochs: int = 30) -> Curves:
    """Train a 64 → 32 → 10 ReLU network six times on 200 handwritten digits (chapter 5).

    Returns for each run "A" … "F" an array (epochs, 5). Its columns, after each epoch: the mean
    cross-entropy of the training data; of the validation data; of 500 fresh examples that nobody
    had when the run was made; of the same validation data, measured once more; and the median
    distance from a validation example to the nearest training example, divided by that from a
    fresh example. In run E the inputs are 64 measurements chosen out of 3 000.
    """
    from dlnotes import data
    from dlnotes.kernels import softmax

    digits = data.load("digits")
    pixels = np.asarray(digits.train.x, dtype=np.float64)[:1200].reshape(1200, -1)
    pixels, y = pixels / pixels.max(), np.asarray(digits.train.y)[:1200]
    train, val, fresh = np.arange(200), np.arange(200, 400), np.arange(400, 900)

    def nearest(new, old):
        squares = (new**2).sum(1)[:, None] - 2 * new @ old.T + (old**2).sum(1)
        return np.sqrt(np.maximum(squares.min(axis=1), 0.0))

    def run(parts, labels, lr=0.5, decay=0.0, drop=0.0):
        rng = np.random.default_rng(5)
        w1, w2 = rng.normal(size=(32, 64)) / 6, rng.normal(size=(10, 32)) / 4
        b1, b2 = np.zeros(32), np.zeros(10)
        inputs, curve = parts[0], []
        ratio = np.median(nearest(parts[1], inputs)) / np.median(nearest(parts[2], inputs))

        def forward(x):
            h = np.maximum(0.0, x @ w1.T + b1)
            h = h * (rng.random(h.shape) >= drop) / (1 - drop)
            return h, h @ w2.T + b2

        def loss(x, labels):
            z = forward(x)[1]
            top = z.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0]
            return np.mean(log_sum - z[np.arange(len(z)), labels])

        for _ in range(epochs):
            for batch in np.split(rng.permutation(len(inputs)), 10):
                x, one_hot = inputs[batch], np.eye(10)[labels[0][batch]]
                h, z = forward(x)
                dz = (softmax(z) - one_hot) / len(batch)
                da = dz @ w2 / (1 - drop) * (h > 0)
                weights = [da.T @ x + decay * w1, dz.T @ h + decay * w2]
                slopes = [*weights, da.sum(axis=0), dz.sum(axis=0)]
                for parameter, slope in zip((w1, w2, b1, b2), slopes, strict=True):
                    parameter -= lr * slope
            sets = [loss(part, label) for part, label in zip(parts, labels, strict=True)]
            curve.append([*sets, loss(parts[1], labels[1]), ratio])
        return np.array(curve)

    honest = [pixels[part] for part in (train, val, fresh)]
    labels = [y[part] for part in (train, val, fresh)]
    rng = np.random.default_rng(11)
    copies = pixels[train] + 0.02 * rng.normal(size=(200, 64))
    wrong = np.where(rng.random(200) < 0.4, rng.integers(0, 10, 200), labels[0])
    few = [np.arange(60), np.arange(60, 120), fresh]
    noise = rng.normal(size=(900, 3000))
    known = np.eye(10)[y[:120]] - np.eye(10)[y[:120]].mean(axis=0)
    chosen = np.argsort(-((noise[:120].T @ known) ** 2).sum(axis=1))[:64]
    measurements = [noise[part][:, chosen] / 3 for part in few]
    return {
        "A": run(honest, [wrong, *labels[1:]]),
        "B": run([honest[0], copies, honest[2]], [labels[0], labels[0], labels[2]]),
        "C": run(honest, labels, decay=0.3, lr=0.1),
        "D": run(honest, labels, drop=0.5, lr=0.2),
        "E": run(measurements, [y[part] for part in few], lr=0.05),
        "F": run(honest, labels, decay=0.003, lr=0.2),
    }
