"""Stochastic gradient descent, with momentum."""

from collections.abc import Iterable

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: p ← p - lr · g.

    With weight decay, g ← g + weight_decay · p first. With momentum (Polyak, 1964), a velocity
    v ← momentum · v + (1 - dampening) · g takes the place of g (the first v is g itself), or with
    nesterov=True (Nesterov, 1983; Sutskever et al., 2013), g + momentum · v does.
    maximize=True climbs. The rule itself is `dlnotes.kernels.sgd_step`.

    Names, defaults and arithmetic are those of torch.optim.SGD. Settings are numbers of at least
    0, else TypeError or ValueError; nesterov needs momentum and no dampening.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1e-3,
        momentum: Number = 0,
        dampening: Number = 0,
        weight_decay: Number = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            _validate.number(name, group[name], low=0)
        _validate.number("dampening", group["dampening"])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")

    def _update(self, p: Tensor, group: dict) -> None:
        settings = {name: group[name] for name in self.defaults}
        momentum_buffer, first = None, False
        if group["momentum"]:
            first = "momentum_buffer" not in self.state.get(p, {})
            momentum_buffer = self._buffer(p, "momentum_buffer")
        kernels.sgd_step(p.data, p.grad, momentum_buffer, first=first, **settings)
