"""Averages of the weights over training, as in torch.optim.swa_utils.

TypeError where an average is made of what is no Module or with what is no function, and a schedule
of what is no optimiser; ValueError for a setting out of range and for a model with other
parameters. Cost: an update goes over each parameter once.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import no_grad
from dlnotes.nn.module import Module, Parameter
from dlnotes.nn.norm import _BatchNorm
from dlnotes.optim.lr_scheduler import LRScheduler, _each_group
from dlnotes.optim.optimizer import Optimizer


def get_ema_avg_fn(decay: Number = 0.999) -> Callable:
    """Return the rule of an exponential moving average: decay · average + (1 - decay) · new.

    TypeError or ValueError for a decay that is no number in 0 … 1. (Polyak and Juditsky, 1992.)
    """
    decay = _validate.number("decay", decay, low=0, high=1)

    def ema_update(averaged: np.ndarray, current: np.ndarray, num_averaged: int) -> np.ndarray:
        return decay * averaged + (1 - decay) * current

    return ema_update


def get_swa_avg_fn() -> Callable:
    """Return the rule of an equal average: average + (new - average) / (number of them + 1).

    (Izmailov et al., 2018.)
    """

    def swa_update(averaged: np.ndarray, current: np.ndarray, num_averaged: int) -> np.ndarray:
        return averaged + (current - averaged) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's over training.

    `update_parameters(model)`, after each optimiser step (or epoch), takes the model's parameters
    in: the first time as they are, then by avg_fn(average, parameter, times so far). By default
    all count equally (stochastic weight averaging; Izmailov et al., 2018); for an exponential
    moving average (Polyak and Juditsky, 1992) give `get_ema_avg_fn(decay)`. Calling it runs the
    averaged model.

    Arguments (without device, multi_avg_fn and use_buffers) and state_dict ("n_averaged" and the
    model's keys after "module.") are torch's.
    """

    def __init__(self, model: Module, *, avg_fn: Callable | None = None):
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"model must be a Module, got {type(model).__name__}")
        if avg_fn is not None and not callable(avg_fn):
            raise TypeError(f"avg_fn must be a function, got {type(avg_fn).__name__}")
        self.module = copy.deepcopy(model)
        self.n_averaged = 0
        self.avg_fn = get_swa_avg_fn() if avg_fn is None else avg_fn

    def forward(self, *inputs, **settings):
        """Run the averaged model."""
        return self.module(*inputs, **settings)

    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters into the averages; ValueError if they are others."""
        own, given = dict(self.module.named_parameters()), dict(model.named_parameters())
        shapes = [{name: p.shape for name, p in each.items()} for each in (own, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"model must have the parameters {shapes[0]}, got {shapes[1]}")
        for name, average in own.items():
            current = given[name].data
            if self.n_averaged:
                with np.errstate(all="ignore"):  # ∞ may become NaN, as in torch
                    current = self.avg_fn(average.data, current, self.n_averaged)
            average.data[...] = current
        # What is no parameter, such as running statistics, is copied as it is.
        given = dict(model._named_state())
        for name, tensor in self.module._named_state():
            if not isinstance(tensor, Parameter):
                tensor.data[...] = given[name].data
        self.n_averaged += 1

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the averages and how many there were."""
        return {"n_averaged": np.array(self.n_averaged), **super().state_dict()}

    def load_state_dict(self, state_dict: Mapping, strict: bool = True):
        """Restore what `state_dict` returned."""
        rest = dict(state_dict)
        n_averaged = rest.pop("n_averaged", None)
        if n_averaged is None and strict:
            raise ValueError("state_dict does not fit AveragedModel: missing: n_averaged")
        result = super().load_state_dict(rest, strict)
        if n_averaged is not None:
            self.n_averaged = int(n_averaged)
        return result


def update_bn(loader: Iterable, model: Module) -> None:
    """Make the batch norms' running statistics anew, those of one pass over the loader's batches.

    Averaged weights have seen no batch, so the statistics of the training do not fit them. Each
    batch, or its first part where it is a tuple or list, is run through the model in training mode;
    the statistics are the plain mean over the batches. A model without batch norms is not run.

    loader: batches of inputs. Raises what the model does; it is not checked itself. Cost: one
    forward pass over them all.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    try:
        with no_grad():
            for batch in loader:
                model(batch[0] if isinstance(batch, tuple | list) else batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


class SWALR(LRScheduler):
    """Take the rate to swa_lr within anneal_epochs, and keep it there while weights are averaged.

    swa_lr: one number, or one for each parameter group. anneal_strategy: "cos", half a cosine, or
    "linear". Each step moves the rate that it finds, so a schedule may have changed it before.
    anneal_epochs: at least 0. (Izmailov et al., 2018.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Number | Sequence[Number],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        self.swa_lrs = _each_group("swa_lr", swa_lr, optimizer)
        self.anneal_epochs = _validate.integer("anneal_epochs", anneal_epochs, low=0)
        self.anneal_strategy = _validate.one_of(
            "anneal_strategy", anneal_strategy, ["cos", "linear"]
        )
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        """Return how much of the way to swa_lr is done at an epoch."""
        part = min(1.0, max(0, epoch) / max(1, self.anneal_epochs))
        return part if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * part)) / 2

    def get_lr(self) -> list[float]:
        """Return the rate whose distance from swa_lr has shrunk as the strategy's did."""
        epoch = self.last_epoch if self.anneal_epochs else max(1, self.last_epoch)
        share, before = self._share(epoch), self._share(epoch - 1)
        left = 0.0 if before == 1 else (1 - share) / (1 - before)
        return [
            target + (rate - target) * left
            for rate, target in zip(self._rates(), self.swa_lrs, strict=True)
        ]
