"""How good are the predictions? Metrics on NumPy arrays, equal to scikit-learn's where it has them.

Everywhere the prediction comes first and the target second, as in PyTorch's losses; scikit-learn's
functions take them the other way round. Arguments are arrays or nested lists of numbers of any
dtype; class indices and row numbers must be integers. Sums are made in float64 whatever the inputs,
and the results are Python floats or float64 arrays, counts and indices int64.

In each: TypeError for what does not hold numbers, or for floats where integers are asked for;
ValueError for NaN or infinity, no samples (both unless the function says otherwise), shapes that do
not fit, and numbers or settings out of range. Where nothing else is said the cost is O(size of the
arguments), and the definition that of textbooks (Murphy, 2022, section 5.1).

Shapes: n samples, c classes.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from dlnotes import _validate, kernels

__all__ = [
    "accuracy",
    "analogy_accuracy",
    "average_precision",
    "bleu",
    "brier_score",
    "calibration_curve",
    "confident_joint",
    "confusion_matrix",
    "cross_entropy",
    "entropy",
    "equal_error_rate",
    "expected_calibration_error",
    "f1",
    "frechet_distance",
    "js_divergence",
    "kl_divergence",
    "label_issues",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_squared_error",
    "nearest_neighbours",
    "perplexity",
    "precision",
    "r2_score",
    "recall",
    "roc_auc",
    "roc_curve",
    "root_mean_squared_error",
    "sample_precision_recall",
    "spearman_correlation",
    "true_accept_rate",
    "weat_effect_size",
]

Values = np.ndarray | Sequence
AVERAGES = ("macro", "micro", "weighted", "binary", "none")
# Rows of float32 probabilities add up to 1 only to within rounding.
SUM_TOLERANCE = 1e-4


# --- Classification ---------------------------------------------------------------------------


def accuracy(prediction: Values, target: Values) -> float:
    """Return the share of samples whose predicted class is the target.

    `prediction` holds class indices (n,), or scores (n, c) of which the largest counts (logits and
    probabilities alike); `target` holds class indices (n,). Between 0 and 1; on ties the first of
    the largest scores counts.
    """
    predicted, target = _labels(prediction, target)
    return float(np.mean(predicted == target))


def confusion_matrix(
    prediction: Values, target: Values, *, num_classes: int | None = None
) -> Int64[np.ndarray, "c c"]:
    """Count the samples of each class (row) that were predicted as each class (column).

    Inputs as in `accuracy`; int64 (c, c), which adds up to n. Cost O(n + c²). Without `num_classes`
    there are as many classes as scores, or as the largest index says.

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
) -> float | Float64[np.ndarray, " c"]:
    """Return, of the samples predicted as a class, the share that belong to it: TP / (TP + FP).

    `average`: "macro" is the plain mean over the classes that occur; "weighted" weights them by
    their number of targets; "micro" pools all classes first; "binary" is class 1 alone; "none"
    gives one value per class 0 … c − 1. A class that is never predicted has precision 0. Inputs as
    in `accuracy`; values between 0 and 1 (Manning, Raghavan and Schütze, 2008, chapter 8).
    ValueError for another `average`, and for "binary" with a class above 1. Cost O(n + c²).
    """
    return _averaged("precision", prediction, target, average)


def recall(
    prediction: Values, target: Values, *, average: str = "macro"
) -> float | Float64[np.ndarray, " c"]:
    """Return, of the samples of a class, the share that were found: TP / (TP + FN).

    Inputs, `average`, range, errors and source as in `precision`. A class without targets has
    recall 0.
    """
    return _averaged("recall", prediction, target, average)


def f1(
    prediction: Values, target: Values, *, average: str = "macro"
) -> float | Float64[np.ndarray, " c"]:
    """Return the harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN).

    Inputs, `average`, range and errors as in `precision`; it averages the F1 values of the classes.
    """
    return _averaged("f1", prediction, target, average)


def _averaged(
    name: str, prediction: Values, target: Values, average: str
) -> float | Float64[np.ndarray, " c"]:
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
    """Return the mean of (prediction − target)² over all entries; the shapes must be the same.

    Any shape; at least 0, in the square of the target's unit.
    """
    prediction, target = _numbers(prediction, target)
    return float(np.mean((prediction - target) ** 2))


def root_mean_squared_error(prediction: Values, target: Values) -> float:
    """Return √MSE, in the unit of the target; of several columns the mean of their RMSE.

    (n, …) both, of the same shape, the first axis being the samples; at least 0.
    """
    prediction, target = _numbers(prediction, target)
    return float(np.mean(np.sqrt(np.mean((prediction - target) ** 2, axis=0))))


def mean_absolute_error(prediction: Values, target: Values) -> float:
    """Return the mean of |prediction − target| over all entries; the shapes must be the same.

    Any shape; at least 0, in the unit of the target.
    """
    prediction, target = _numbers(prediction, target)
    return float(np.mean(np.abs(prediction - target)))


def r2_score(prediction: Values, target: Values) -> float:
    """Return R² = 1 − Σ(target − prediction)² / Σ(target − mean)²; of several columns the mean.

    1 is perfect, 0 as good as the mean of the targets, below 0 worse. Where the targets are
    all the same it is 1 for a perfect prediction and else 0.

    Both (n, …), of the same shape (Wright, 1921). ValueError for fewer than two samples.
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

    `probabilities` is (n, c) with class indices (n,) or target probabilities (n, c) as `target`; or
    (n,), the probability of class 1, with targets 0 or 1. A target that was given probability 0
    makes it infinite. These are probabilities, not logits: `dlnotes.nn.CrossEntropyLoss` takes
    logits. At least 0, up to rounding (Shannon, 1948). ValueError for rows that do not add up to 1
    within 1e-4.
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
    _check_classes(target, c)
    chosen = probabilities[np.arange(n), target.astype(np.int64)]
    with np.errstate(divide="ignore"):  # −log 0 = ∞ is the right answer
        return float(np.mean(-np.log(chosen)))


def entropy(p: Values) -> float | Float64[np.ndarray, "..."]:
    """Return −Σ p log p over the last axis, in nats; 0 log 0 counts as 0.

    `p` (…, c) gives shape (…); one distribution (c,) gives a float. Between 0 and log c, up to
    rounding (Shannon, 1948). ValueError for numbers that are negative or do not add up to 1 within
    1e-4.
    """
    p = _array("p", p).astype(np.float64)
    _check_distribution("p", p)
    return _scalar(-_times_log(p, p).sum(axis=-1) + 0.0)  # + 0.0 turns −0.0 into 0.0


def kl_divergence(p: Values, q: Values) -> float | Float64[np.ndarray, "..."]:
    """Return KL(p ‖ q) = Σ p log(p / q) over the last axis, in nats.

    Infinite where q is 0 and p is not. `p` and `q` have the same shape (…, c); the result has shape
    (…), a float for one pair (Kullback and Leibler, 1951). At least 0, up to rounding. Errors as in
    `entropy`.
    """
    p, q = _array("p", p).astype(np.float64), _array("q", q).astype(np.float64)
    _validate.same_shape(p=p, q=q)
    _check_distribution("p", p)
    _check_distribution("q", q)
    # log p − log q, not log(p / q): the quotient may overflow.
    return _scalar((_times_log(p, p) - _times_log(p, q)).sum(axis=-1))


def js_divergence(p: Values, q: Values) -> float | Float64[np.ndarray, "..."]:
    """Return the Jensen-Shannon divergence (KL(p ‖ m) + KL(q ‖ m)) / 2, m = (p + q) / 2, in nats.

    Symmetric, and between 0 (p = q) and log 2 (nothing in common) where KL is infinite (Lin, 1991).
    Against the best discriminator a GAN's generator minimises it: the game's value is 2 JS - log 4
    (Goodfellow et al., 2014). Shapes as in `kl_divergence`. Cost O(size).
    """
    p, q = _array("p", p).astype(np.float64), _array("q", q).astype(np.float64)
    _validate.same_shape(p=p, q=q)
    middle = (p + q) / 2
    return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


def _times_log(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return p log q with 0 log q = 0 for every q."""
    logarithm = np.full(p.shape, -np.inf)
    np.log(q, out=logarithm, where=q > 0)
    return np.multiply(p, logarithm, out=np.zeros(p.shape), where=p > 0)


def perplexity(loss: Values | float) -> float:
    """Return e to the mean cross-entropy in nats: among how many words the model wavers.

    `loss` holds −log p of each token (any shape), or is already the mean. Infinite for a token of
    probability 0. At least 1 (Jelinek, Mercer, Bahl and Baker, 1977). ValueError for negative
    numbers and NaN.
    """
    loss = np.asarray(loss)
    if loss.dtype.kind not in "biuf":
        raise TypeError(f"loss must hold numbers, got dtype {loss.dtype}")
    if not loss.size:
        raise ValueError(f"loss must not be empty, got shape {loss.shape}")
    if not (loss >= 0).all():  # NaN too
        raise ValueError(f"loss must hold −log p, which is at least 0, got {loss.min()}")
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(loss, dtype=np.float64)))


# --- Calibration ------------------------------------------------------------------------------


def calibration_curve(
    probabilities: Values, target: Values, *, n_bins: int = 10, strategy: str = "uniform"
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"], Int64[np.ndarray, " bins"]]:
    """Return, for each bin of confidence: its mean confidence, its accuracy, its samples.

    The confidence is the probability given to the predicted class. `probabilities` (n, c) with
    class indices (n,), or (n,), the probability of class 1, where the confidence is that of class 1
    and the accuracy the share of class 1, as in scikit-learn. Bins are of equal width, closed on
    the right ("uniform"), or hold equally many samples ("quantile"). Empty bins are left out (Guo
    et al., 2017). ValueError for n_bins below 1 or another strategy. Cost O(n (c + log n_bins)).
    """
    confidence, right = _confidence(probabilities, target)
    n_bins = _validate.integer("n_bins", n_bins, low=1)
    if _validate.one_of("strategy", strategy, ("uniform", "quantile")) == "uniform":
        inner = np.linspace(0, 1, n_bins + 1)[1:-1]
    else:
        inner = np.percentile(confidence, 100 * np.linspace(0, 1, n_bins + 1)[1:-1])
    bins = np.searchsorted(inner, confidence)
    count = np.bincount(bins, minlength=n_bins)
    used = count > 0
    sums = [np.bincount(bins, v, n_bins)[used] for v in (confidence, right)]
    return sums[0] / count[used], sums[1] / count[used], count[used].astype(np.int64)


def expected_calibration_error(
    probabilities: Values, target: Values, *, n_bins: int = 10, strategy: str = "uniform"
) -> float:
    """Return the mean over the samples of |accuracy − confidence| of their bin.

    Arguments as in `calibration_curve`. It depends on the bins: say which (Naeini et al., 2015).
    Between 0 and 1.
    """
    confidence, accuracy, count = calibration_curve(
        probabilities, target, n_bins=n_bins, strategy=strategy
    )
    return float(np.sum(count * np.abs(accuracy - confidence)) / count.sum())


def brier_score(probabilities: Values, target: Values) -> float:
    """Return the mean squared distance of the probabilities from the one-hot target.

    (n, c) with class indices (n,): the sum over the classes, between 0 and 2. (n,), the probability
    of class 1, with targets 0 or 1: (p − y)², as in scikit-learn, between 0 and 1 (Brier, 1950).
    """
    probabilities, target = _probabilities(probabilities, target)
    if probabilities.ndim == 1:
        return float(np.mean((probabilities - target) ** 2))
    one_hot = np.arange(probabilities.shape[1]) == target[:, None]
    return float(np.mean(((probabilities - one_hot) ** 2).sum(axis=1)))


def _confidence(probabilities: Values, target: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure the model was of its answer, and whether it was right, (n,) each."""
    probabilities, target = _probabilities(probabilities, target)
    if probabilities.ndim == 1:
        return probabilities, target == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == target


def _probabilities(probabilities: Values, target: Values) -> tuple[np.ndarray, np.ndarray]:
    probabilities = _array("probabilities", probabilities).astype(np.float64)
    target = _array("target", target)
    _check_labels("target", target, len(probabilities))
    if probabilities.ndim == 1:
        _validate.probabilities("probabilities", probabilities)
    elif probabilities.ndim == 2:
        _check_distribution("probabilities", probabilities)
    else:
        raise ValueError(f"probabilities must have shape (n, c) or (n,), got {probabilities.shape}")
    classes = 2 if probabilities.ndim == 1 else probabilities.shape[1]
    _check_classes(target, classes)
    return probabilities, target.astype(np.int64)


# --- Verification -----------------------------------------------------------------------------


def roc_curve(
    scores: Values, target: Values
) -> tuple[
    Float64[np.ndarray, " points"], Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]
]:
    """Return false accept rate, true accept rate and threshold, for every threshold that counts.

    `scores` (n,) are higher for what should be accepted (a distance goes in with a minus sign),
    `target` (n,) holds True or 1 for what should be. A sample is accepted if its score is at least
    the threshold. The curve starts at (0, 0), with the threshold infinity; equal scores are one
    step of it. Cost O(n log n) (Fawcett, 2006).

    Three float64 arrays of one length. Raises ValueError unless both kinds of samples are there.
    """
    scores, target = _verdicts(scores, target)
    order = np.argsort(-scores, kind="stable")
    scores, target = scores[order], target[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each group of equals
    accepted = np.cumsum(target)[last]
    wrongly = last + 1 - accepted
    true_rate = np.append(0, accepted / target.sum())
    false_rate = np.append(0, wrongly / (~target).sum())
    return false_rate, true_rate, np.append(np.inf, scores[last])


def roc_auc(scores: Values, target: Values) -> float:
    """Return the area under the ROC curve; arguments as in `roc_curve`.

    It is the chance that a random sample of class 1 scores above one of class 0, ties counted half
    (Hanley and McNeil, 1982). Between 0 and 1.
    """
    false_rate, true_rate, _ = roc_curve(scores, target)
    return float(np.trapezoid(true_rate, false_rate))


def equal_error_rate(scores: Values, target: Values) -> tuple[float, float]:
    """Return the rate at which false accepts and false rejects are equally frequent, and where.

    (rate, threshold). Arguments as in `roc_curve`. Between two thresholds the curve is taken as
    straight, so that the rate exists; the threshold is the one of the two whose rates differ less.
    The rate lies between 0 and 1 (on detection curves: Martin et al., 1997).
    """
    false_rate, true_rate, thresholds = roc_curve(scores, target)
    gap = false_rate - (1 - true_rate)  # rises from -1 to 1
    i = int(np.flatnonzero(gap >= 0)[0])
    share = -gap[i - 1] / (gap[i] - gap[i - 1])
    rate = false_rate[i - 1] + share * (false_rate[i] - false_rate[i - 1])
    nearer = i if gap[i] <= -gap[i - 1] or i == 1 else i - 1
    return float(rate), float(thresholds[nearer])


def true_accept_rate(scores: Values, target: Values, *, false_accept_rate: float | int) -> float:
    """Return the largest share of class 1 accepted at or below the given false accept rate.

    Arguments as in `roc_curve`. With n samples of class 0, a rate below 1/n allows no false accept.
    false_accept_rate and the result lie between 0 and 1 (Schroff, Kalenichenko and Philbin, 2015,
    who call it VAL at FAR).
    """
    limit = _validate.number("false_accept_rate", false_accept_rate, low=0, high=1)
    false_rate, true_rate, _ = roc_curve(scores, target)
    return float(true_rate[false_rate <= limit].max())


def _verdicts(scores: Values, target: Values) -> tuple[np.ndarray, np.ndarray]:
    scores, target = _array("scores", scores).astype(np.float64), _array("target", target)
    if scores.ndim != 1:
        raise ValueError(f"scores must have shape (n,), got {scores.shape}")
    _check_labels("target", target, len(scores))
    if target.max() > 1:
        raise ValueError(f"target must hold 0 and 1, got {target.max()}")
    target = target.astype(bool)
    if target.all() or not target.any():
        raise ValueError(f"target must hold both classes, got only {int(target[0])}")
    return scores, target


# --- Text -------------------------------------------------------------------------------------


def bleu(
    candidates: Sequence[Sequence],
    references: Sequence[Sequence[Sequence]],
    *,
    max_n: int = 4,
    smooth: bool = False,
) -> float:
    """Return the BLEU of a corpus, between 0 and 1: shared n-grams times a penalty for brevity.

    `candidates` holds one list of tokens for each sentence, `references` one list of references
    (each a list of tokens) for each sentence. The geometric mean over n = 1 … max_n of the share
    of the candidates' n-grams that a reference has too, each counted as often at most as in one
    reference; times e^(1 − r/c) where the candidates, c tokens, are shorter than the references
    nearest to them in length, r tokens (Papineni et al., 2002). Counts add up over the corpus
    before they are divided, so a corpus is not the mean of its sentences. smooth=True adds 1 to
    numerator and denominator for n ≥ 2 (Lin and Och, 2004): without it one order without a match
    makes 0 of the whole.

    TypeError for a string where a list of tokens belongs, ValueError for no sentences, lists of
    different lengths, a sentence without references or max_n below 1. Cost O(max_n · tokens).
    """
    max_n = _validate.integer("max_n", max_n, low=1)
    _check_sentences(candidates, references)
    matches, totals = np.zeros(max_n), np.zeros(max_n)
    length = nearest = 0
    for candidate, options in zip(candidates, references, strict=True):
        length += len(candidate)
        nearest += min((abs(len(r) - len(candidate)), len(r)) for r in options)[1]
        for n in range(1, max_n + 1):
            counts = _ngrams(candidate, n)
            best = Counter()
            for reference in options:
                best |= _ngrams(reference, n)
            matches[n - 1] += (counts & best).total()
            totals[n - 1] += counts.total()
    if smooth:
        matches[1:], totals[1:] = matches[1:] + 1, totals[1:] + 1
    if not matches.all():
        return 0.0
    brevity = min(0.0, 1 - nearest / length)
    return float(np.exp(np.mean(np.log(matches / totals)) + brevity))


def _ngrams(tokens: Sequence, n: int) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _check_sentences(candidates: Sequence, references: Sequence) -> None:
    """Require lists of tokens: a string would pass for a list of letters in silence."""
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            "candidates and references must have one entry for each sentence, got "
            f"{len(candidates)} and {len(references)}"
        )
    for i, (candidate, options) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(candidate, str):
            raise TypeError(f"candidates must hold lists of tokens, got a string at index {i}")
        if isinstance(options, str) or any(isinstance(reference, str) for reference in options):
            raise TypeError(
                f"references must hold lists of references, each a list of tokens, got a string "
                f"at index {i}"
            )
        if not len(options):
            raise ValueError(f"references must have one or more for each sentence, none at {i}")


# --- Word vectors -----------------------------------------------------------------------------


def nearest_neighbours(
    vectors: Values, queries: Values, k: int = 10, *, exclude: Values | None = None
) -> tuple[Int64[np.ndarray, "*q k"], Float64[np.ndarray, "*q k"]]:
    """Return the k rows of `vectors` most similar to each query, best first, and their cosines.

    `vectors` (v, d), `queries` (q, d), or (d,) for one; results (q, k) or (k,). `exclude` (q, e) or
    (e,) names rows that do not count, such as the query itself; they come last if k reaches them,
    with cosine -∞. Equal ones stay in the order of the rows; a row of zeros has cosine 0 to all.
    The indices are int64. ValueError for k above v. Cost O(q v (d + log v)).
    """
    vectors, queries = _unit("vectors", vectors), _array("queries", queries)
    if queries.ndim not in (1, 2) or queries.shape[-1] != vectors.shape[1]:
        raise ValueError(f"queries must have vectors of {vectors.shape[1]}, got {queries.shape}")
    k = _validate.integer("k", k, low=1, high=len(vectors))
    rows = _unit("queries", np.atleast_2d(queries))
    barred = np.zeros((len(rows), 0), np.int64)
    if exclude is not None:
        barred = _rows("exclude", np.atleast_2d(exclude), len(vectors))
        if len(barred) != len(rows):
            raise ValueError(f"exclude must have one row for each query, got {len(barred)}")
    cosines = _cosines(vectors, rows, barred)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    cosines = np.take_along_axis(cosines, best, axis=1)
    return (best[0], cosines[0]) if queries.ndim == 1 else (best, cosines)


def spearman_correlation(first: Values, second: Values) -> float:
    """Return Spearman's ρ, from -1 to 1: how far two lists of numbers agree on the order.

    The correlation of the ranks, equal numbers sharing the mean of theirs (Spearman, 1904). It
    compares the similarities that people give to pairs of words with the cosines of their vectors.
    NaN where one list holds one number only. (n,) each; cost O(n log n).
    """
    first, second = _array("first", first), _array("second", second)
    _validate.same_shape(first=first, second=second)
    if first.ndim != 1:
        raise ValueError(f"first and second must have shape (n,), got {first.shape}")
    ranks = []
    for values in (first, second):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    x, y = (rank - rank.mean() for rank in ranks)
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread else float("nan")


def analogy_accuracy(vectors: Values, questions: Values) -> float:
    """Return the share of questions a : b = c : d whose d is the word most like b - a + c.

    `vectors` (v, d), `questions` (n, 4) of row numbers. The vectors are scaled to length 1 first,
    and a, b and c are no answers (3CosAdd; Mikolov, Yih and Zweig, 2013; Levy and Goldberg, 2014).
    Between 0 and 1. Cost O(n v d).
    """
    vectors = _unit("vectors", vectors)
    questions = _rows("questions", questions, len(vectors))
    if questions.shape[1] != 4 or not len(questions):
        raise ValueError(f"questions must have shape (n, 4), n at least 1, got {questions.shape}")
    right = 0
    for start in range(0, len(questions), 256):  # a table of 256 × v cosines at once
        a, b, c, d = questions[start : start + 256].T
        wanted = _unit("vectors", vectors[b] - vectors[a] + vectors[c])
        right += np.sum(_cosines(vectors, wanted, np.stack([a, b, c], 1)).argmax(axis=1) == d)
    return float(right / len(questions))


def weat_effect_size(
    targets1: Values, targets2: Values, attributes1: Values, attributes2: Values
) -> float:
    """Return how much more like attributes1 than attributes2 the first targets are, in std's.

    Each (n, d) vectors of words. s(w) is w's mean cosine to attributes1 less that to attributes2;
    the effect is the difference between the targets' means of s, divided by the standard deviation
    of s over both (Caliskan, Bryson and Narayanan, 2017), with n in its denominator: for targets of
    equal number it lies in -2 … 2. NaN where s is the same for all. Cost O(d) for each pair of a
    target and an attribute.
    """
    names = ("targets1", "targets2", "attributes1", "attributes2")
    given = (targets1, targets2, attributes1, attributes2)
    x, y, a, b = (_unit(name, vectors) for name, vectors in zip(names, given, strict=True))
    if len({vectors.shape[1] for vectors in (x, y, a, b)}) > 1:
        raise ValueError(f"{', '.join(names)} must have vectors of one length")
    x, y = ((words @ a.T).mean(axis=1) - (words @ b.T).mean(axis=1) for words in (x, y))
    spread = np.concatenate([x, y]).std()
    return float((x.mean() - y.mean()) / spread) if spread else float("nan")


def _unit(name: str, vectors: Values) -> np.ndarray:
    """Return float64 rows of length 1; rows of zeros stay."""
    vectors = _array(name, vectors).astype(np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"{name} must have shape (n, d), got {vectors.shape}")
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.divide(vectors, length, out=vectors, where=length > 0)


def _cosines(vectors: np.ndarray, queries: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """Return (q, v) products, -∞ at the rows that are excluded for a query."""
    cosines = queries @ vectors.T
    np.put_along_axis(cosines, exclude, -np.inf, axis=1)
    return cosines


def _rows(name: str, numbers: Values, count: int) -> np.ndarray:
    """Return (n, k) row numbers, each in 0 … count - 1."""
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 2:
        raise TypeError(f"{name} must be integers in rows, got {numbers.dtype} {numbers.shape}")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        raise ValueError(f"{name} must be in 0 … {count - 1}")
    return numbers.astype(np.int64)


# --- Detection --------------------------------------------------------------------------------


def average_precision(
    scores: Values, hits: Values, num_targets: int, *, interpolation: str = "all"
) -> float:
    """Return the area under precision against recall of one class's detections.

    `hits` (n,) says which detections, with `scores` (n,), found a target of their own. num_targets:
    how many there are to find. Precision at recall r is the largest at any recall ≥ r.
    interpolation: "all" (PASCAL from 2010) is the exact area, "11" (PASCAL 2007) the mean at the
    recalls 0, 0.1 … 1, "101" (COCO) at 0, 0.01 … 1, rounded as COCO's own code does. Equal scores
    stay in the given order. NaN without targets, 0 without detections.

    `hits` are bool, else TypeError. ValueError for more hits than targets. Between 0 and 1. Cost
    O(n log n) (Everingham et al., 2010).
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
    if interpolation == "101":
        first = np.searchsorted(recall, np.linspace(0, 1, 101))
    else:  # recall ≥ i / 10 in whole numbers, so that rounding decides nothing
        first = np.searchsorted(found * 10, np.arange(11) * num_targets)
    return float(np.append(best, 0.0)[first].mean())


def mean_average_precision(
    predictions: Sequence[dict],
    targets: Sequence[dict],
    *,
    iou_thresholds: Values = (0.5,),
    interpolation: str = "all",
    max_detections: int | None = None,
    area_range: Sequence[_validate.Number] = (0.0, np.inf),
) -> float:
    """Return the mean of `average_precision` over the classes with targets and the thresholds.

    One dictionary for each image: "boxes" (n, 4), "labels" (n,) and, of predictions, "scores"
    (n,). In each image detections take, best score first, the target of their class that they
    overlap most among those not yet taken (the last on ties), if the IoU reaches the threshold (as
    COCO; Lin et al., 2014). Of each image and class the max_detections best count, or all. Targets
    outside area_range count neither as found nor as missed, nor do detections that take one, or
    that lie outside themselves and take none.

    COCO's measure: iou_thresholds=np.linspace(0.5, 0.95, 10), interpolation="101",
    max_detections=100; area_range is (0, 32²) for small, (32², 96²) for medium, (96², 1e10) for
    large ones. There are no crowds. NaN without targets.

    Boxes (x1, y1, x2, y2) with x1 ≤ x2 and y1 ≤ y2, labels integers, thresholds in 0 … 1,
    max_detections at least 1; the result lies between 0 and 1. ValueError for dictionaries that
    lack an entry and for entries of different lengths. Cost: for each image and class all pairs of
    boxes.
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
    if max_detections is not None:
        _validate.integer("max_detections", max_detections, low=1)
    if len(area_range) != 2 or not 0 <= area_range[0] <= area_range[1]:
        raise ValueError(f"area_range must be (smallest, largest) area, got {area_range}")
    predictions = [_detections("predictions", image, scored=True) for image in predictions]
    targets = [_detections("targets", image, scored=False) for image in targets]
    values = []
    for label in sorted({int(label) for image in targets for label in image["labels"]}):
        images = [
            _Image(
                _of_class(prediction, label), _of_class(target, label), max_detections, area_range
            )
            for prediction, target in zip(predictions, targets, strict=True)
        ]
        scores = np.concatenate([image.scores for image in images])
        count = sum(int(image.matters.sum()) for image in images)
        if not count:
            continue
        for threshold in iou_thresholds:
            hits, counts = np.concatenate([image.judged(threshold) for image in images], axis=1)
            ap = average_precision(scores[counts], hits[counts], count, interpolation=interpolation)
            values.append(ap)
    return float(np.mean(values)) if values else float("nan")


def _detections(name: str, image: dict, scored: bool) -> dict[str, np.ndarray]:
    """Return one image's boxes, labels and scores as arrays of fitting shapes."""
    missing = ({"boxes", "labels"} | ({"scores"} if scored else set())) - image.keys()
    if missing:
        raise ValueError(f"{name} must have {', '.join(sorted(missing))} for each image")
    boxes = np.asarray(image["boxes"], np.float64).reshape(-1, 4)
    labels = np.asarray(image["labels"])
    if labels.size and labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
    result = {"boxes": boxes, "labels": labels}
    if scored:
        result["scores"] = np.asarray(image["scores"], np.float64)
    for key, values in result.items():
        if values.shape[:1] != (len(boxes),) or (key != "boxes" and values.ndim != 1):
            raise ValueError(f"{name}: {key} must have one entry for each of {len(boxes)} boxes")
    return result


def _of_class(image: dict[str, np.ndarray], label: int) -> dict[str, np.ndarray]:
    return {key: values[image["labels"] == label] for key, values in image.items()}


class _Image:
    """The detections and targets of one class in one image, the best detection first."""

    def __init__(self, prediction, target, max_detections, area_range):
        best = np.argsort(-prediction["scores"], kind="stable")[:max_detections]
        self.scores, boxes = prediction["scores"][best], prediction["boxes"][best]
        self.overlap = kernels.box_iou(boxes, target["boxes"])
        low, high = area_range
        self.inside, self.matters = (
            (low <= area) & (area <= high)
            for area in (kernels.box_area(boxes), kernels.box_area(target["boxes"]))
        )

    def judged(self, threshold: float) -> np.ndarray:
        """Return (2, n): which detections find a target of their own, and which count at all."""
        hits, counts = np.zeros(len(self.scores), bool), self.inside.copy()
        free = np.ones(len(self.matters), bool)
        for i, overlap in enumerate(self.overlap):
            reached = free & (overlap >= threshold)
            if not reached.any():
                continue
            if (reached & self.matters).any():  # others are second choice, however near
                reached &= self.matters
            best = np.flatnonzero(reached & (overlap == overlap[reached].max()))[-1]
            free[best] = False
            hits[i] = counts[i] = self.matters[best]
        return np.stack([hits, counts])


# --- Wrong labels -----------------------------------------------------------------------------


def confident_joint(labels: Values, probabilities: Values) -> Float64[np.ndarray, "c c"]:
    """Return (c, c): how many samples labelled i are, with confidence, of class j.

    A sample counts for the classes whose probability reaches that class's threshold, the mean
    probability of the class among the samples labelled with it, and of several for the likeliest
    (Northcutt, Jiang and Chuang, 2021). Rows are then scaled to the number of samples of their
    label, and the whole to the number of samples; off the diagonal stand the labels that are
    probably wrong. `probabilities` (n, c) must be of a model that has not seen the sample in
    training: from cross-validation. `labels` (n,) from 0; each class must have one sample.
    """
    labels, probabilities, likeliest = _confident(labels, probabilities)
    classes = probabilities.shape[1]
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[likeliest >= 0], likeliest[likeliest >= 0]), 1)
    counts = np.bincount(labels, minlength=classes)
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1  # of a label that nobody is confident of, nothing is known
    return joint * (counts / joint.sum(axis=1))[:, None]


def label_issues(labels: Values, probabilities: Values) -> Int64[np.ndarray, " k"]:
    """Return the samples whose label is probably wrong, the most suspicious first.

    Those that count for another class than their own in `confident_joint`, by rising probability of
    their own label.
    """
    labels, probabilities, likeliest = _confident(labels, probabilities)
    wrong = np.flatnonzero((likeliest >= 0) & (likeliest != labels))
    own = probabilities[wrong, labels[wrong]]
    return wrong[np.argsort(own, kind="stable")].astype(np.int64)


def _confident(labels, probabilities):
    """Return both, checked, and the class each sample is of with confidence, -1 for none."""
    probabilities = _array("probabilities", probabilities).astype(np.float64)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must have shape (n, c), got {probabilities.shape}")
    _check_distribution("probabilities", probabilities)
    labels = np.asarray(labels)
    _check_labels("labels", labels, len(probabilities))
    if labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"labels must be below the {probabilities.shape[1]} classes, got {labels.max()}"
        )
    labels = labels.astype(np.int64)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    if (counts == 0).any():
        raise ValueError(f"labels must name each class, class {counts.argmin()} has no sample")
    sums = np.zeros(len(counts))
    np.add.at(sums, labels, probabilities[np.arange(len(labels)), labels])
    reaches = probabilities >= sums / counts
    likeliest = np.where(reaches, probabilities, -1).argmax(axis=1)
    return labels, probabilities, np.where(reaches.any(axis=1), likeliest, -1)


# --- Generated samples ------------------------------------------------------------------------


def frechet_distance(mean1: Values, cov1: Values, mean2: Values, cov2: Values) -> float:
    """Return |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), between two normal distributions.

    Of features of images it is the FID (Dowson and Landau, 1982; Heusel et al., 2017). Means
    (d,), covariances (d, d), symmetric and without negative eigenvalues (but for rounding, up to
    1e-5 of the largest), which may be singular; the result is at least 0. Cost O(d³).
    """
    mean1, mean2 = (_array(n, m).astype(float) for n, m in [("mean1", mean1), ("mean2", mean2)])
    if mean1.ndim != 1:
        raise ValueError(f"mean1 must have shape (d,), got {mean1.shape}")
    _validate.same_shape(mean1=mean1, mean2=mean2)
    covariances, roots = [], []
    for name, value in {"cov1": cov1, "cov2": cov2}.items():
        value = _array(name, value).astype(float)
        _validate.has_shape(name, value, (len(mean1), len(mean1)), "(d, d) for means of (d,)")
        if not np.allclose(value, value.T):
            raise ValueError(f"{name} must be symmetric")
        covariances.append(value)
        roots.append(_covariance_root(name, value))
    # tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½, the sum of the singular values of Σ₂^½ Σ₁^½.
    mixed = np.linalg.svd(roots[1] @ roots[0], compute_uv=False).sum()
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    return float(max(0.0, np.sum((mean1 - mean2) ** 2) + traces - 2 * mixed))


def _covariance_root(name: str, covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric root of a covariance; ValueError for a negative eigenvalue."""
    values, vectors = np.linalg.eigh(covariance)
    largest = np.abs(values).max()
    if values[0] < -1e-5 * largest:
        raise ValueError(f"{name} must have no negative eigenvalues, got {values[0]:.3g}")
    # The root of an eigenvalue that is 0 but for rounding would be no small number.
    values[values < len(values) * np.finfo(float).eps * largest] = 0
    return (vectors * np.sqrt(values)) @ vectors.T


def sample_precision_recall(real: Values, generated: Values, *, k: int = 3) -> tuple[float, float]:
    """Return how many generated samples look real, and how many real ones could be generated.

    `real` (n, d) and `generated` (m, d) are features. A set is thought of as the union of balls
    around its points, each out to its k-th nearest neighbour of the same set: precision is the
    share of generated points inside the real set, recall the share of real points inside the
    generated one (Kynkäänniemi et al., 2019). Cost O((n + m)² d). Both shares lie between 0 and 1;
    k is at least 1 and below n and m, else ValueError.
    """
    from scipy.spatial.distance import cdist

    real, generated = _array("real", real), _array("generated", generated)
    for name, value in {"real": real, "generated": generated}.items():
        if value.ndim != 2 or value.shape[1] != real.shape[-1]:
            raise ValueError(f"{name} must have shape (n, d) with one d, got {value.shape}")
    k = _validate.integer("k", k, low=1, high=min(len(real), len(generated)) - 1)

    def covered(points, centres):
        radius = np.partition(cdist(centres, centres), k, axis=1)[:, k]  # the 0-th is the point
        return float((cdist(points, centres) <= radius).any(axis=1).mean())

    return covered(generated, real), covered(real, generated)


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


def _check_classes(target: np.ndarray, classes: int) -> None:
    """Require class indices that probabilities of so many classes have a column for."""
    if target.max() >= classes:
        raise ValueError(
            f"target must be below the number of classes, {classes}; "
            f"got a class index {target.max()}"
        )


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
