"""How fast the NumPy kernels are: each against PyTorch on the CPU, in one table.

    python benchmarks/kernels.py                     # all kernels, one thread
    python benchmarks/kernels.py --only conv pool    # those whose name has one of these words
    python benchmarks/kernels.py --rounds 40 --cpu-time --json kernels.json

Both sides run in one process with the same number of threads, turn by turn, so that whatever
else the machine does meets both. A ratio is time here over time in torch: below 1 is faster than
torch. It is the median over the rounds; the spread behind it is the quartiles of the rounds. A
step is forward and backward together. "goal" is what a step may take, where there is a goal.
The memory peak is what a step allocates at its height, beyond its inputs, the results included;
next to it stands the size of inputs and results together.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlnotes import kernels

BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Case:
    """One kernel at one size: arrays that get gradients, and settings that do not."""

    name: str
    kernel: str
    shapes: list[tuple[int, ...]]
    settings: dict[str, Any] = field(default_factory=dict)
    goal: float | None = None  # of a step
    torch_settings: dict[str, Any] | None = None  # where torch takes others
    names: tuple[str, ...] = ()  # of the arrays that are passed by name (weight, bias)
    target: Callable | None = None  # makes labels, passed behind the first array


def conv(name, n, channels, outs, size, kernel, goal=None, axes=2, **settings):
    groups = settings.get("groups", 1)
    weight = (outs, channels // groups, *[kernel] * axes)
    shapes = [(n, channels, *[size] * axes), weight, (outs,)]
    return Case(name, f"conv{axes}d", shapes, settings, goal)


def transposed(name, n, channels, outs, size, kernel, **settings):
    shapes = [(n, channels, size, size), (channels, outs, kernel, kernel), (outs,)]
    return Case(name, "conv_transpose2d", shapes, settings)


def labels(shape, classes=None):
    return np.random.default_rng(1).integers(0, classes or shape[1], shape[0])


IMAGES = (32, 32, 32, 32)
AFFINE = ("weight", "bias")
RUNNING = {"running_mean": None, "running_var": None, "training": True}
CASES = [
    Case("linear 256×1024→1024", "linear", [(256, 1024), (1024, 1024), (1024,)], goal=1.05),
    conv("conv 3×3 pad 1, N32 16→32 32²", 32, 16, 32, 32, 3, 2.5, padding=1),
    conv("conv 3×3 wide, N16 64→64 32²", 16, 64, 64, 32, 3, 1.1, padding=1),
    conv("conv 1×1, N32 16→32 32²", 32, 16, 32, 32, 1, 0.78),
    conv("conv 5×5 stride 2, N32 16→32 32²", 32, 16, 32, 32, 5, 3.0, padding=2, stride=2),
    conv("conv LeNet C1, N32 1→6 32²", 32, 1, 6, 32, 5, 0.8),
    conv("conv LeNet C3, N32 6→16 14²", 32, 6, 16, 14, 5, 3.4),
    conv("conv 3×3 deep, N16 128→128 8²", 16, 128, 128, 8, 3, padding=1),
    conv("conv 3×3 depthwise, N16 64 32²", 16, 64, 64, 32, 3, padding=1, groups=64),
    conv("conv1d 5, N32 64→64 256", 32, 64, 64, 256, 5, axes=1, padding=2),
    conv("conv3d 3³, N4 8→16 16³", 4, 8, 16, 16, 3, axes=3, padding=1),
    transposed("conv transposed 4×4 stride 2, N16 32→16 16²", 16, 32, 16, 16, 4, stride=2),
    Case("max-pool 2×2, 32×32×32²", "max_pool2d", [IMAGES], {"kernel_size": 2}, 0.38),
    Case(
        "max-pool 3×3 stride 2, 32×32×32²",
        "max_pool2d",
        [IMAGES],
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    Case("average-pool 2×2, 32×32×32²", "avg_pool2d", [IMAGES], {"kernel_size": 2}),
    Case("global average, 32×32×32²", "adaptive_avg_pool2d", [IMAGES], {"output_size": 1}),
    Case("batch norm, 32×32×32²", "batch_norm", [IMAGES, (32,), (32,)], RUNNING, 0.9, names=AFFINE),
    Case(
        "layer norm, 4096×256",
        "layer_norm",
        [(4096, 256), (256,), (256,)],
        {"normalized_shape": (256,)},
        3.6,
        names=AFFINE,
    ),
    Case(
        "group norm 8, 32×32×32²",
        "group_norm",
        [IMAGES, (32,), (32,)],
        {"num_groups": 8},
        names=AFFINE,
    ),
    Case("instance norm, 32×32×32²", "instance_norm", [IMAGES]),
    Case(
        "RMS norm, 4096×256",
        "rms_norm",
        [(4096, 256), (256,)],
        {"normalized_shape": (256,)},
        names=("weight",),
    ),
    Case("local response norm, 32×32×32²", "local_response_norm", [IMAGES], {"size": 5}),
    Case("GELU, 10⁶", "gelu", [(1000, 1000)]),
    Case(
        "softmax cross-entropy, 1024×1000",
        "cross_entropy",
        [(1024, 1000)],
        goal=1.6,
        target=labels,
    ),
]


@dataclass
class Row:
    """What was measured: ratios as (median, lower quartile, upper quartile)."""

    name: str
    forward: tuple[float, float, float]
    backward: tuple[float, float, float]
    step: tuple[float, float, float]
    goal: float | None
    milliseconds: float  # of a step here
    peak: int
    data: int


def prepare(case: Case, torch) -> tuple[list[Callable], int]:
    """Return forward and backward here, forward and backward in torch, and the data's size."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in case.shapes]
    # The scale of trained weights, so that no result is far out of range.
    for i, array in enumerate(arrays[1:], start=1):
        arrays[i] = array / np.float32(math.sqrt(max(1, math.prod(array.shape[1:]))))
    target = () if case.target is None else (case.target(arrays[0].shape),)
    count = len(arrays) - len(case.names)  # the first arrays go by position

    def call(function, arrays, target, settings, first=()):
        named = dict(zip(case.names, arrays[count:], strict=True))
        return function(*first, *arrays[:count], *target, **named, **settings)

    here, back = getattr(kernels, case.kernel), getattr(kernels, f"{case.kernel}_backward")
    there = getattr(torch.nn.functional, case.kernel)
    settings = case.settings
    torch_settings = settings if case.torch_settings is None else case.torch_settings
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    torch_target = [torch.tensor(t) for t in target]

    def torch_forward():
        with torch.no_grad():
            return call(there, tensors, torch_target, torch_settings)

    y = np.asarray(call(here, arrays, target, settings))
    dy = rng.standard_normal(y.shape).astype(np.float32)
    graph = call(there, tensors, torch_target, torch_settings)
    torch_dy = torch.tensor(dy)
    dy = dy if dy.ndim else np.float32(dy)
    check_equal(case, y, graph, call(back, arrays, target, settings, (dy,)), tensors, torch_dy)
    functions = [
        lambda: call(here, arrays, target, settings),
        lambda: call(back, arrays, target, settings, (dy,)),
        torch_forward,
        lambda: torch.autograd.grad(graph, tensors, torch_dy, retain_graph=True),
    ]
    return functions, sum(array.nbytes for array in (*arrays, y))


def check_equal(case, y, expected, gradients, tensors, torch_dy) -> None:
    """Raise AssertionError unless both sides compute the same."""
    import torch

    pairs = [(y, expected.detach().numpy())]
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    given = [g for g in gradients if g is not None]
    wanted = torch.autograd.grad(expected, tensors, torch_dy, retain_graph=True)
    pairs += [(g, w.numpy()) for g, w in zip(given, wanted, strict=True)]
    for ours, theirs in pairs:
        scale = float(np.abs(theirs).max(initial=1))
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale), case.name


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> Row:
    import torch

    functions, data = prepare(case, torch)
    tracemalloc.start()
    functions[0](), functions[1]()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(clock() - start)
    forward, backward, torch_forward, torch_backward = times
    step = [f + b for f, b in zip(forward, backward, strict=True)]
    torch_step = [f + b for f, b in zip(torch_forward, torch_backward, strict=True)]
    return Row(
        case.name,
        ratio(forward, torch_forward),
        ratio(backward, torch_backward),
        ratio(step, torch_step),
        case.goal,
        1000 * statistics.median(step),
        peak,
        data,
    )


def ratio(here: list[float], there: list[float]) -> tuple[float, float, float]:
    each = [a / b for a, b in zip(here, there, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return middle, low, high


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["kernel, float32", "forward", "backward", "step", "goal", "ms", "peak MiB", "data MiB"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in rows:
        cells = [f"{m:.2f} ({a:.2f}–{b:.2f})" for m, a, b in (row.forward, row.backward, row.step)]
        goal = "" if row.goal is None else f"{row.goal:.2f}"
        sizes = [f"{size / 2**20:.1f}" for size in (row.peak, row.data)]
        lines.append([row.name, *cells, goal, f"{row.milliseconds:.1f}", *sizes])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="kernels with one of the words")
    parser.add_argument("--rounds", type=int, default=25, help="rounds for each kernel (25)")
    parser.add_argument("--threads", type=int, default=1, help="threads on both sides (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure time on the processor, not on the wall: for a busy machine, one thread",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.threads < 1:
        parser.error("--rounds must be at least 2 and --threads at least 1")
    if arguments.cpu_time and arguments.threads > 1:
        parser.error("--cpu-time adds up over threads: it needs --threads 1")
    words = arguments.only or [""]
    cases = [case for case in CASES if any(word in case.name for word in words)]
    if not cases:
        parser.error(f"no kernel has one of {words} in its name")

    threads = str(arguments.threads)
    if any(os.environ.get(name) != threads for name in BLAS_THREADS):
        # NumPy's BLAS reads these when it is loaded, so start once more with them.
        environment = dict(os.environ, **dict.fromkeys(BLAS_THREADS, threads))
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)

    import torch

    torch.set_num_threads(arguments.threads)
    rows = []
    for case in cases:
        print(f"{case.name} …", file=sys.stderr, flush=True)
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        rows.append(measure(case, arguments.rounds, clock))
    print(table(rows))
    print(f"\nNumPy {np.__version__}, torch {torch.__version__}, threads: {threads}.")
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
