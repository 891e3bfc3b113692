"""How good are the predictions? Metrics on NumPy arrays, each equal to scikit-learn's.

Everywhere the prediction comes first and the target second, as in PyTorch's losses;
scikit-learn's functions take them the other way round. Sums are made in float64 whatever the
inputs, and the results are Python floats or float64 arrays.

Shapes: n samples, c classes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from dlnotes import _validate, kernels

__all__ = [
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "cross_entropy",
    "entropy",
    "f1",
    "frechet_distance",
    "kl_divergence",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_squared_error",
    "precision",
    "r2_score",
    "recall",
    "root_mean_squared_error",
]

Values = np.ndarray | Sequence
AVERAGES = ("macro", "micro", "weighted", "binary", "none")
# Rows of float32 probabilities add up to 1 only to within rounding.
SUM_TOLERANCE = 1e-4


# --- Classification ---------------------------------------------------------------------------


def accuracy(prediction: Values, target: Values) -> float:
    """Return the share of samples whose predicted class is the target.

    `prediction` holds class indices (n,), or scores (n, c) of which the largest counts
    (logits and probabilities alike); `target` holds class indices (n,).
    """
    predicted, target = _labels(prediction, target)
    return float(np.mean(predicted == target))


def confusion_matrix(
    prediction: Values, target: Values, *, num_classes: int | None = None
) -> Int64[np.ndarray, "c c"]:
    """Count the samples of each class (row) that were predicted as each class (column).

    Inputs as in `accuracy`. Without `num_classes` there are as many classes as scores, or as
    the largest index says.

    Raises ValueError for a class index that is not below `num_classes`.
    """
    predicted, target = _labels(prediction, target)
    largest = int(max(predicted.max(), target.max()))
    if num_classes is None:
        scores = np.asarray(prediction)
        num_classes = max(scores.shape[1] if scores.ndim == 2 else 0, largest + 1)
    num_classes = _validate.integer("num_classes", num_classes, low=1)
    if largest >= num_classes:
        raise ValueError(f"num_classes is {num_classes}, but there is a class index {largest}")
    pairs = target * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def precision(
    prediction: Values, target: Values, *, average: str = "macro"
) -> float | Float64[np.ndarray, "c"]:
    """Return, of the samples predicted as a class, the share that belong to it: TP / (TP + FP).

    `average`: "macro" is the plain mean over the classes that occur; "weighted" weights them by
    their number of targets; "micro" pools all classes first; "binary" is class 1 alone; "none"
    gives one value per class 0 … c − 1. A class that is never predicted has precision 0. Inputs
    as in `accuracy`.
    """
    return _averaged("precision", prediction, target, average)


def recall(
    prediction: Values, target: Values, *, average: str = "macro"
) -> float | Float64[np.ndarray, "c"]:
    """Return, of the samples of a class, the share that were found: TP / (TP + FN).

    `average` as in `precision`. A class without targets has recall 0.
    """
    return _averaged("recall", prediction, target, average)


def f1(
    prediction: Values, target: Values, *, average: str = "macro"
) -> float | Float64[np.ndarray, "c"]:
    """Return the harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN).

    `average` as in `precision`; it averages the F1 values of the classes.
    """
    return _averaged("f1", prediction, target, average)


def _averaged(
    name: str, prediction: Values, target: Values, average: str
) -> float | Float64[np.ndarray, "c"]:
    """Compute precision, recall or F1 per class and average as asked."""
    _validate.one_of("average", average, AVERAGES)
    confusion = confusion_matrix(prediction, target)
    if average == "binary" and len(confusion) > 2:
        raise ValueError(f"average='binary' needs the classes 0 and 1, got {len(confusion)}")
    true_positives = np.diag(confusion).astype(np.float64)
    predicted = confusion.sum(axis=0)
    actual = confusion.sum(axis=1)
    if average == "micro":
        true_positives, predicted, actual = (
            np.atleast_1d(counts.sum()) for counts in (true_positives, predicted, actual)
        )
    numerator, denominator = {
        "precision": (true_positives, predicted),
        "recall": (true_positives, actual),
        "f1": (2 * true_positives, predicted + actual),
    }[name]
    values = numerator / np.maximum(denominator, 1)  # 0 / 0 counts as 0
    if average == "none":
        return values
    if average == "micro":
        return float(values[0])
    if average == "binary":
        return float(values[1]) if len(values) > 1 else 0.0
    occurs = (predicted + actual) > 0
    if average == "macro":
        return float(values[occurs].mean())
    return float(np.sum(values * actual) / actual.sum())


# --- Regression -------------------------------------------------------------------------------


def mean_squared_error(prediction: Values, target: Values) -> float:
    """Return the mean of (prediction − target)² over all entries; the shapes must be the same."""
    prediction, target = _numbers(prediction, target)
    return float(np.mean((prediction - target) ** 2))


def root_mean_squared_error(prediction: Values, target: Values) -> float:
    """Return √MSE, in the unit of the target; of several columns the mean of their RMSE."""
    prediction, target = _numbers(prediction, target)
    return float(np.mean(np.sqrt(np.mean((prediction - target) ** 2, axis=0))))


def mean_absolute_error(prediction: Values, target: Values) -> float:
    """Return the mean of |prediction − target| over all entries; the shapes must be the same."""
    prediction, target = _numbers(prediction, target)
    return float(np.mean(np.abs(prediction - target)))


def r2_score(prediction: Values, target: Values) -> float:
    """Return R² = 1 − Σ(target − prediction)² / Σ(target − mean)²; of several columns the mean.

    1 is perfect, 0 as good as the mean of the targets, below 0 worse. Where the targets are
    all the same it is 1 for a perfect prediction and else 0.

    Raises ValueError for fewer than two samples.
    """
    prediction, target = _numbers(prediction, target)
    if len(target) < 2:
        raise ValueError(f"target must have two samples or more for R², got {len(target)}")
    residual = np.sum((target - prediction) ** 2, axis=0)
    total = np.sum((target - target.mean(axis=0)) ** 2, axis=0)
    constant = total == 0
    score = 1 - residual / np.where(constant, 1, total)
    return float(np.mean(np.where(constant, residual == 0, score)))


# --- Probabilities ----------------------------------------------------------------------------


def cross_entropy(probabilities: Values, target: Values) -> float:
    """Return the mean of −log of the probability given to the target, in nats.

    `probabilities` is (n, c) with class indices (n,) or target probabilities (n, c) as `target`;
    or (n,), the probability of class 1, with targets 0 or 1. A target that was given probability
    0 makes it infinite. These are probabilities, not logits: `dlnotes.nn.CrossEntropyLoss` takes
    logits.
    """
    probabilities = _array("probabilities", probabilities).astype(np.float64)
    if probabilities.ndim == 1:
        if np.any((probabilities < 0) | (probabilities > 1)):
            raise ValueError("probabilities must be in [0, 1]; these look like logits")
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must have shape (n, c) or (n,), got {probabilities.shape}")
    _check_distribution("probabilities", probabilities)
    target = _array("target", target)
    if target.ndim == 2:
        _validate.same_shape(target=target, probabilities=probabilities)
        _check_distribution("target", target)
        return float(np.mean(-_times_log(target, probabilities).sum(axis=1)))
    n, c = probabilities.shape
    _check_labels("target", target, n)
    if target.max() >= c:
        raise ValueError(
            f"target must be below the number of classes, {c}; got a class index {target.max()}"
        )
    chosen = probabilities[np.arange(n), target.astype(np.int64)]
    with np.errstate(divide="ignore"):  # −log 0 = ∞ is the right answer
        return float(np.mean(-np.log(chosen)))


def entropy(p: Values) -> float | Float64[np.ndarray, "..."]:
    """Return −Σ p log p over the last axis, in nats; 0 log 0 counts as 0.

    `p` (…, c) gives shape (…); one distribution (c,) gives a float.
    """
    p = _array("p", p).astype(np.float64)
    _check_distribution("p", p)
    return _scalar(-_times_log(p, p).sum(axis=-1) + 0.0)  # + 0.0 turns −0.0 into 0.0


def kl_divergence(p: Values, q: Values) -> float | Float64[np.ndarray, "..."]:
    """Return KL(p ‖ q) = Σ p log(p / q) over the last axis, in nats.

    Infinite where q is 0 and p is not. `p` and `q` have the same shape (…, c); the result has
    shape (…), a float for one pair (Kullback and Leibler, 1951).
    """
    p, q = _array("p", p).astype(np.float64), _array("q", q).astype(np.float64)
    _validate.same_shape(p=p, q=q)
    _check_distribution("p", p)
    _check_distribution("q", q)
    # log p − log q, not log(p / q): the quotient may overflow.
    return _scalar((_times_log(p, p) - _times_log(p, q)).sum(axis=-1))


def _times_log(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return p log q with 0 log q = 0 for every q."""
    logarithm = np.full(p.shape, -np.inf)
    np.log(q, out=logarithm, where=q > 0)
    return np.multiply(p, logarithm, out=np.zeros(p.shape), where=p > 0)


# --- Detection --------------------------------------------------------------------------------


def average_precision(
    scores: Values, hits: Values, num_targets: int, *, interpolation: str = "all"
) -> float:
    """Return the area under precision against recall of one class's detections.

    `hits` (n,) says which detections, with `scores` (n,), found a target of their own. Precision
    at recall r is the largest at any recall ≥ r. interpolation: "all" (PASCAL from 2010) is the
    exact area, "11" (PASCAL 2007) the mean at the recalls 0, 0.1 … 1, "101" (COCO) at 0, 0.01 … 1.
    Equal scores stay in the given order. NaN without targets, 0 without detections.

    Raises ValueError for more hits than targets.
    """
    _validate.one_of("interpolation", interpolation, ("all", "11", "101"))
    num_targets = _validate.integer("num_targets", num_targets, low=0)
    scores, hits = np.asarray(scores, np.float64), np.asarray(hits)
    if scores.ndim != 1:
        raise ValueError(f"scores must have shape (n,), got {scores.shape}")
    _validate.same_shape(scores=scores, hits=hits)
    _validate.finite("scores", scores)
    if hits.size and hits.dtype != np.bool_:
        raise TypeError(f"hits must hold True or False, got dtype {hits.dtype}")
    if hits.sum() > num_targets:
        raise ValueError(f"hits must be at most num_targets, {num_targets}, got {hits.sum()}")
    if num_targets == 0:
        return float("nan")
    found = np.cumsum(hits[np.argsort(-scores, kind="stable")].astype(np.int64))
    recall = found / num_targets
    best = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
    if interpolation == "all":
        return float(np.sum(np.diff(recall, prepend=0) * best))
    points = int(interpolation) - 1
    # Recall ≥ i / points in whole numbers, so that rounding decides nothing.
    first = np.searchsorted(found * points, np.arange(points + 1) * num_targets)
    return float(np.append(best, 0.0)[first].mean())


def mean_average_precision(
    predictions: Sequence[dict],
    targets: Sequence[dict],
    *,
    iou_thresholds: Sequence[float] = (0.5,),
    interpolation: str = "all",
) -> float:
    """Return the mean of `average_precision` over the classes with targets and the thresholds.

    One dictionary for each image: "boxes" (n, 4), "labels" (n,) and, of predictions, "scores"
    (n,). In each image detections take, best score first, the target of their class that they
    overlap most among those not yet taken, if the IoU reaches the threshold (as COCO; Lin et al.,
    2014). COCO's measure: iou_thresholds=np.arange(0.5, 1, 0.05), interpolation="101". NaN
    without targets.
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"predictions and targets must be of the same images, got {len(predictions)} and "
            f"{len(targets)}"
        )
    if not len(iou_thresholds):
        raise ValueError("iou_thresholds must not be empty")
    for threshold in iou_thresholds:
        _validate.number("iou_thresholds", threshold, low=0, high=1)
    predictions = [_detections("predictions", image, scored=True) for image in predictions]
    targets = [_detections("targets", image, scored=False) for image in targets]
    values = []
    for label in sorted({int(label) for image in targets for label in image["labels"]}):
        pairs = [
            (_of_class(prediction, label), _of_class(target, label)["boxes"])
            for prediction, target in zip(predictions, targets, strict=True)
        ]
        scores = np.concatenate([prediction["scores"] for prediction, _ in pairs])
        count = sum(len(boxes) for _, boxes in pairs)
        for threshold in iou_thresholds:
            hits = np.concatenate([_hits(*pair, threshold) for pair in pairs])
            values.append(average_precision(scores, hits, count, interpolation=interpolation))
    return float(np.mean(values)) if values else float("nan")


def _detections(name: str, image: dict, scored: bool) -> dict[str, np.ndarray]:
    """Return one image's boxes, labels and scores as arrays of fitting shapes."""
    missing = ({"boxes", "labels"} | ({"scores"} if scored else set())) - image.keys()
    if missing:
        raise ValueError(f"{name} must have {', '.join(sorted(missing))} for each image")
    boxes = np.asarray(image["boxes"], np.float64).reshape(-1, 4)
    labels = np.asarray(image["labels"])
    result = {"boxes": boxes, "labels": labels}
    if scored:
        result["scores"] = np.asarray(image["scores"], np.float64)
    for key, values in result.items():
        if len(values) != len(boxes):
            raise ValueError(f"{name}: {key} must have one entry for each of {len(boxes)} boxes")
    return result


def _of_class(image: dict[str, np.ndarray], label: int) -> dict[str, np.ndarray]:
    return {key: values[image["labels"] == label] for key, values in image.items()}


def _hits(prediction: dict[str, np.ndarray], boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Return which detections find a target that no better one has taken."""
    hits = np.zeros(len(prediction["boxes"]), bool)
    free = kernels.box_iou(prediction["boxes"], boxes)
    if not free.size:
        return hits
    for i in np.argsort(-prediction["scores"], kind="stable"):
        best = free[i].argmax()
        if free[i, best] >= threshold:
            hits[i] = True
            free[:, best] = -1  # taken
    return hits


# --- Generated samples ------------------------------------------------------------------------


def frechet_distance(mean1: Values, cov1: Values, mean2: Values, cov2: Values) -> float:
    """Return |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), between two normal distributions.

    Of features of images it is the FID (Dowson and Landau, 1982; Heusel et al., 2017). Means
    (d,), covariances (d, d), symmetric; the result is at least 0. Cost O(d³).
    """
    from scipy.linalg import sqrtm

    mean1, mean2 = (_array(n, m).astype(float) for n, m in [("mean1", mean1), ("mean2", mean2)])
    if mean1.ndim != 1:
        raise ValueError(f"mean1 must have shape (d,), got {mean1.shape}")
    _validate.same_shape(mean1=mean1, mean2=mean2)
    covariances = []
    for name, value in {"cov1": cov1, "cov2": cov2}.items():
        value = _array(name, value).astype(float)
        _validate.has_shape(name, value, (len(mean1), len(mean1)), "(d, d) for means of (d,)")
        if not np.allclose(value, value.T):
            raise ValueError(f"{name} must be symmetric")
        covariances.append(value)
    # tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½, whose argument is symmetric: its eigenvalues are real.
    root = np.real(sqrtm(covariances[0]))
    eigenvalues = np.linalg.eigvalsh(root @ covariances[1] @ root.T)
    mixed = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    return float(max(0.0, np.sum((mean1 - mean2) ** 2) + traces - 2 * mixed))


# --- Checks of the arguments ------------------------------------------------------------------


def _array(name: str, values: Values) -> np.ndarray:
    """Return an array of finite numbers with one sample or more."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{name} must be an array of samples, got a single number")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return _validate.finite(name, array)


def _numbers(prediction: Values, target: Values) -> tuple[np.ndarray, np.ndarray]:
    """Check a regression's prediction and target; return them as float64."""
    prediction = _array("prediction", prediction)
    target = _array("target", target)
    # (n,) against (n, 1) would broadcast to (n, n) in silence.
    _validate.same_shape(prediction=prediction, target=target)
    return prediction.astype(np.float64), target.astype(np.float64)


def _check_labels(name: str, labels: np.ndarray, n: int | None = None) -> None:
    """Require class indices (n,): whole numbers from 0."""
    if labels.ndim != 1 or (n is not None and len(labels) != n):
        wanted = "(n,)" if n is None else f"({n},)"
        raise ValueError(f"{name} must hold class indices of shape {wanted}, got {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise TypeError(
            f"{name} must hold class indices (integers), got dtype {labels.dtype}; "
            "threshold probabilities first, or give scores of shape (n, c)"
        )
    if labels.min() < 0:
        raise ValueError(f"{name} must hold class indices from 0, got {labels.min()}")


def _labels(prediction: Values, target: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true class indices (n,) as int64."""
    prediction = _array("prediction", prediction)
    target = _array("target", target)
    _check_labels("target", target)
    predicted = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction
    _check_labels("prediction", predicted, len(target))
    return predicted.astype(np.int64), target.astype(np.int64)


def _check_distribution(name: str, p: np.ndarray) -> None:
    """Require non-negative numbers that add up to 1 along the last axis."""
    if np.any(p < 0):
        raise ValueError(f"{name} must not be negative, got {p.min():.3g}; these look like logits")
    sums = p.sum(axis=-1)
    if np.any(np.abs(sums - 1) > SUM_TOLERANCE):
        worst = sums.flat[np.abs(sums - 1).argmax()]
        raise ValueError(f"{name} must add up to 1 along the last axis, got a sum of {worst:.6g}")


def _scalar(values: np.ndarray | np.floating) -> float | np.ndarray:
    """Return a float for a single value, else the array."""
    return float(values) if values.ndim == 0 else values
