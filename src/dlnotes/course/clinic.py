"""Training runs for the bug clinics of the exercises: the patients, without their diagnoses.

Each function trains the runs of one clinic afresh, in well under a second, and returns their
curves by letter. Which letter has which illness is what the reader is asked; the solutions say.
"""

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
