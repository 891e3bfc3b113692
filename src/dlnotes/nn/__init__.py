"""Layers, losses and initialisers: the subset of torch.nn that the book uses, by the same names.

`state_dict` has torch's keys and holds NumPy arrays; `load_state_dict` takes arrays or torch
tensors, and `to_torch` turns a state_dict into torch tensors, so weights go both ways.
"""

from dlnotes.nn import functional, init, utils
from dlnotes.nn.activations import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    Maxout,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from dlnotes.nn.layers import Flatten, Identity, Linear, Sequential
from dlnotes.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
)
from dlnotes.nn.module import Module, Parameter, to_torch

__all__ = [
    "ELU",
    "GELU",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Flatten",
    "Identity",
    "L1Loss",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Maxout",
    "Module",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
    "to_torch",
    "utils",
]
