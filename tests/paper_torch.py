"""Torch's side of a GPU, made up: for tests of what dlnotes.cuda asks of the driver."""

import types

import torch


class FakeTensor(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    @property
    def device(self):
        return types.SimpleNamespace(type="cuda", index=0)


def of_torch(capability: tuple[int, int]) -> types.SimpleNamespace:
    """Return what dlnotes.cuda uses of torch, on a machine with one GPU."""
    stream = types.SimpleNamespace(cuda_stream=77)
    on_gpu = types.SimpleNamespace(
        init=lambda: None,
        current_device=lambda: 0,
        get_device_capability=lambda device: capability,
        current_stream=lambda: stream,
    )
    return types.SimpleNamespace(cuda=on_gpu, Tensor=torch.Tensor)
