"""Optimisers and schedules: names, arguments, defaults and update rules as in torch.optim."""

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
