"""Launches by NVIDIA's own bindings into the driver of paper_driver.c: run by test_cuda_gpu.py.

It prints what has been launched, a line of JSON. Only torch's side of a GPU is made up.
"""

import ctypes
import json
import sys
import threading

import torch
from paper_torch import FakeTensor, of_torch

from dlnotes import cuda
from dlnotes.cuda import _gpu

paper = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


class Launch(ctypes.Structure):
    _fields_ = (
        ("shape", ctypes.c_uint * 6), ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("values", ctypes.c_void_p * 3),
    )  # fmt: skip


def tensor(*shape):
    return torch.zeros(shape).as_subclass(FakeTensor)


def main(what: str) -> None:
    _gpu._torch = lambda: of_torch((9, 0))
    launches = (Launch * 64).in_dll(paper, "paper_launches")
    x, y = tensor(4, 8), tensor(4, 8)
    ADD = "__global__ void add(int n, const float* x, float* y) { y[threadIdx.x] += n * x[0]; }"
    MAP = (
        '#include "ptx.cuh"\n__global__ void copy(const __grid_constant__ TensorMap map, int n, '
        "float* y) { y[n] = map.opaque[0]; }"
    )
    told: dict = {"pointers": [x.data_ptr(), y.data_ptr()]}

    def work():
        try:
            if what == "map":
                for _ in range(9):
                    f = cuda.load(source=MAP, device="cuda").kernel("copy")
                    f[1, 32](cuda.TensorMap(x, (4, 8)), 3, y)
            else:
                ctypes.c_int.in_dll(paper, "paper_static").value = 128
                f = cuda.load(source=ADD, device="cuda").kernel("add")
                f[(2, 3), 64](-5, x, None)
                f[1, 64, 49152](1, x, y)
                f[1, 64, 1000](1, x, y)
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"
        here = ctypes.c_void_p(1)
        paper.cuCtxGetCurrent(ctypes.byref(here))
        told["context afterwards"] = here.value

    thread = threading.Thread(target=work)  # which has no context, as those of backward passes
    thread.start()
    thread.join()
    count = ctypes.c_int.in_dll(paper, "paper_count").value
    told["launches"] = [
        [list(x.shape), x.shared_bytes, x.stream, list(x.values)] for x in launches[:count]
    ]
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
