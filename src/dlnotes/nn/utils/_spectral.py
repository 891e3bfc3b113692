"""Spectral normalisation: a weight divided by an estimate of its largest singular value."""

import numpy as np

from dlnotes import _validate, random
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn.module import Module, Parameter


class SpectralNorm:
    """What `spectral_norm` hooks in front of a module: it sets the weight anew at each call."""

    def __init__(self, name: str, n_power_iterations: int, eps: float, dim: int):
        self.name, self.n_power_iterations, self.eps = name, n_power_iterations, eps
        self.dim = dim

    def __call__(self, module: Module, inputs) -> None:
        """Set the module's weight, in training after a step of power iteration."""
        setattr(module, self.name, self.weight(module, module.training))

    def weight(self, module: Module, iterate: bool) -> Tensor:
        """Return W / σ, σ = u · W v; u and v are constants, so that dσ/dW = u vᵀ."""
        original = getattr(module, f"{self.name}_orig")
        u, v = (getattr(module, f"{self.name}_{one}") for one in "uv")
        if iterate:
            w = self.matrix(original).data
            for _ in range(self.n_power_iterations):
                v.data[...] = unit(w.T @ u.data, self.eps)
                u.data[...] = unit(w @ v.data, self.eps)
        # Copies: the next call changes u and v before this one's backward pass may have run.
        u, v = Tensor(u.data.copy()), Tensor(v.data.copy())
        return original / (u @ (self.matrix(original) @ v))

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight as a matrix with the outputs as rows."""
        order = [self.dim, *(i for i in range(weight.ndim) if i != self.dim)]
        return weight.permute(order).reshape(weight.shape[self.dim], -1)


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: Number = 1e-12,
    dim: int | None = None,
) -> Module:
    """Divide a module's weight by its largest singular value at each forward pass; return it.

    The layer then stretches no vector: its Lipschitz constant is about 1 (Miyato et al., 2018).
    Singular vectors are found by power iteration, n_power_iterations steps in each forward pass of
    training, from where the last one ended. As in torch, the weight that is trained is
    `{name}_orig`, the vectors are the buffers `{name}_u` and `{name}_v`, and `{name}` is computed.
    The rows of the matrix are the axis `dim`, by default the outputs: 1 for transposed
    convolutions, otherwise 0. Starting vectors come from `dlnotes.random.generator()`.

    TypeError for what is no Module of dlnotes, ValueError for a name that is no parameter, one that
    is normalised already, or a setting out of range. Cost: two products of the weight with a vector
    for each step, little beside a batch.
    """
    if not isinstance(module, Module):
        raise TypeError(f"module must be a dlnotes.nn Module, got {type(module).__name__}")
    hooks = [hook for hook in module._forward_pre_hooks if isinstance(hook, SpectralNorm)]
    if any(hook.name == name for hook in hooks):
        raise ValueError(f"name: {name!r} is normalised already")
    weight = module._parameters.get(name)
    if weight is None or weight.ndim < 1:
        raise ValueError(f"name must be a parameter of {type(module).__name__}, got {name!r}")
    steps = _validate.integer("n_power_iterations", n_power_iterations, low=1)
    eps = _validate.number("eps", eps, low=0)
    if dim is None:
        dim = int(type(module).__name__.startswith("ConvTranspose"))
    hook = SpectralNorm(name, steps, eps, _validate.dimension("dim", dim, weight.ndim))
    rows, columns = hook.matrix(weight).shape
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    for one, size in (("u", rows), ("v", columns)):
        drawn = random.generator().standard_normal(size).astype(weight.dtype)
        module.register_buffer(f"{name}_{one}", Tensor(unit(drawn, eps)))
    setattr(module, name, Tensor(weight.data))  # until the first forward pass
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight, as it is normalised now, a parameter again; return the module."""
    for hook in module._forward_pre_hooks:
        if isinstance(hook, SpectralNorm) and hook.name == name:
            weight = hook.weight(module, iterate=False).data
            for suffix in ("", "_orig", "_u", "_v"):
                delattr(module, name + suffix)
            module.register_parameter(name, Parameter(weight))
            module._forward_pre_hooks.remove(hook)
            return module
    raise ValueError(f"name: {name!r} is not normalised in {type(module).__name__}")


def unit(x: np.ndarray, eps: float) -> np.ndarray:
    """Return a vector divided by its length, at least eps."""
    return x / np.maximum(np.sqrt(x @ x), x.dtype.type(eps))
