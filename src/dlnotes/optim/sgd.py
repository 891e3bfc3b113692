"""Stochastic gradient descent, with momentum."""

from collections.abc import Iterable

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: p ← p - lr · g.

    With weight decay, g ← g + weight_decay · p first. With momentum (Polyak, 1964), a velocity
    v ← momentum · v + (1 - dampening) · g takes the place of g (the first v is g itself), or with
    nesterov=True (Nesterov, 1983; Sutskever et al., 2013), g + momentum · v does.

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
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            _validate.number(name, group[name], low=0)
        _validate.number("dampening", group["dampening"])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")

    def _update(self, p: Tensor, group: dict) -> None:
        # Python floats take the dtype of the array; NumPy's float64 numbers would not.
        lr, momentum = float(group["lr"]), float(group["momentum"])
        weight_decay, dampening = float(group["weight_decay"]), float(group["dampening"])
        g = p.grad
        if weight_decay:
            g = g + weight_decay * p.data
        if momentum:
            v = self.state.setdefault(p, {}).get("momentum_buffer")
            if v is None:
                v = self.state[p]["momentum_buffer"] = np.array(g)
            else:
                v *= momentum
                v += (1 - dampening) * g
            g = g + momentum * v if group["nesterov"] else v
        p.data -= lr * g
