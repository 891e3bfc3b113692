"""Adam and AdamW."""

from collections.abc import Iterable, Sequence

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.kernels.optim import check_betas
from dlnotes.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adaptive moments: p ← p - lr · m̂ / (√v̂ + eps) (Kingma and Ba, 2015).

    m̂ and v̂ are running means of the gradient and of its square with decay rates `betas`, divided
    by 1 - βᵗ, where t counts the steps of this parameter, since they start at 0. amsgrad=True
    (Reddi, Kale and Kumar, 2018) keeps the largest v. Weight decay adds weight_decay · p to the
    gradient, which Adam then rescales: see AdamW for one that stands beside the step. The rule
    itself is `dlnotes.kernels.adam_step`. maximize=True climbs.

    Names, defaults and arithmetic are those of torch.optim.Adam. Settings are numbers of at least
    0 and betas below 1, else TypeError or ValueError.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1e-3,
        betas: Sequence[Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check_settings(self, group: dict) -> None:
        for name in ("lr", "eps", "weight_decay"):
            _validate.number(name, group[name], low=0)
        check_betas(group["betas"])

    def _update(self, p: Tensor, group: dict) -> None:
        settings = {name: group[name] for name in self.defaults if name != "amsgrad"}
        kernels.adam_step(
            p.data,
            p.grad,
            step=self._count_step(p),
            exp_avg=self._buffer(p, "exp_avg"),
            exp_avg_sq=self._buffer(p, "exp_avg_sq"),
            max_exp_avg_sq=self._buffer(p, "max_exp_avg_sq") if group["amsgrad"] else None,
            **settings,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr · weight_decay beside the step.

    So all weights decay at one rate, whatever their gradients (Loshchilov and Hutter, 2019). Names,
    defaults and arithmetic are those of torch.optim.AdamW. Settings as in `Adam`, else TypeError or
    ValueError.
    """

    def __init__(
        self,
        params: Iterable,
        lr: Number = 1e-3,
        betas: Sequence[Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
