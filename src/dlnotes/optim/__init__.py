"""Optimisers: names, arguments, defaults and update rules as in torch.optim."""

from dlnotes.optim.optimizer import Optimizer
from dlnotes.optim.sgd import SGD

__all__ = ["SGD", "Optimizer"]
