"""torch.optim on this book's CUDA kernels: `Adam`, one kernel a parameter."""

import torch

from dlnotes.cuda import functional
from dlnotes.cuda.functional import _FLOATS, _check_floats, _only


class Adam(torch.optim.Adam):
    """torch.optim.Adam on the ladder "adam": each parameter in one kernel (Kingma and Ba, 2015).

    Parameters, state dictionary and results are torch's, for lr, betas, eps and weight_decay, which
    is added to the gradient. For each number 7 are moved (parameter, gradient and both means are
    read, all but the gradient written) and 14 operations done.

    Raises ValueError for amsgrad and for settings that the kernel lacks.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, **others):
        _only(**{name: (value, False) for name, value in others.items() if value is not None})
        super().__init__(params, lr, betas, eps, weight_decay, **others)

    @torch.no_grad()
    def step(self, closure=None):
        """Do one step; `closure` computes the loss again and is returned, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _only(**{name: (group[name], False) for name in ("amsgrad", "maximize")})
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter, group) -> None:
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        changed = parameter, state["exp_avg"], state["exp_avg_sq"]
        means = {"exp_avg": changed[1], "exp_avg_sq": changed[2]}
        _check_floats(_FLOATS, parameter=parameter, gradient=gradient, **means)
        state["step"] += 1
        p, mean, square = (tensor.contiguous() for tensor in changed)
        settings = (float(group["lr"]), group["betas"], group["eps"], group["weight_decay"])
        step = int(state["step"])
        functional.run("adam", p, gradient.contiguous(), mean, square, step, *settings)
        for tensor, result in zip(changed, (p, mean, square), strict=True):
            if result is not tensor:  # its layout was another
                tensor.copy_(result)
            else:  # autograd must know that it has changed
                torch.autograd.graph.increment_version(tensor)
