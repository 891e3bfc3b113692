"""Optimisers and schedules: names, arguments, defaults and update rules as in torch.optim.

Arguments of all optimisers: params, tensors or parameter groups (see `Optimizer`); lr, the learning
rate; weight_decay, which adds weight_decay · p to the gradient of p before anything else (not in
AdamW); maximize=True, which turns the gradient round before that, so that the step climbs.
"""

from dlnotes.optim import lr_scheduler, schedules, swa_utils
from dlnotes.optim.adam import Adam, AdamW
from dlnotes.optim.adaptive import Adadelta, Adagrad, RMSprop
from dlnotes.optim.optimizer import Optimizer
from dlnotes.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
    "schedules",
    "swa_utils",
]
