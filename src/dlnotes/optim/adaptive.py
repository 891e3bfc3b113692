"""Adagrad, RMSprop and Adadelta: a learning rate of its own for each parameter."""

from collections.abc import Iterable

import numpy as np

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """p ← p - lr · g / (√(sum of all g²) + eps) (Duchi, Hazan and Singer, 2011).

    lr_decay divides lr by 1 + lr_decay · (steps so far); the sum starts at
    initial_accumulator_value. The rule itself is `dlnotes.kernels.adagrad_step`. maximize=True
    climbs. Names, defaults and arithmetic are those of torch.optim.Adagrad, sparse tensors left
    out. Settings are numbers of at least 0, else TypeError or ValueError.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1e-2,
        lr_decay: Number = 0,
        weight_decay: Number = 0,
        initial_accumulator_value: Number = 0,
        eps: Number = 1e-10,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, group: dict) -> None:
        """Add parameters with settings of their own; the sums of their squares start here."""
        super().add_param_group(group)
        group = self.param_groups[-1]
        for p in group["params"]:
            self._count_from_start(p, group)

    def _count_from_start(self, p: Tensor, group: dict) -> None:
        start = group["initial_accumulator_value"]
        self.state[p] = {"step": np.zeros((), np.float32), "sum": np.full_like(p.data, start)}

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            _validate.number(name, group[name], low=0)

    def _update(self, p: Tensor, group: dict) -> None:
        if p not in self.state:  # a loaded state_dict may lack it
            self._count_from_start(p, group)
        names = ("lr", "lr_decay", "weight_decay", "eps", "maximize")
        settings = {name: group[name] for name in names}
        total = self.state[p]["sum"]
        kernels.adagrad_step(p.data, p.grad, total, self._count_step(p), **settings)


class RMSprop(Optimizer):
    """p ← p - lr · g / (√(running mean of g²) + eps) (Tieleman and Hinton, 2012).

    `alpha` is the decay rate of the mean; centered=True takes the square of the gradient's running
    mean off it (Graves, 2013). momentum runs over the rescaled gradient. The rule itself is
    `dlnotes.kernels.rmsprop_step`. maximize=True climbs. Names, defaults and arithmetic are those
    of torch.optim.RMSprop. Settings are numbers of at least 0, else TypeError or ValueError.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        momentum: Number = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            _validate.number(name, group[name], low=0)

    def _update(self, p: Tensor, group: dict) -> None:
        settings = {name: group[name] for name in self.defaults if name != "centered"}
        self._count_step(p)
        kernels.rmsprop_step(
            p.data,
            p.grad,
            square_avg=self._buffer(p, "square_avg"),
            momentum_buffer=self._buffer(p, "momentum_buffer") if group["momentum"] else None,
            grad_avg=self._buffer(p, "grad_avg") if group["centered"] else None,
            **settings,
        )


class Adadelta(Optimizer):
    """p ← p - lr · Δ, Δ = g · √(running mean of Δ²) / √(running mean of g²) (Zeiler, 2012).

    `rho` is the decay rate of both means, eps is added under both roots. The rule itself is
    `dlnotes.kernels.adadelta_step`. maximize=True climbs. Names, defaults and arithmetic are those
    of torch.optim.Adadelta. Settings are numbers of at least 0 and rho at most 1, else TypeError
    or ValueError.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "eps", "weight_decay"):
            _validate.number(name, group[name], low=0)
        _validate.number("rho", group["rho"], low=0, high=1)

    def _update(self, p: Tensor, group: dict) -> None:
        self._count_step(p)
        kernels.adadelta_step(
            p.data,
            p.grad,
            square_avg=self._buffer(p, "square_avg"),
            acc_delta=self._buffer(p, "acc_delta"),
            **{name: group[name] for name in self.defaults},
        )
