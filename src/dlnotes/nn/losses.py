"""Losses as modules: loss = CrossEntropyLoss()(output, target)."""

from dlnotes import _validate
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module


class _Loss(Module):
    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = _validate.one_of("reduction", reduction, ["mean", "sum", "none"])


class MSELoss(_Loss):
    """Mean squared error."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """Mean absolute error."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.l1_loss(input, target, self.reduction)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.binary_cross_entropy(input, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of logits."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.binary_cross_entropy_with_logits(input, target, self.reduction)


class NLLLoss(_Loss):
    """Negative log-likelihood of log-probabilities and integer labels."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.nll_loss(input, target, self.reduction)


class CrossEntropyLoss(_Loss):
    """Cross-entropy of logits and integer labels or target probabilities."""

    def forward(self, input, target) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(input, target, self.reduction)
