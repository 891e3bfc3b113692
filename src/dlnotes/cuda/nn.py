"""torch.nn on this book's CUDA kernels: torch modules with the same names, parameters and states.

>>> from dlnotes import cuda, models                               # doctest: +SKIP
>>> network = models.LeNet5(nn=cuda.nn)                            # doctest: +SKIP
>>> network.load_state_dict(models.LeNet5(nn=torch.nn).state_dict())  # doctest: +SKIP

Each layer is the class of torch.nn, which draws the weights, with a forward pass (and so a backward
pass) of `dlnotes.cuda.functional`, and it accepts what that accepts. `FROM_TORCH` names what is
torch's own and has no kernel here: containers, and operations entry by entry. A name that is
neither is missing, so nothing runs on torch's kernels unawares.
"""

from torch import Tensor
from torch import nn as torch_nn

from dlnotes.cuda import functional

FROM_TORCH = (
    "CELU", "Dropout", "Dropout2d", "ELU", "Flatten", "GELU", "Hardtanh", "Identity", "LeakyReLU",
    "Module", "ModuleDict", "ModuleList", "MSELoss", "Parameter", "ReLU", "ReLU6", "Sequential",
    "SiLU", "Sigmoid", "Softplus", "Tanh", "Unflatten", "init", "utils",
)  # fmt: skip


def __getattr__(name: str):
    if name in FROM_TORCH:
        return getattr(torch_nn, name)
    raise AttributeError(
        f"dlnotes.cuda.nn has no {name}: the book has no kernel for it (torch.nn may have one)"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *FROM_TORCH})


class Linear(torch_nn.Linear):
    """torch.nn.Linear on the ladder "linear"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input Wᵀ + b."""
        return functional.linear(input, self.weight, self.bias)


class Conv2d(torch_nn.Conv2d):
    """torch.nn.Conv2d on the ladder "conv2d"."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            sides = self._reversed_padding_repeated_twice
            input = torch_nn.functional.pad(input, sides, mode=self.padding_mode)
            padding = 0
        settings = self.stride, padding, self.dilation, self.groups
        return functional.conv2d(input, weight, bias, *settings)


class MaxPool2d(torch_nn.MaxPool2d):
    """torch.nn.MaxPool2d on the ladder "max_pool2d"."""

    def forward(self, input: Tensor):
        """Return the largest entries, with return_indices also their places."""
        settings = self.dilation, self.ceil_mode, self.return_indices
        return functional.max_pool2d(input, self.kernel_size, self.stride, self.padding, *settings)


class AvgPool2d(torch_nn.AvgPool2d):
    """torch.nn.AvgPool2d on the ladder "avg_pool2d"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of the windows."""
        settings = self.ceil_mode, self.count_include_pad, self.divisor_override
        return functional.avg_pool2d(input, self.kernel_size, self.stride, self.padding, *settings)


class LayerNorm(torch_nn.LayerNorm):
    """torch.nn.LayerNorm on the ladder "layer_norm"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        parameters = self.weight, self.bias
        return functional.layer_norm(input, self.normalized_shape, *parameters, self.eps)


class Softmax(torch_nn.Softmax):
    """torch.nn.Softmax on the ladder "softmax"; `dim` must be given."""

    def __init__(self, dim: int):
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        """Return the probabilities."""
        return functional.softmax(input, self.dim)


class Embedding(torch_nn.Embedding):
    """torch.nn.Embedding on the ladder "embedding"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows of the table that input names."""
        settings = self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        return functional.embedding(input, self.weight, self.padding_idx, *settings)


class CrossEntropyLoss(torch_nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss on the ladder "cross_entropy"."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
