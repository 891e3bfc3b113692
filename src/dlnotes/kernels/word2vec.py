"""word2vec: negative sampling, hierarchical softmax, and the steps that train with them.

Both losses (Mikolov et al., 2013, arXiv:1310.4546) replace a softmax over the whole vocabulary by a
few yes-or-no questions for each word. A question is a row w of the output table, its answer a sign
s = ±1, and with h the hidden vector it costs

    -log σ(s h·w),   whose derivative with respect to h·w is   -s σ(-s h·w).

Negative sampling asks of the word itself (s = 1) and of k words drawn as noise (s = -1);
hierarchical softmax asks at each fork on the way from the root of a tree to the word. h is the
input vector of a neighbour (skip-gram) or the mean of the input vectors of all neighbours (CBOW):
`embedding` and `embedding_bag` look it up.

The losses take gradients for both tables, as for any other layer; the `*_step` functions are the
same gradient and an SGD step in one, and touch only the rows of the words that occur.

Everywhere n samples, k noise words, vectors of length d. Reduction and dy are those of
`dlnotes.kernels.losses`. TypeError for floats that are not float32 or float64 or differ in dtype
and for indices that are not integers, ValueError for indices out of range and shapes that do not
fit.

Cost of a loss and of a step: O(n q d) operations for q questions of each sample, 1 + k of them or
the length of the longest way; the gradients of the losses write whole tables besides.
"""

import heapq

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels import activations
from dlnotes.kernels.embedding import _indices, _rows, add_products, add_up, embedding_bag
from dlnotes.kernels.losses import Loss, Upstream, _reduce, _spread

Hidden = Float[np.ndarray, "n d"]
Table = Float[np.ndarray, "rows d"]
Inputs = Float[np.ndarray, "vocabulary d"]
Words = Integer[np.ndarray, "n"]
Noise = Integer[np.ndarray, "n k"]
Paths = Integer[np.ndarray, "words depth"]
BLOCK = 1024  # rows that are asked for at once: few enough for the cache

# ---- negative sampling -----------------------------------------------------------------------


def negative_sampling_loss(
    hidden: Hidden,
    weight: Table,
    target: Words,
    noise: Noise,
    reduction: str = "mean",
    *,
    remove_accidental_hits: bool = False,
) -> Loss:
    """Return -log σ(h·w_target) - Σ_j log σ(-h·w_noise[j]) of each sample.

    weight: a row for each word (Mikolov et al., 2013, equation 4). remove_accidental_hits leaves
    out noise words that happen to be the target, as word2vec.c does and the equation does not.
    """
    hidden, weight = _tables(hidden, weight)
    rows, signs = _sampled(target, noise, hidden, weight, remove_accidental_hits)
    return _reduce(_costs(_scores(hidden, weight[rows]), signs), reduction)


def negative_sampling_loss_loops(
    hidden: Hidden,
    weight: Table,
    target: Words,
    noise: Noise,
    reduction: str = "mean",
    *,
    remove_accidental_hits: bool = False,
) -> Loss:
    """Return what `negative_sampling_loss` returns, word by word: the formula."""
    hidden, weight = _tables(hidden, weight)
    _sampled(target, noise, hidden, weight, remove_accidental_hits)
    loss = np.zeros(len(hidden), hidden.dtype)
    for i, h in enumerate(hidden):
        loss[i] = np.logaddexp(0, -(h @ weight[target[i]]))  # -log σ(x) = log(1 + e⁻ˣ)
        for word in noise[i]:
            if word != target[i] or not remove_accidental_hits:
                loss[i] += np.logaddexp(0, h @ weight[word])
    return _reduce(loss, reduction)


def negative_sampling_loss_backward(
    dy: Upstream,
    hidden: Hidden,
    weight: Table,
    target: Words,
    noise: Noise,
    reduction: str = "mean",
    *,
    remove_accidental_hits: bool = False,
) -> tuple[Hidden, Table]:
    """Return (dhidden, dweight), with the slopes g = (σ(h·w) - 1, σ(h·w) …): Σ g w and Σ g h."""
    hidden, weight = _tables(hidden, weight)
    rows, signs = _sampled(target, noise, hidden, weight, remove_accidental_hits)
    return _backward(dy, hidden, weight, rows, signs, reduction)


# ---- hierarchical softmax --------------------------------------------------------------------


def huffman_codes(counts: Integer[np.ndarray, " words"]) -> tuple[Paths, Paths]:
    """Return (codes, points): the way from the root of Huffman's tree to each word.

    `counts` (words,), at least 0, say how often each word occurs: no other binary tree has a
    shorter mean way (Huffman, 1952). points[w, j] is the number of the j-th fork on the way to word
    w, 0 … words - 2 and words - 2 the root, and codes[w, j] the branch taken there: 1 towards the
    more frequent side. int64 and int8, both of shape (words, longest way); beyond the end of a way
    codes is -1 and points 0, so that `codes >= 0` is the mask. O(words · log words).
    """
    counts = _indices("counts", counts, None)
    if counts.ndim != 1 or not len(counts):
        raise ValueError(f"counts must have shape (words,), one word or more, got {counts.shape}")
    words = len(counts)
    parent, branch = np.zeros(2 * words - 1, np.int64), np.zeros(2 * words - 1, np.int8)
    heap = [(count, node) for node, count in enumerate(counts.tolist())]
    heapq.heapify(heap)
    for fork in range(words, 2 * words - 1):  # forks are numbered after the words
        (least, rare), (less, frequent) = heapq.heappop(heap), heapq.heappop(heap)
        parent[rare] = parent[frequent] = fork
        branch[frequent] = 1
        heapq.heappush(heap, (least + less, fork))
    root = 2 * words - 2
    node, climbed = np.arange(words), []
    while (node != root).any():  # all words climb together; those at the root wait there
        climbed.append((parent[node] - words, np.where(node == root, -1, branch[node])))
        node = np.where(node == root, root, parent[node])
    # Turn each way round: what was climbed last stands first.
    upward = np.stack([codes for _, codes in climbed], 1) if climbed else np.zeros((words, 0), int)
    points = np.stack([points for points, _ in climbed], 1) if climbed else upward
    length = (upward >= 0).sum(axis=1, keepdims=True)
    step = np.arange(upward.shape[1])
    turned = np.maximum(length - 1 - step, 0)
    codes = np.where(step < length, np.take_along_axis(upward, turned, 1), -1)
    points = np.where(step < length, np.take_along_axis(points, turned, 1), 0)
    return codes.astype(np.int8), points.astype(np.int64)


def hierarchical_softmax_loss(
    hidden: Hidden,
    weight: Table,
    target: Words,
    codes: Paths,
    points: Paths,
    reduction: str = "mean",
) -> Loss:
    """Return -log p(target) = -Σ_j log σ(±h·w_j) over the forks j on the way to the target.

    weight: a row for each fork, one fewer than words. The probability of branch 0 at a fork is
    σ(h·w) and of branch 1 σ(-h·w), so the probabilities of all words add up to 1 (Morin and Bengio,
    2005). codes and points: as from `huffman_codes`, for the whole vocabulary; any binary tree will
    do.
    """
    hidden, weight = _tables(hidden, weight)
    rows, signs = _way(target, codes, points, hidden, weight)
    return _reduce(_costs(_scores(hidden, weight[rows]), signs), reduction)


def hierarchical_softmax_loss_loops(
    hidden: Hidden,
    weight: Table,
    target: Words,
    codes: Paths,
    points: Paths,
    reduction: str = "mean",
) -> Loss:
    """Return what `hierarchical_softmax_loss` returns, fork by fork: the formula."""
    hidden, weight = _tables(hidden, weight)
    _way(target, codes, points, hidden, weight)
    loss = np.zeros(len(hidden), hidden.dtype)
    for i, (h, word) in enumerate(zip(hidden, target, strict=True)):
        for code, point in zip(codes[word], points[word], strict=True):
            if code >= 0:
                loss[i] += np.logaddexp(0, (-1 if code == 0 else 1) * (h @ weight[point]))
    return _reduce(loss, reduction)


def hierarchical_softmax_loss_backward(
    dy: Upstream,
    hidden: Hidden,
    weight: Table,
    target: Words,
    codes: Paths,
    points: Paths,
    reduction: str = "mean",
) -> tuple[Hidden, Table]:
    """Return (dhidden, dweight), with the slopes g = σ(h·w) - (1 - code): Σ g w and Σ g h."""
    hidden, weight = _tables(hidden, weight)
    rows, signs = _way(target, codes, points, hidden, weight)
    return _backward(dy, hidden, weight, rows, signs, reduction)


def hierarchical_softmax_log_probs(
    hidden: Hidden, weight: Table, codes: Paths, points: Paths
) -> Float[np.ndarray, "n words"]:
    """Return log p of every word: (n, words). O(n · words · longest way)."""
    hidden, weight = _tables(hidden, weight)
    codes, points = _tree(codes, points, weight)
    log_p = np.zeros((len(hidden), len(codes)), hidden.dtype)
    scores = hidden @ weight.T
    for code, point in zip(codes.T, points.T, strict=True):
        costs = _softplus(-_signs(code, hidden.dtype) * scores[:, point])
        log_p -= np.where(code >= 0, costs, 0)
    return log_p


# ---- one step of training --------------------------------------------------------------------


def skip_gram_negative_sampling_step(
    input_weight: Inputs,
    output_weight: Table,
    center: Words,
    context: Words,
    noise: Noise,
    *,
    lr: Number,
    remove_accidental_hits: bool = False,
) -> np.floating:
    """Step down the sum of the losses of n pairs, in place; return their mean before the step.

    The hidden vector is the center word's row of input_weight; the word asked for is its context.
    Each pair steps by lr, as in word2vec.c, but all n see the tables as they were before. So n must
    be small against the vocabulary: a word that occurs often makes all its steps at once and may
    overshoot.
    Cost: O(n k d), whatever the size of the tables.

    input_weight, output_weight: (words, d), changed; center, context: (n,) and noise: (n, k),
    integers; lr: at least 0. ValueError for tables that are read-only or share memory.
    remove_accidental_hits as in `negative_sampling_loss`.
    """
    hidden, starts = _center_rows(input_weight, output_weight, center)
    questions = _sampled(context, noise, hidden, output_weight, remove_accidental_hits, "context")
    return _step(input_weight, output_weight, center, starts, hidden, *questions, lr)


def skip_gram_hierarchical_softmax_step(
    input_weight: Inputs,
    output_weight: Table,
    center: Words,
    context: Words,
    codes: Paths,
    points: Paths,
    *,
    lr: Number,
) -> np.floating:
    """Do as `skip_gram_negative_sampling_step`, for the loss of hierarchical softmax.

    output_weight: (words - 1, d), a row for each fork; codes and points: the tree, as in
    `hierarchical_softmax_loss`. Cost: O(n d · longest way).
    """
    hidden, starts = _center_rows(input_weight, output_weight, center)
    questions = _way(context, codes, points, hidden, output_weight, "context")
    return _step(input_weight, output_weight, center, starts, hidden, *questions, lr)


def cbow_negative_sampling_step(
    input_weight: Inputs,
    output_weight: Table,
    contexts: Integer[np.ndarray, " m"],
    offsets: Words,
    center: Words,
    noise: Noise,
    *,
    lr: Number,
    remove_accidental_hits: bool = False,
    divide_gradient: bool = True,
) -> np.floating:
    """Step down the sum of the losses of n windows, in place; return their mean before the step.

    The hidden vector is the mean of the rows contexts[offsets[i] : offsets[i + 1]] of input_weight;
    the word asked for is the center. The gradient of a mean of m rows is 1/m for each;
    divide_gradient=False adds all of it to each row, which is what word2vec.c and gensim do (İrsoy,
    Benton and Stratos, 2021, arXiv:2012.15332). The rest as `skip_gram_negative_sampling_step`.

    contexts: (m,) words of all windows one after another; offsets: (n,), where each window starts;
    center: (n,); noise: (n, k), all integers. Cost: O((m + n k) d).
    """
    hidden, starts = _context_means(input_weight, output_weight, contexts, offsets)
    questions = _sampled(center, noise, hidden, output_weight, remove_accidental_hits, "center")
    settings = (*questions, lr, divide_gradient)
    return _step(input_weight, output_weight, contexts, starts, hidden, *settings)


def cbow_hierarchical_softmax_step(
    input_weight: Inputs,
    output_weight: Table,
    contexts: Integer[np.ndarray, " m"],
    offsets: Words,
    center: Words,
    codes: Paths,
    points: Paths,
    *,
    lr: Number,
    divide_gradient: bool = True,
) -> np.floating:
    """Do as `cbow_negative_sampling_step`, for the loss of hierarchical softmax.

    input_weight: (words, d) and output_weight: (words - 1, d), a row for each fork, are changed in
    place. contexts (m,), offsets (n,), center (n,), lr and divide_gradient are those of
    `cbow_negative_sampling_step`; codes and points, the tree of `huffman_codes`, hold the way to
    each center. Cost: O((m + n · longest way) d).
    """
    hidden, starts = _context_means(input_weight, output_weight, contexts, offsets)
    questions = _way(center, codes, points, hidden, output_weight, "center")
    settings = (*questions, lr, divide_gradient)
    return _step(input_weight, output_weight, contexts, starts, hidden, *settings)


def _center_rows(input_weight, output_weight, center):
    """Return the hidden vectors of skip-gram, and where each one's words start: one word each."""
    _check_step(input_weight, output_weight)
    center = _indices("center", center, len(input_weight))
    if center.ndim != 1:
        raise ValueError(f"center must have 1 axis, got shape {center.shape}")
    return _rows(input_weight, center), np.arange(len(center) + 1)


def _context_means(input_weight, output_weight, contexts, offsets):
    """Return the hidden vectors of CBOW, and where each one's words start."""
    _check_step(input_weight, output_weight)
    hidden = embedding_bag(contexts, input_weight, offsets)
    return hidden, np.append(offsets, len(contexts))


def _step(
    input_weight, output_weight, words, starts, hidden, rows, signs, lr, divide_gradient=False
):
    """Step down both tables; hidden[i] came from words[starts[i] : starts[i + 1]]."""
    lr = _validate.number("lr", lr, low=0)
    scores, slopes = np.empty((2, *rows.shape), hidden.dtype)
    dhidden = np.empty_like(hidden)
    step = max(1, BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        asked = _rows(output_weight, rows[block])
        scores[block] = _scores(hidden[block], asked)
        slopes[block] = _slopes(scores[block], signs[block])
        dhidden[block] = (slopes[block, None] @ asked)[:, 0]
    if divide_gradient:
        dhidden /= np.maximum(np.diff(starts), 1).astype(dhidden.dtype)[:, None]
    add_products(output_weight, -lr * slopes.reshape(-1), rows.reshape(-1), _starts(rows), hidden)
    add_products(input_weight, np.full(len(words), -lr, hidden.dtype), words, starts, dhidden)
    return _reduce(_costs(scores, signs), "mean")


# ---- shared pieces ---------------------------------------------------------------------------


def _scores(hidden, asked):
    """Return h·w for each question, (n, k), of the rows w asked for, (n, k, d)."""
    return np.einsum("nkd,nd->nk", asked, hidden)


def _costs(scores, signs):
    """Return Σ_j -log σ(s x) of each sample; a sign of 0 leaves the question out."""
    return np.where(signs != 0, _softplus(-signs * scores), 0).sum(axis=1, dtype=scores.dtype)


def _slopes(scores, signs):
    """Return the derivatives -s σ(-s x)."""
    return -signs * activations.sigmoid(-signs * scores)


def _backward(dy, hidden, weight, rows, signs, reduction):
    dloss = _spread(dy, hidden.shape[:1], hidden.dtype, reduction)
    asked = weight[rows]
    slopes = _slopes(_scores(hidden, asked), signs) * dloss[:, None]
    dhidden = np.einsum("nk,nkd->nd", slopes, asked)
    flat = rows.reshape(-1)
    return dhidden, add_up(slopes.reshape(-1), flat, _starts(rows), hidden, len(weight))


def _starts(rows):
    """Return where the questions of each sample start in a flat list, and the end."""
    return np.arange(len(rows) + 1) * rows.shape[1]


def _softplus(x):
    """Return log(1 + eˣ) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _signs(codes, dtype):
    """Return 1 for branch 0, -1 for branch 1 and 0 beyond the end of a way."""
    return np.where(codes >= 0, 1 - 2 * codes, 0).astype(dtype)


# ---- arguments -------------------------------------------------------------------------------


def _tables(hidden, weight):
    hidden = _validate.floats("hidden", hidden, ndim=2)
    weight = _validate.floats("weight", weight, ndim=2)
    _validate.same_dtype(hidden=hidden, weight=weight)
    if hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            "hidden and weight must have vectors of one length, got shapes "
            f"{hidden.shape} and {weight.shape}"
        )
    return hidden, weight


def _sampled(target, noise, samples, weight, remove_accidental_hits, name="target"):
    """Return the rows asked for, (n, 1 + k), and their signs; `samples` has length n."""
    target = _indices(name, target, len(weight))
    noise = _indices("noise", noise, len(weight))
    _validate.has_shape(name, target, (len(samples),), "one word for each sample")
    if noise.ndim != 2 or len(noise) != len(samples):
        raise ValueError(f"noise must have shape ({len(samples)}, k), got {noise.shape}")
    rows = np.concatenate([target[:, None], noise], axis=1)
    signs = np.full(rows.shape, -1, weight.dtype)
    signs[:, 0] = 1
    if remove_accidental_hits:
        signs[:, 1:][noise == target[:, None]] = 0
    return rows, signs


def _way(target, codes, points, samples, weight, name="target"):
    """Return the forks on the way to each target and the signs of the branches taken."""
    codes, points = _tree(codes, points, weight)
    target = _indices(name, target, len(codes))
    _validate.has_shape(name, target, (len(samples),), "one word for each sample")
    return points[target], _signs(codes[target], weight.dtype)


def _tree(codes, points, weight):
    """Return the checked tree, forks 0 (which may be none at all) beyond the end of each way."""
    if not isinstance(codes, np.ndarray) or codes.dtype.kind != "i":
        raise TypeError("codes must be a NumPy array of signed integers, as from huffman_codes")
    if codes.ndim != 2 or not np.isin(codes, (-1, 0, 1)).all():
        raise ValueError(f"codes must hold 0, 1 and -1 in 2 axes, got shape {codes.shape}")
    points = _indices("points", points, len(weight))
    return codes, _validate.has_shape("points", points, codes.shape, "the shape of codes")


def _check_step(input_weight, output_weight):
    """Refuse tables that do not match, or that cannot be written to, before any is changed."""
    tables = {"input_weight": input_weight, "output_weight": output_weight}
    for name, table in tables.items():
        _validate.floats(name, table, ndim=2)
        if not table.flags.writeable:
            raise ValueError(f"{name} is changed in place, so it must be a writable array")
    _validate.same_dtype(**tables)
    if input_weight.shape[1] != output_weight.shape[1]:
        raise ValueError(
            "input_weight and output_weight must have vectors of one length, got shapes "
            f"{input_weight.shape} and {output_weight.shape}"
        )
    if np.may_share_memory(input_weight, output_weight):
        raise ValueError("input_weight and output_weight must be two tables, got the same memory")
