"""Module and Parameter: how a network holds its weights and finds them again."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor


class Parameter(Tensor):
    """A tensor that a module trains: assigned to an attribute, it is found by `parameters()`.

    data is shared, not copied. With requires_grad=True, TypeError unless it holds floats; False
    keeps it as it is.
    """

    def __init__(self, data, requires_grad: bool = True):
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class LoadResult(NamedTuple):
    """What `load_state_dict(strict=False)` could not match: names of the module's, and others."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class RemovableHandle:
    """What `register_forward_hook` returns: `remove()` takes the hook away again."""

    def __init__(self, hooks: list[Callable], hook: Callable):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *error) -> None:
        self.remove()


class Module:
    """Base class of all layers and networks, after torch.nn.Module.

    A subclass calls `super().__init__()`, assigns parameters and modules to attributes, and
    defines `forward`; calling the module runs it. `training` says whether it is in training mode.

    AttributeError where an attribute is assigned before `super().__init__()` or asked for and not
    there, NotImplementedError where a subclass defines no `forward`.
    """

    def __init__(self):
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Tensor | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._forward_hooks: list[Callable] = []
        self.training = True

    def forward(self, *inputs):
        """Compute the output; each subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def __call__(self, *inputs, **settings):
        """Run `forward`, then the hooks."""
        output = self.forward(*inputs, **settings)
        for hook in tuple(self._forward_hooks):
            replaced = hook(self, inputs, output)
            output = output if replaced is None else replaced
        return output

    def register_forward_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, inputs, output) after each `forward`, to look at what flows.

        `inputs` is the tuple of positional arguments; what the hook returns, if not None, takes the
        place of the output. `handle.remove()`, or leaving a `with handle:`, takes the hook away.
        TypeError for a hook that cannot be called.
        """
        if not callable(hook):
            raise TypeError(f"hook must be a function, got {type(hook).__name__}")
        self._forward_hooks.append(hook)
        return RemovableHandle(self._forward_hooks, hook)

    # ---- finding parameters and modules -----------------------------------------------------

    def __setattr__(self, name: str, value) -> None:
        if isinstance(value, Parameter | Module) and "_modules" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before assigning {name}")
        for kind, held in ((Parameter, "_parameters"), (Module, "_modules"), (Tensor, "_buffers")):
            register = self.__dict__.get(held, {})
            # Only a registered name holds a buffer: other tensors are ordinary attributes.
            new = isinstance(value, kind) and (kind is not Tensor or name in register)
            if new or (name in register and value is None):
                if name not in register:  # one that is there keeps its place in the order
                    self._forget(name)
                register[name] = value
                return
        if not name.startswith("_"):
            self._forget(name)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str):  # only asked where there is no ordinary attribute
        for held in ("_parameters", "_modules", "_buffers"):
            if name in self.__dict__.get(held, {}):
                return self.__dict__[held][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        getattr(self, name)
        self._forget(name)

    def __dir__(self) -> list[str]:
        held = (*self._parameters, *self._modules, *self._buffers)
        return sorted({*super().__dir__(), *held})

    def _forget(self, name: str) -> None:
        for held in (self.__dict__, self._parameters, self._modules, self._buffers):
            held.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or None for one that this module does without (such as no bias)."""
        self._forget(name)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Add a tensor that is state but is not trained, such as a running mean, or None."""
        self._forget(name)
        self._buffers[name] = tensor

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a child module by name."""
        self._forget(name)
        self._modules[name] = module

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, module) for the direct children, each module once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator["Module"]:
        """Yield the direct children."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", _seen=None) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, module) for this module and all below it, each module once."""
        seen = set() if _seen is None else _seen
        if self not in seen:
            seen.add(self)
            yield prefix, self
            for name, module in self._modules.items():
                if module is not None:
                    yield from module.named_modules(_join(prefix, name), seen)

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter) for all parameters, shared ones once."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter not in seen:
                    seen.add(parameter)
                    yield _join(path, name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters, shared ones once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield (name, buffer) for all buffers, shared ones once."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer not in seen:
                    seen.add(buffer)
                    yield _join(path, name), buffer

    def buffers(self) -> Iterator[Tensor]:
        """Yield all buffers, shared ones once."""
        return (buffer for _, buffer in self.named_buffers())

    # ---- modes and gradients ----------------------------------------------------------------

    def train(self, mode: bool = True) -> "Module":
        """Set this module and all below it to training mode (or not), and return it."""
        if not isinstance(mode, bool):
            raise TypeError(f"mode must be True or False, got {type(mode).__name__}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Set evaluation mode; the same as `train(False)`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def apply(self, function: Callable[["Module"], object]) -> "Module":
        """Call `function` on every module, children first, and return this module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def float(self) -> "Module":
        """Turn all parameters and float buffers into float32, in place, and return this module."""
        return self._cast(np.float32)

    def double(self) -> "Module":
        """Turn all of them into float64, in place (for gradient checks), and return this."""
        return self._cast(np.float64)

    def _cast(self, dtype) -> "Module":
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None if parameter.grad is None else parameter.grad.astype(dtype)
        for buffer in self.buffers():
            if buffer.dtype in _validate.FLOATS:
                buffer.data = buffer.data.astype(dtype)
        return self

    # ---- saving and loading -----------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return {name: array} with torch's names; the arrays are copies."""
        return {name: tensor.data.copy() for name, tensor in self._named_state()}

    def load_state_dict(self, state_dict: Mapping, strict: bool = True) -> LoadResult:
        """Copy arrays or torch tensors into the parameters and buffers of the same names.

        Values take the dtype of what they replace. With strict=True every name must match on
        both sides.
        Raises ValueError listing all that is missing, unexpected or of the wrong shape, and
        TypeError for values that are not floats (or, for a count, integers); nothing is changed
        then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
        own = dict(self._named_state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        arrays = {
            name: _state_array(name, state_dict[name], like=own[name].data)
            for name in own
            if name in state_dict
        }
        problems = [
            f"{name} must have shape {own[name].shape}, got {array.shape}"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(map(str, unexpected))}")
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}: {'; '.join(problems)}"
            )
        for name, array in arrays.items():
            own[name].data[...] = array
        return LoadResult(missing, unexpected)

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield (name, parameter or buffer), a shared one under each of its names, as torch."""
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None:
                yield _join(prefix, name), tensor
        for name, module in self._modules.items():
            if module is not None:
                yield from module._named_state(_join(prefix, name))

    # ---- printing ---------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return the settings that `repr` shows between the brackets."""
        return ""

    def __repr__(self) -> str:
        settings = self.extra_repr()
        children = [
            f"({name}): " + repr(module).replace("\n", "\n  ")
            for name, module in self._modules.items()
        ]
        if not children:
            return f"{type(self).__name__}({settings})"
        lines = ([settings] if settings else []) + children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def to_torch(state_dict: Mapping[str, np.ndarray]) -> dict:
    """Return the state_dict with every array as a torch tensor (a copy), of its shape and dtype.

    ImportError without torch. Cost: one copy.
    """
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}


def _state_array(name: str, value, like: np.ndarray) -> np.ndarray:
    """Return the value as an array of the same kind of numbers, floats or integers, as `like`."""
    value = _validate.without_tensor(value)
    if like.dtype in _validate.FLOATS:
        return _validate.floats(name, value)
    if not isinstance(value, np.ndarray | np.integer) or value.dtype.kind not in "iu":
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name} must hold integers, got {kind}")
    return np.asarray(value)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
