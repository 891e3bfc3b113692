"""Losses as modules: loss = CrossEntropyLoss()(output, target).

reduction: "mean" or "sum" give a number, "none" the loss of each sample or entry. Where nothing
else is said, input and target are floats of one shape and one dtype (nothing is broadcast), and
logarithms are natural. No loss has parameters; targets and weights get no gradient. Errors:
ValueError for another reduction and a setting out of range when the loss is made; when it is called
TypeError for other dtypes and ValueError for shapes, labels or probabilities out of range, and for
a target that requires a gradient. Cost: a few operations for each entry.
"""

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module


class _Loss(Module):
    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = _validate.one_of("reduction", reduction, ["mean", "sum", "none"])


class MSELoss(_Loss):
    """Mean squared error (least squares: Legendre, 1805)."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Mean absolute error."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.l1_loss(input, target, reduction=self.reduction)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities; `weight` broadcasts to them and is no parameter.

    Input and target lie in 0 … 1. (Goodfellow, Bengio and Courville, 2016, section 6.2.2.)
    """

    def __init__(self, weight=None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.weight = weight

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of logits; the weights broadcast to them and are no parameters.

    weight multiplies the entries, pos_weight only the part of the positive targets.
    """

    def __init__(self, weight=None, *, reduction: str = "mean", pos_weight=None):
        super().__init__(reduction=reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        settings = {"reduction": self.reduction, "pos_weight": self.pos_weight}
        return F.binary_cross_entropy_with_logits(input, target, self.weight, **settings)


class SmoothL1Loss(_Loss):
    """Squared error over 2 beta where it is below beta, absolute error less beta/2 beyond.

    beta: at least 0 (Girshick, 2015, with beta = 1).
    """

    def __init__(self, *, reduction: str = "mean", beta: Number = 1.0):
        super().__init__(reduction=reduction)
        self.beta = _validate.number("beta", beta, low=0)

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Half the squared error where it is below delta, delta times the absolute error beyond.

    Less delta²/2 there, so that both meet; delta: above 0 (Huber, 1964).
    """

    def __init__(self, reduction: str = "mean", delta: Number = 1.0):
        super().__init__(reduction=reduction)
        self.delta = _validate.number("delta", delta)

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.huber_loss(input, target, self.reduction, self.delta)


class KLDivLoss(_Loss):
    """Divergence of target probabilities (or their logarithms) from log-probabilities.

    Target t or, with log_target=True, log t; input log q: t (log t - log q) (Kullback and Leibler,
    1951). reduction="batchmean", the definition's, divides the sum by the first axis; "mean"
    divides by all entries.
    """

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__()
        allowed = ["mean", "sum", "none", "batchmean"]
        self.reduction = _validate.one_of("reduction", reduction, allowed)
        self.log_target = log_target

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        settings = {"reduction": self.reduction, "log_target": self.log_target}
        return F.kl_div(input, target, **settings)


class NLLLoss(_Loss):
    """Negative log-likelihood of log-probabilities and integer labels.

    input (n, classes, …), target (n, …) in 0 … classes - 1, or ignore_index, which counts nothing.
    weight: (classes,) or None; it is no parameter and stands in no state_dict. The mean divides by
    the weights of the labels.
    """

    def __init__(self, weight=None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.weight = weight
        self.ignore_index = _validate.integer("ignore_index", ignore_index)

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        settings = {"ignore_index": self.ignore_index, "reduction": self.reduction}
        return F.nll_loss(input, target, self.weight, **settings)


class CrossEntropyLoss(_Loss):
    """Cross-entropy of logits and integer labels or target probabilities.

    input (n, classes, …), target (n, …) in 0 … classes - 1, or ignore_index, which counts nothing;
    or probabilities of input's shape. weight: (classes,) or None; it is no parameter and stands in
    no state_dict. label_smoothing ε, 0 … 1: (1 - ε) target + ε / classes (Szegedy et al., 2016).
    """

    def __init__(
        self,
        weight=None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: Number = 0.0,
    ):
        super().__init__(reduction=reduction)
        self.weight = weight
        self.ignore_index = _validate.integer("ignore_index", ignore_index)
        self.label_smoothing = _validate.number("label_smoothing", label_smoothing, low=0, high=1)

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        settings = {"ignore_index": self.ignore_index, "label_smoothing": self.label_smoothing}
        settings["reduction"] = self.reduction
        return F.cross_entropy(input, target, self.weight, **settings)


class MultiMarginLoss(_Loss):
    """Hinge loss of several classes, p = 1 or 2.

    Σ over wrong classes j of max(0, margin - x_label + x_j)^p / classes: input (n, classes), target
    (n,) labels, weight (classes,) or None (Weston and Watkins, 1999). p is checked when it runs.
    """

    def __init__(self, p: int = 1, margin: Number = 1.0, weight=None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.p, self.margin = _validate.integer("p", p), _validate.number("margin", margin)
        self.weight = weight

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        settings = {"p": self.p, "margin": self.margin, "weight": self.weight}
        return F.multi_margin_loss(input, target, reduction=self.reduction, **settings)


class HingeEmbeddingLoss(_Loss):
    """The distance of like pairs, and what unlike pairs lack to the margin.

    input: distances, target: 1 (alike) or -1, of one shape.
    """

    def __init__(self, margin: Number = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = _validate.number("margin", margin)

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class _PairLoss(_Loss):
    """A loss of two inputs, labels ±1 and a margin."""

    def __init__(self, margin: Number = 0.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = _validate.number("margin", margin)


class MarginRankingLoss(_PairLoss):
    """max(0, -target · (input1 - input2) + margin).

    All of one shape; target: 1 where input1 should be the larger, -1 where input2 should (Herbrich,
    Graepel and Obermayer, 2000).
    """

    def forward(self, input1, input2, target) -> Tensor:
        """Return the loss."""
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_PairLoss):
    """1 - cos of like pairs, and what the cosine of unlike pairs has above the margin.

    input1, input2: (…, d), target: (…), 1 (alike) or -1.
    """

    def forward(self, input1, input2, target) -> Tensor:
        """Return the loss."""
        settings = {"margin": self.margin, "reduction": self.reduction}
        return F.cosine_embedding_loss(input1, input2, target, **settings)


class ContrastiveLoss(_PairLoss):
    """Half the squared distance of like pairs, or of what unlike pairs lack to the margin.

    input1, input2: (…, d), target: (…), 1 (alike) or -1; not in torch (Hadsell, Chopra and LeCun,
    2006).
    """

    def __init__(self, margin: Number = 1.0, *, reduction: str = "mean"):
        super().__init__(margin, reduction=reduction)

    def forward(self, input1, input2, target) -> Tensor:
        """Return the loss."""
        return F.contrastive_loss(input1, input2, target, self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d a p-norm.

    All (…, d); p: at least 1; eps is added to each difference. With swap, d(positive, negative)
    counts where it is the smaller of the two to the negative (Schroff, Kalenichenko and Philbin,
    2015; Balntas et al., 2016). A margin of 0 or less is refused when it runs.
    """

    def __init__(
        self,
        margin: Number = 1.0,
        p: Number = 2.0,
        eps: Number = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ):
        super().__init__(reduction=reduction)
        self.margin, self.p = _validate.number("margin", margin), _validate.number("p", p, low=1)
        self.eps, self.swap = _validate.number("eps", eps), swap

    def forward(self, anchor, positive, negative) -> Tensor:
        """Return the loss."""
        settings = {"margin": self.margin, "p": self.p, "eps": self.eps, "swap": self.swap}
        settings["reduction"] = self.reduction
        return F.triplet_margin_loss(anchor, positive, negative, **settings)
