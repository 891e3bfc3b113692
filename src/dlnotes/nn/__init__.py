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
from dlnotes.nn.dropout import Dropout, Dropout2d
from dlnotes.nn.embedding import Embedding, EmbeddingBag
from dlnotes.nn.layers import Bilinear, Flatten, Identity, Linear, Sequential
from dlnotes.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    ContrastiveLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    SmoothL1Loss,
    TripletMarginLoss,
)
from dlnotes.nn.module import Module, Parameter, to_torch

__all__ = [
    "ELU",
    "GELU",
    "BCELoss",
    "BCEWithLogitsLoss",
    "Bilinear",
    "ContrastiveLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout2d",
    "Embedding",
    "EmbeddingBag",
    "Flatten",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "Maxout",
    "Module",
    "MultiMarginLoss",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "TripletMarginLoss",
    "functional",
    "init",
    "to_torch",
    "utils",
]
