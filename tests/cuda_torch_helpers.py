"""What the tests of the kernels under torch share: tensors on a device, and comparisons."""

import numpy as np
import torch

bf16, f32, f64 = torch.bfloat16, torch.float32, torch.float64


class TF:
    """Functions of torch: torch.nn.functional, the cells, and in a few lines what torch lacks."""

    lstm_cell, gru_cell = torch.lstm_cell, torch.gru_cell

    @staticmethod
    def gram_matrix(x):
        rows = x.flatten(2)
        return rows @ rows.transpose(1, 2) / (x[0].numel())

    @staticmethod
    def negative_sampling_loss(hidden, weight, target, noise, reduction="mean",
                               remove_accidental_hits=False):  # fmt: skip
        asked = torch.cat([target[:, None], noise], 1)
        sign = torch.full_like(asked, -1)
        sign[:, 0] = 1
        costs = -torch.nn.functional.logsigmoid(sign * (weight[asked] @ hidden[..., None])[..., 0])
        if remove_accidental_hits:
            costs = torch.cat(
                [costs[:, :1], costs[:, 1:].masked_fill(noise == target[:, None], 0)], 1
            )
        losses = costs.sum(1)
        return losses.mean() if reduction == "mean" else losses.sum()

    def __getattr__(self, name):
        return getattr(torch.nn.functional, name)


TF = TF()


def draw(seed, *shape, dtype=f64, device="cpu", layout="contiguous"):
    """Return normal numbers that want a gradient, transposed in memory if asked for."""
    values = np.random.default_rng(seed).standard_normal(shape)
    x = torch.tensor(values, dtype=dtype, device=device)
    if layout == "transposed":
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    return x.requires_grad_()


def integers(seed, high, *shape, device="cpu", dtype=torch.int64):
    values = np.random.default_rng(seed).integers(0, high, shape)
    return torch.tensor(values, dtype=dtype, device=device)


def visible(*shape, like):
    """Return a mask that leaves each query a key."""
    mask = integers(0, 2, *shape, device=like.device).bool()
    mask[..., 0] = True
    return mask


def noise(*shape, like):
    return draw(7, *shape, dtype=like.dtype, device=like.device).detach()


def assert_close(actual, expected, dtype):
    """Same shape and dtype, the same values up to some roundings of the largest."""
    assert actual.dtype == expected.dtype == dtype
    assert actual.shape == expected.shape
    scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    atol = (1e-5 if dtype == f32 else 1e-13) * max(1.0, scale)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)
