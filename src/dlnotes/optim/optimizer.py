"""What all optimisers share: parameter groups, zero_grad, state_dict.

A step costs what its rule in `dlnotes.kernels.optim` does for each entry; the state is as large as
the parameters, once for each array that the rule keeps.
"""

from collections.abc import Callable, Iterable

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor

# What schedules keep in a parameter group beside the optimiser's own settings.
SCHEDULED = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


class Optimizer:
    """Base class. A subclass gives `defaults` and updates one parameter in `_update`.

    params: leaf tensors, or dictionaries {"params": tensors, **settings} (parameter groups with
    settings of their own). Tensors without a gradient stay as they are. `param_groups` may be
    changed between steps, for instance `optimizer.param_groups[0]["lr"] = 0.01`.

    Raises TypeError for anything that is not a tensor, and ValueError for no parameters, the
    result of an operation, the same parameter twice, an unknown setting or one out of range.
    """

    def __init__(self, params: Iterable, defaults: dict):
        self.defaults = defaults
        self.param_groups: list[dict] = []
        self.state: dict[Tensor, dict] = {}
        groups = _as_list(params)
        if not groups:
            raise ValueError("params must hold at least one parameter, got none")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict) -> None:
        """Add parameters with settings of their own; what is not set takes the defaults.

        Errors are those of the class.
        """
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError("a parameter group must be a dict with the key 'params'")
        unknown = set(group) - {"params"} - set(self.defaults) - SCHEDULED
        if unknown:
            raise ValueError(f"params has the unknown settings {sorted(unknown)}")
        group = {**self.defaults, **group, "params": _as_list(group["params"])}
        self._check_settings(group)
        known = {p for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(f"params must hold tensors, got {type(p).__name__}")
            if p.parents:
                raise ValueError(f"params must hold leaf tensors, got the result of {p.op!r}")
            if p in known:
                raise ValueError("params holds the same parameter twice")
            known.add(p)
        self.param_groups.append(group)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.zero_grad()

    def step(self, closure: Callable | None = None):
        """Change every parameter that has a gradient once, in place.

        `closure`, as in torch, computes the loss and the gradients first; its value is returned.
        TypeError or ValueError, before anything is changed, for a gradient that does not match.
        """
        loss = None if closure is None else closure()
        ready = [(p, g) for g in self.param_groups for p in g["params"] if p.grad is not None]
        for p, _ in ready:
            _validate.same_dtype(gradient=p.grad, parameter=p.data)
            _validate.same_shape(gradient=p.grad, parameter=p.data)
        with np.errstate(all="ignore"):  # as in torch, the parameters say what overflows
            for p, group in ready:
                self._update(p, group)
        return loss

    def state_dict(self) -> dict:
        """Return {"state": {index: {name: array}}, "param_groups": […]} as torch does, in copies.

        Parameters are replaced by their numbers in the order in which they were given.
        """
        numbers = {p: i for i, p in enumerate(self._parameters())}
        state = {
            numbers[p]: {name: np.array(value) for name, value in values.items()}
            for p, values in self.state.items()
        }
        groups = [
            {**group, "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what `state_dict` returned, or a torch optimiser's of the same kind.

        Raises ValueError if groups, parameters or shapes differ; nothing is changed then.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        own_sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(
                f"state_dict must have parameter groups of sizes {own_sizes}, got {sizes}"
            )
        known = {*self.defaults, *SCHEDULED}
        settings = [{key: group[key] for key in group if key in known} for group in groups]
        for new in settings:
            self._check_settings({**self.defaults, **new})
        numbers = [number for group in groups for number in group["params"]]
        parameters = dict(zip(numbers, self._parameters(), strict=True))
        state = {}
        for number, values in state_dict["state"].items():
            p = parameters[int(number)]
            arrays = {
                # The step counter is one float32 number whatever the parameter, as in torch.
                name: np.array(
                    _validate.without_tensor(value), np.float32 if name == "step" else p.dtype
                )
                for name, value in values.items()
                if value is not None
            }
            for name, array in arrays.items():
                shape = () if name == "step" else p.shape
                _validate.has_shape(f"{name} of parameter {number}", array, shape)
            if arrays:
                state[p] = arrays
        self.state = state
        for group, new in zip(self.param_groups, settings, strict=True):
            group.update(new)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _buffer(self, p: Tensor, name: str) -> np.ndarray:
        """Return a state array of the parameter, zeros at first."""
        state = self.state.setdefault(p, {})
        if name not in state:
            state[name] = np.zeros_like(p.data)
        return state[name]

    def _count_step(self, p: Tensor) -> int:
        """Return the number of this step of the parameter, counted from 1."""
        steps = self.state.setdefault(p, {}).setdefault("step", np.zeros((), np.float32))
        steps += 1
        return int(steps)

    def _check_settings(self, group: dict) -> None:
        raise NotImplementedError("an optimiser checks its settings")

    def _update(self, p: Tensor, group: dict) -> None:
        raise NotImplementedError("an optimiser updates a parameter in place")

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _as_list(params) -> list:
    if isinstance(params, Tensor | dict | str) or not isinstance(params, Iterable):
        raise TypeError(
            f"params must be an iterable of tensors or of dicts, got {type(params).__name__}"
        )
    return list(params)
