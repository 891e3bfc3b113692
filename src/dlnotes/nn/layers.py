"""Linear, Bilinear, Flatten, Identity, Sequential and ModuleList."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.module import Module, Parameter


class Linear(Module):
    """y = x Wᵀ + b: (…, in_features) → (…, out_features).

    weight: (out_features, in_features), bias: (out_features,) or None. Both are drawn as in torch,
    uniformly between ±1/√in_features, from `dlnotes.random.generator()`.
    in_features, out_features: at least 1; bias=False leaves the bias out.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype=np.float32):
        super().__init__()
        self.in_features = _validate.integer("in_features", in_features, low=1)
        self.out_features = _validate.integer("out_features", out_features, low=1)
        self.weight = Parameter(np.empty((self.out_features, self.in_features), dtype))
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(np.empty(self.out_features, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # bound 1/√in_features
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input) -> Tensor:
        """Return input Wᵀ + b."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_k = x₁ᵀ W_k x₂ + b_k: (…, in1_features), (…, in2_features) → (…, out_features).

    weight: (out, in1, in2), bias: (out,) or None. Both are drawn as in torch, uniformly between
    ±1/√in1_features, from `dlnotes.random.generator()`.
    The features: at least 1; bias=False leaves the bias out. (Socher, Chen, Manning and Ng, 2013.)
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype=np.float32,
    ):
        super().__init__()
        self.in1_features = _validate.integer("in1_features", in1_features, low=1)
        self.in2_features = _validate.integer("in2_features", in2_features, low=1)
        self.out_features = _validate.integer("out_features", out_features, low=1)
        shape = (self.out_features, self.in1_features, self.in2_features)
        self.weight = Parameter(np.empty(shape, dtype))
        self.register_parameter("bias", None)
        if bias:
            self.bias = Parameter(np.empty(self.out_features, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1, input2) -> Tensor:
        """Return input1ᵀ W_k input2 + b_k for each k."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes."""
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}"
        return f"{sizes}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Join the axes start_dim … end_dim into one: (n, 28, 28) → (n, 784) by default.

    Negative numbers count from the end. ValueError where start_dim comes after end_dim.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = _validate.integer("start_dim", start_dim)
        self.end_dim = _validate.integer("end_dim", end_dim)

    def forward(self, input) -> Tensor:
        """Return the input with fewer axes."""
        input = input if isinstance(input, Tensor) else Tensor(input)
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the two axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Return the input, of any kind, as it is."""

    def forward(self, input):
        """Return the input."""
        return input


class Sequential(Module):
    """Modules one after another: Sequential(Linear(2, 3), ReLU()) or one dict of named modules.

    Each takes one input, what the one before returns. TypeError for what is no Module.
    """

    def __init__(self, *modules):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0].items()
        else:
            named = ((str(i), module) for i, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, self._checked(name, module))

    def forward(self, input):
        """Run the modules in order."""
        for module in self._modules.values():
            input = module(input)
        return input

    def append(self, module: Module) -> "Sequential":
        """Add a module at the end and return this."""
        self.add_module(str(len(self)), self._checked(str(len(self)), module))
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return list(self._modules.values())[index]

    @staticmethod
    def _checked(name: str, module) -> Module:
        if not isinstance(module, Module):
            raise TypeError(f"module {name} must be a Module, got {type(module).__name__}")
        return module


class ModuleList(Module):
    """Modules in a list, each found by `parameters()`; what runs when is for the owner to say.

    TypeError for what is no Module.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> "ModuleList":
        """Add a module at the end and return this."""
        name = str(len(self))
        self.add_module(name, Sequential._checked(name, module))
        return self

    def extend(self, modules: Iterable[Module]) -> "ModuleList":
        """Add modules at the end and return this."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice):
        modules = list(self._modules.values())[index]
        return ModuleList(modules) if isinstance(index, slice) else modules
