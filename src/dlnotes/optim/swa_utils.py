"""Averages of the weights over training, as in torch.optim.swa_utils."""

import copy
from collections.abc import Callable, Mapping

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.nn.module import Module, Parameter


def get_ema_avg_fn(decay: Number = 0.999) -> Callable:
    """Return the rule of an exponential moving average: decay · average + (1 - decay) · new."""
    decay = _validate.number("decay", decay, low=0, high=1)

    def ema_update(averaged: np.ndarray, current: np.ndarray, num_averaged: int) -> np.ndarray:
        return decay * averaged + (1 - decay) * current

    return ema_update


def get_swa_avg_fn() -> Callable:
    """Return the rule of an equal average: average + (new - average) / (number of them + 1)."""

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

    Arguments and state_dict ("n_averaged" and the model's keys after "module.") are torch's.
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
