"""How one network runs on every engine: the base class, and what torch names outside torch.nn."""

import functools
import importlib
import sys
from types import ModuleType

import numpy as np

from dlnotes import _validate, autograd, nn, random
from dlnotes.nn import Module as NumPyModule


class Network:
    """Base class of the networks of this room: `nn.Module` of whatever engine the network is given.

    A subclass is written as in PyTorch; its `__init__` takes the engine as `nn`, makes its layers
    from it and hands it on to the blocks that it is built from:

        class Net(Network):
            def __init__(self, classes=10, *, nn=nn):
                super().__init__()
                self.fc = nn.Linear(784, classes)

            def forward(self, x):
                return self.fc(x.flatten(1))

    `Net()` is then a dlnotes.nn.Module, `Net(nn=torch.nn)` a torch.nn.Module, and both are a `Net`.
    The engine is kept as `self.nn`. torch is imported only by whoever passes torch.nn.
    """

    nn: ModuleType

    def __new__(cls, *arguments, nn: ModuleType = nn, **settings):
        """Make an empty object of the class that is both `cls` and a Module of the engine."""
        return object.__new__(_on_engine(cls, nn))

    def __call__(self, *inputs, **settings):
        """Run `forward`; on NumPy, arrays are taken as constants, as the layers do."""
        if isinstance(self, NumPyModule):
            inputs = [autograd.Tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
        return super().__call__(*inputs, **settings)

    def __reduce_ex__(self, protocol):
        """Copy and pickle by the names of network and engine: their joint class has none."""
        return _empty, (type(self).__bases__[0], self.nn.__name__), self.__dict__


@functools.cache
def _on_engine(cls: type, nn: ModuleType) -> type:
    if not isinstance(nn, ModuleType) or not hasattr(nn, "Module"):
        raise TypeError(f"nn must be an engine such as dlnotes.nn or torch.nn, got {nn!r}")
    if hasattr(cls, "nn"):
        raise TypeError(f"{cls.__name__} has an engine already: call {cls.__bases__[0].__name__}")
    names = {"nn": nn, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, nn.Module), names)


def _empty(cls: type, engine: str):
    return object.__new__(_on_engine(cls, importlib.import_module(engine)))


# ---- functions that torch keeps in `torch` and dlnotes in `dlnotes.autograd` ---------------------


def functions(x) -> ModuleType:
    """Return the module with cat, stack and where for tensors of x's engine."""
    return autograd if isinstance(x, autograd.Tensor) else sys.modules["torch"]


def cat(tensors, dim: int = 0):
    """Join tensors along an axis."""
    return functions(tensors[0]).cat(tensors, dim)


def stack(tensors, dim: int = 0):
    """Join tensors along a new axis."""
    return functions(tensors[0]).stack(tensors, dim)


def constant(values: np.ndarray, like):
    """Return an array as a tensor of the engine and device of `like`; floats take its dtype."""
    if isinstance(like, autograd.Tensor):
        floats = values.dtype in _validate.FLOATS and like.dtype in _validate.FLOATS
        return autograd.Tensor(values.astype(like.dtype) if floats else values)
    tensor = sys.modules["torch"].from_numpy(np.ascontiguousarray(values))
    floats = tensor.is_floating_point() and like.is_floating_point()
    return tensor.to(like if floats else like.device)


def normal_like(x):
    """Draw standard normal numbers of x's shape and dtype, from the generator of its engine."""
    if isinstance(x, autograd.Tensor):
        return autograd.Tensor(random.generator().standard_normal(x.shape).astype(x.dtype))
    return sys.modules["torch"].randn_like(x)


def sample(network):
    """Return a tensor of the network's engine, dtype and device: a parameter, if it has one."""
    for parameter in network.parameters():
        return parameter
    on_numpy = isinstance(network, NumPyModule)
    return autograd.tensor(0.0) if on_numpy else sys.modules["torch"].zeros(())


def leaf(values: np.ndarray, nn: ModuleType):
    """Return a tensor of the engine that holds a copy of the array, for a buffer or parameter."""
    if issubclass(nn.Module, NumPyModule):
        return autograd.tensor(values)
    return sys.modules["torch"].asarray(values, copy=True)


def check_sides(x, factor: int) -> None:
    """Raise ValueError unless x is (n, c, h, w) with h and w multiples of `factor`."""
    if len(x.shape) != 4 or x.shape[2] % factor or x.shape[3] % factor:
        raise ValueError(
            f"x must have shape (n, c, h, w) with h and w multiples of {factor}, got "
            f"{tuple(x.shape)}"
        )


def numbers(tokens, network):
    """Return integers (an array, list or tensor) as a tensor on the network's engine and device."""
    values = np.asarray(_validate.without_tensor(tokens))
    if values.dtype.kind not in "iu":
        raise TypeError(f"tokens must be integers, got {values.dtype}")
    return constant(values.astype(np.int64), sample(network))


def draw(logits, temperature, generator: np.random.Generator | None = None):
    """Draw an integer for each row of logits (n, classes), as a tensor (n, 1) of their engine.

    The probabilities are softmax(logits / temperature); temperature 0 takes the largest.
    """
    scores = np.asarray(_validate.without_tensor(logits), np.float64)
    if _validate.number("temperature", temperature, low=0) == 0:
        return constant(scores.argmax(1)[:, None], logits)
    rng = random.generator() if generator is None else generator
    # The largest of scores with Gumbel noise is a draw from their softmax (Gumbel, 1954).
    noisy = scores / temperature + rng.gumbel(size=scores.shape)
    return constant(noisy.argmax(1)[:, None], logits)


# ---- what the networks share ---------------------------------------------------------------------

_LAYERS = {
    "elu": "ELU",
    "gelu": "GELU",
    "identity": "Identity",
    "leaky_relu": "LeakyReLU",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "tanh": "Tanh",
}


def activation(name: str, nn: ModuleType):
    """Return the activation of that name as a layer of the engine."""
    return getattr(nn, _LAYERS[_validate.one_of("activation", name, _LAYERS)])()


def scaled(channels: int, width) -> int:
    """Return `channels` times `width`, rounded, at least 1: how slim networks are made."""
    if _validate.number("width", width) <= 0:
        raise ValueError(f"width must be above 0, got {width}")
    return max(1, round(channels * width))


def he_init(network) -> None:
    """Draw weights by He's normal rule (He et al., 2015), biases 0; norms keep their 1 and 0."""
    nn = network.nn
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
