"""The GPU benchmark's logic, without a GPU: its cases, its statistics, its files, its formulas."""

import argparse
import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_helpers import needs_compiler, needs_nvrtc

from dlnotes import cuda
from dlnotes.cuda import roofline
from dlnotes.cuda.roofline import Cost, Machine, cost

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def load():
    spec = importlib.util.spec_from_file_location("benchmark_of_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load()


class Clock:
    """Calls each function and answers with the seconds that it was given for it.

    queueing: how long each takes to queue; what has a shorter lead is late.
    """

    def __init__(self, seconds, queueing=0.0):
        self.next, self.order, self.leads = itertools.cycle(seconds), [], []
        self.queueing = queueing

    def start(self, function, lead):
        self.order.append(function())
        self.leads.append(lead)
        return benchmark.Sample(None, next(self.next), lead < self.queueing)

    def seconds(self, started):
        return [sample.end for sample in started]


# ---------------------------------------------------------------- the cases


def test_every_ladder_is_measured_and_counted():
    assert sorted(case.ladder for case in benchmark.CASES) == sorted(cuda.LADDERS)
    assert roofline.COSTS.keys() == cuda.LADDERS.keys()


@needs_compiler
@pytest.mark.parametrize("case", benchmark.CASES, ids=lambda case: case.ladder)
def test_both_sides_compute_the_same(case):
    groups = benchmark.by_dtype(cuda.LADDERS[case.ladder], "sm_90a")
    assert sum(map(len, groups.values())) == len(cuda.LADDERS[case.ladder].rungs)
    for dtype, rungs in groups.items():
        both_sides_of(case, dtype, rungs)


def both_sides_of(case, dtype, rungs):
    with torch.no_grad():
        inputs, sides = benchmark.prepare(torch, case, "cpu", dtype, rungs, case.tiny, 1000)
        assert cost(case.ladder, *inputs).bytes > 0
        names = [rung.name for rung in rungs] + ["library"] * (case.library is not None)
        assert list(sides) == names
        assert {len(functions) for functions in sides.values()} == {len(sides[names[0]])} != {1}
        benchmark.measure(Clock([1.0]), sides, 5, 1)


@needs_compiler
def test_a_wrong_result_is_not_timed(monkeypatch):
    (case,) = (case for case in benchmark.CASES if case.ladder == "softmax_backward")
    rung = cuda.LADDERS["softmax_backward"].rungs[0]
    record = cuda.Ladder.record
    monkeypatch.setattr(cuda.Ladder, "record", lambda *a, **k: (1.01 * record(*a, **k)[0], []))
    with pytest.raises(AssertionError, match=f"{rung.name} differs from torch by"):
        benchmark.prepare(torch, case, "cpu", "float32", [rung], case.tiny, 0)


def test_integers_must_be_the_same():
    case = benchmark.CASES[0]
    with pytest.raises(AssertionError, match="differs"):
        benchmark.check_equal(case, "r", torch.tensor([1]), torch.tensor([2]), 1.0)
    benchmark.check_equal(case, "r", (torch.ones(1), torch.ones(1)), [torch.ones(1)], 0.0)


def test_bfloat16_inputs_and_biases():
    inputs = torch.zeros(2, 3), torch.zeros(3), torch.tensor([1]), 7
    x, bias, ids, number = benchmark.in_dtype(torch, inputs, "bfloat16", cuda.LADDERS["linear"])
    assert (x.dtype, bias.dtype, ids.dtype, number) == (
        torch.bfloat16,
        torch.float32,
        torch.int64,
        7,
    )
    given = benchmark.library_inputs(torch, (x, bias, ids, number), "bfloat16")
    assert [getattr(i, "dtype", i) for i in given] == [torch.bfloat16] * 2 + [torch.int64, 7]


def test_rungs_by_architecture():
    rung = lambda needs: cuda.Rung("r", "Why.", print, (), needs)  # noqa: E731
    for needs, archs in {
        "sm_75": ("sm_75", "sm_80", "sm_90a", "sm_120a"),
        "sm_80": ("sm_80", "sm_90a", "sm_100a"),
        "sm_90a": ("sm_90a",),
    }.items():
        every = ("sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120a")
        runs = {arch for arch in every if rung(needs).runs_on(arch)}
        assert set(archs) <= runs
        assert "sm_75" not in runs or needs == "sm_75"
    assert not rung("sm_90a").runs_on("sm_100a")


# ---------------------------------------------------------------- measuring


def test_sides_take_turns_and_inputs_rotate():
    clock = Clock([0.25])
    sides = {name: [lambda name=name, i=i: f"{name}{i}" for i in range(2)] for name in "ab"}
    times = benchmark.measure(clock, sides, rounds=5, budget=100)
    assert clock.order == ["a0", "b0"] * 2 + ["a0", "b0", "a1", "b1"] * 2 + ["a0", "b0"]
    assert times == {name: benchmark.Taken([0.25] * 5, 0) for name in "ab"}


@pytest.mark.parametrize("queueing", [1e-5, 1e-4, 3e-4, 5e-3])
def test_the_card_spins_until_a_sample_is_queued_whole(queueing):
    clock = Clock([1.0], queueing)
    times = benchmark.measure(clock, {"a": [lambda: None]}, rounds=5, budget=100)
    assert times["a"].late == 0
    assert all(2 * queueing <= lead <= 8 * max(queueing, 5e-5) for lead in clock.leads[-5:])


def test_what_waits_for_the_card_itself_is_told():
    """No lead is enough for it, so none is tried, and its samples are all late."""
    clock = Clock([1.0], queueing=float("inf"))
    times = benchmark.measure(clock, {"a": [lambda: None]}, rounds=5, budget=100)
    assert times["a"] == benchmark.Taken([1.0] * 5, 5)
    assert clock.leads[-5:] == [0.0] * 5
    assert max(clock.leads) <= benchmark.LONGEST_LEAD


class Card:
    """A card, as far as Events goes, in a time of its own."""

    def __init__(self):
        self.now = 0.0  # for Python
        self.free = 0.0  # when the card has done all that was queued
        self.cuda = self
        self.uint8 = None

    def empty(self, *shape, **settings):
        return self

    def zero_(self):
        self.work(0.0)

    def work(self, seconds):
        self.free = max(self.free, self.now) + seconds

    def Event(self, enable_timing):
        card = self

        class Event:
            def record(self):
                card.work(0.0)
                self.at = card.free

            def query(self):
                return card.now >= self.at

            def elapsed_time(self, end):
                return 1000 * (end.at - self.at)

        return Event()

    def synchronize(self):
        self.now = max(self.now, self.free)


@pytest.fixture
def events(monkeypatch):
    card = Card()
    module = types.SimpleNamespace(kernel=lambda name: spin)

    class Spin:
        def __getitem__(self, shape):
            return lambda nanoseconds: card.work(1e-9 * nanoseconds)

    spin = Spin()
    monkeypatch.setattr(benchmark.cuda, "load", lambda source, device: module)
    monkeypatch.setattr(benchmark, "time", types.SimpleNamespace(perf_counter=lambda: card.now))
    return card, benchmark.Events(card, 100)


def test_times_are_the_cards_and_not_pythons(events):
    card, clock = events

    def slow_to_queue():  # five milliseconds of Python for two of the card
        for _ in range(2):
            card.now += 2.5e-3
            card.work(1e-3)

    def waits():
        card.work(1e-3)
        card.synchronize()
        card.work(1e-3)

    sides = {"slow": [slow_to_queue], "waits": [waits]}
    times = benchmark.measure(clock, sides, rounds=5, budget=100)
    assert times["slow"].seconds == pytest.approx([2e-3] * 5)
    assert (times["slow"].late, times["waits"].late) == (0, 5)
    late = clock.start(slow_to_queue, benchmark.SHORTEST_LEAD)
    assert late.late
    assert clock.seconds([late])[0] > 5e-3


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_90a", "sm_120"])
def test_what_spins_compiles(arch):
    assert cuda.compile(source=benchmark.SPIN, arch=arch).names["spin"]


@pytest.mark.parametrize(("budget", "rounds"), [(100, 40), (20, 10), (1, 5)])
def test_slow_rungs_get_fewer_rounds(budget, rounds):
    sides = {name: [lambda: None] for name in "ab"}
    times = benchmark.measure(Clock([1.0, 0.01]), sides, rounds=40, budget=budget)
    assert len(times["a"].seconds) == rounds
    assert len(times["b"].seconds) == 40


def test_copies_are_larger_than_the_cache():
    assert benchmark.copies(10, cache=1000) == benchmark.MOST_COPIES
    assert benchmark.copies(100, cache=1000) == 20
    assert benchmark.copies(10**9, cache=1000) == 2
    assert benchmark.copies(0, cache=0) == 2


def test_spread_is_median_and_quartiles():
    assert benchmark.spread([5, 1, 3, 2, 4]) == (3, 2, 4)


def test_rows_compare_round_by_round():
    case = benchmark.CASES[0]
    times = {"slow": [4.0, 8.0, 4.0], "fast": [1.0, 2.0, 1.0, 9.0], "library": [2.0, 4.0, 2.0]}
    times = {name: benchmark.Taken(seconds, 1) for name, seconds in times.items()}
    machine = Machine(bandwidth=10, rate=100)
    slow, fast = benchmark.rows(case, times, Cost(10, 50), machine, "float32")
    assert slow.of_library == (0.5, 0.5, 0.5)
    assert fast.of_library == (2.0, 2.0, 2.0)
    assert slow.seconds == (4.0, 4.0, 6.0)
    assert slow.of_roof == (0.25, 0.1875, 0.25)
    assert (slow.late, slow.library_late, fast.rounds) == (1, 1, 4)
    assert slow.bound == "memory"
    assert slow.rounds == 3
    taken = {"r": benchmark.Taken([1.0, 1.0], 0)}
    (alone,) = benchmark.rows(case, taken, Cost(10, 500), machine, "float32")
    assert alone.of_library is alone.library_seconds is alone.library_late is None
    assert alone.of_roof == (5.0, 5.0, 5.0)
    assert alone.bound == "arithmetic"


def test_machines():
    found = benchmark.machines({"copy": 0.5, "float32": 2.0, "bfloat16": 0.25}, 8, 100)
    assert found == {"float32": Machine(16.0, 50.0), "bfloat16": Machine(16.0, 400.0)}


# ---------------------------------------------------------------- files and tables

NUMBERS = {
    "card": "NVIDIA H200", "driver": "580.1", "versions": {"CUDA": "13.0"},
    "measured": "2026-01-01", "commit": "0123456789abcdef", "complete": False,
    "machine": {"float32": {"bandwidth": 4.2e12, "rate": 60e12}},
    "rows": [
        {"name": "nms 9", "rung": "nms_scan", "dtype": "float32", "seconds": [1e-3, 9e-4, 2e-3],
         "of_library": None, "of_roof": [0.5, 0.4, 0.6], "bound": "memory", "rounds": 9,
         "late": 9, "library_late": None},
        {"name": "linear 2", "rung": "matmul", "dtype": "bfloat16", "seconds": [1e-5, 1e-5, 2e-5],
         "of_library": [0.876, 0.8, 0.9], "of_roof": [0.5, 0.4, 0.6], "bound": "arithmetic",
         "rounds": 9, "late": 1, "library_late": 2},
    ],
    "failed": [{"name": "softmax 2", "why": "softmax 2: softmax_warp differs from torch by 1"}],
}  # fmt: skip
REPORT = """\
NVIDIA H200, driver 580.1, CUDA 13.0; measured 2026-01-01 at commit 0123456789ab.
Measured limits: 4.20 TB/s by copying; 60.0 TFLOP/s float32 by matrix products.
**Not complete: not all ladders that were asked for have been measured.**
**softmax 2 failed:** softmax 2: softmax_warp differs from torch by 1
\\* with Python's time: the rung, or what it is compared with, waits itself.

| ladder | rung | ms | of library | of roof | bound by |
| --- | --- | ---: | ---: | ---: | --- |
| nms 9 | nms_scan | 1.0000 (0.9000–2.0000) \\* | – | 0.50 (0.40–0.60) | memory |
| linear 2 | matmul (bfloat16) | 0.0100 (0.0100–0.0200) | 0.88 (0.80–0.90) | 0.50 (0.40–0.60) | arithmetic |"""  # noqa: E501


def test_report(tmp_path):
    assert benchmark.report(NUMBERS) == REPORT
    assert "Not complete" not in benchmark.report(NUMBERS | {"complete": True})
    file = tmp_path / "numbers.json"
    benchmark.write(file, NUMBERS)
    done = run("--report", file)
    assert done.stdout == REPORT + "\n"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "card.json"
    benchmark.write(file, {"a": 1})
    with pytest.raises(TypeError):
        benchmark.write(file, {"a": object()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark.os, "replace", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            benchmark.write(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(file.parent.iterdir()) == [file]


def test_names_of_files():
    assert benchmark.file_of("NVIDIA H100 80GB HBM3").name == "nvidia_h100_80gb_hbm3.json"


def test_what_is_committed_was_measured():
    """There is none until somebody with a GPU has measured."""
    for file in benchmark.FOLDER.glob("*.json"):
        numbers = json.loads(file.read_text(encoding="utf-8"))
        assert file == benchmark.file_of(numbers["card"])
        assert not numbers["commit"].endswith("+")
        assert numbers["complete"]


def test_commit_and_unknown_programs():
    here = benchmark.command("git", "-C", str(ROOT), "rev-parse", "HEAD")
    assert benchmark.commit() in (here, f"{here}+")
    assert benchmark.command("no-such-program-here") == "unknown"
    assert benchmark.command(sys.executable, "-c", "raise SystemExit(1)") == "unknown"


@pytest.fixture
def a_card_of_paper(monkeypatch):
    """Everything of a run but the card: tiny sizes on the CPU, and a clock that makes times up."""
    told = {
        "measured": "2026-01-01", "card": "Paper", "architecture": "sm_90a", "cache_bytes": 100,
        "driver": "1", "versions": {"CUDA": "0"}, "commit": "0" * 40,
    }  # fmt: skip
    prepare = benchmark.prepare

    def on_cpu(torch, case, device, dtype, rungs, sizes, cache):
        assert device == "cuda"
        assert sizes == case.sizes
        return prepare(torch, case, "cpu", dtype, rungs, case.tiny, cache)

    machines = {name: Machine(1e12, rate) for name, rate in (("float32", 1e13), ("bfloat16", 1e14))}
    monkeypatch.setattr(benchmark, "conditions", lambda torch: told)
    monkeypatch.setattr(benchmark, "Events", lambda torch, cache: Clock([0.25]))
    monkeypatch.setattr(benchmark, "measure_machine", lambda *a: machines)
    monkeypatch.setattr(benchmark, "prepare", on_cpu)


def asked(folder, rounds=5):
    """Return what the command line would have said."""
    file = folder / "paper.json"
    return argparse.Namespace(out=file, rounds=rounds, budget=100, minutes=5)


@needs_compiler
def test_a_whole_run(a_card_of_paper, tmp_path, capsys):
    arguments = asked(tmp_path, rounds=6)
    cases = [case for case in benchmark.CASES if case.ladder in ("linear", "nms", "adam")]
    assert benchmark.run_all(torch, cases, arguments) == (arguments.out, True)
    numbers = json.loads(arguments.out.read_text(encoding="utf-8"))
    assert [(row["ladder"], row["rung"]) for row in numbers["rows"]] == [
        (case.ladder, rung.name) for case in cases for rung in cuda.LADDERS[case.ladder].rungs
    ]
    for row in numbers["rows"]:
        assert row["seconds"] == [0.25] * 3
        assert row["of_library"] == (None if row["ladder"] == "nms" else [1.0] * 3)
        assert row["rounds"] == 6
    products = {
        row["rung"]: row["of_roof"][0]
        for row in numbers["rows"][: len(cuda.LADDERS["linear"].rungs)]
    }
    assert products["matmul_naive"] > products["matmul_mma"] > 0
    assert not numbers["complete"]
    assert capsys.readouterr().out == benchmark.report(numbers) + "\n"
    assert list(tmp_path.iterdir()) == [arguments.out]


@needs_compiler
def test_a_run_that_is_cut_off_keeps_what_it_has(a_card_of_paper, tmp_path, monkeypatch):
    arguments = asked(tmp_path)
    cases = [case for case in benchmark.CASES if case.ladder in ("box_iou", "adam")]
    right = benchmark.measure

    def cut_off(clock, sides, *settings):
        if "adam_fused" in sides:
            raise KeyboardInterrupt
        return right(clock, sides, *settings)

    monkeypatch.setattr(benchmark, "measure", cut_off)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run_all(torch, cases, arguments)
    numbers = json.loads(arguments.out.read_text(encoding="utf-8"))
    assert {row["ladder"] for row in numbers["rows"]} == {"box_iou"}
    assert numbers["left_out"] == ["adam 33554432"]
    assert not numbers["complete"]


@needs_compiler
def test_a_ladder_that_fails_is_told_and_the_others_are_measured(
    a_card_of_paper, tmp_path, monkeypatch, capsys
):
    arguments = asked(tmp_path)
    cases = [case for case in benchmark.CASES if case.ladder in ("box_iou", "adam")]
    wrong = dataclasses.replace(cases[0], library=lambda *inputs: lambda: torch.zeros(9, 5) - 1)
    assert benchmark.run_all(torch, [wrong, cases[1]], arguments) == (arguments.out, False)
    numbers = json.loads(arguments.out.read_text(encoding="utf-8"))
    assert {row["ladder"] for row in numbers["rows"]} == {"adam"}
    (failed,) = numbers["failed"]
    assert failed["why"].startswith("box_iou 4096×4096: box_iou_naive differs from torch by")
    assert numbers["left_out"] == []
    assert not numbers["complete"]
    assert "**box_iou 4096×4096 failed:**" in capsys.readouterr().out


@needs_compiler
def test_without_time_the_rest_is_left_out(a_card_of_paper, tmp_path, monkeypatch):
    arguments = asked(tmp_path)
    cases = [case for case in benchmark.CASES if case.ladder in ("box_iou", "adam")]
    moments = iter([0.0, 1.0, 2.0, 301.0])  # start, first ladder, its budget, second ladder
    clock = types.SimpleNamespace(monotonic=lambda: next(moments), perf_counter=time.perf_counter)
    monkeypatch.setattr(benchmark, "time", clock)
    benchmark.run_all(torch, cases, arguments)
    numbers = json.loads(arguments.out.read_text(encoding="utf-8"))
    assert {row["ladder"] for row in numbers["rows"]} == {"box_iou"}
    assert numbers["left_out"] == ["adam 33554432"]
    assert not numbers["complete"]


def test_what_most_depends_on_comes_first():
    names = [case.ladder for case in benchmark.chosen(None)]
    assert sorted(names) == sorted(cuda.LADDERS)
    assert names[:6] == ["linear", "conv2d", "attention", "softmax", "layer_norm", "adam"]
    assert tuple(names[: len(benchmark.FIRST)]) == benchmark.FIRST
    assert [case.ladder for case in benchmark.chosen(["norm", "adam"])][:2] == [
        "layer_norm",
        "adam",
    ]


# ---------------------------------------------------------------- the command


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(cuda.available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == benchmark.NO_GPU == 69
    assert done.stdout == ""
    assert done.stderr.startswith("There is no GPU here")


def test_list_names_every_rung():
    done = run("--list", "--only", "adam")
    assert done.stdout == "adam 33554432: adam_separate, adam_fused, adam_vectorised\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "no such"], "no ladder has one of"),
        (["--only", "nms"], "name its file with --out"),
        (["--rounds", "2"], "--rounds must be at least 5"),
        (["--budget", "0"], "--budget and --minutes above 0"),
        (["--minutes", "0"], "--budget and --minutes above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


# ---------------------------------------------------------------- the roofline


def test_machine():
    machine = Machine(bandwidth=100, rate=1000)
    assert machine.ridge == 10
    assert [machine.attainable(i) for i in (1, 10, 20)] == [100, 1000, 1000]
    assert machine.seconds(Cost(100, 500)) == 1.0
    assert machine.seconds(Cost(100, 5000)) == 5.0
    assert Cost(100, 500).intensity == 5


def touched(trace) -> int:
    """Return how many bytes of its arrays a launch has read, and written, each counted once."""
    events = trace.events[(trace.events["kind"] < 3) & (trace.events["buffer"] >= 0)]
    sides = {
        (side, int(event["buffer"]), int(event["offset"]) + byte)
        for event in events
        for side in (("read",), ("write",), ("read", "write"))[event["kind"]]
        for byte in range(event["bytes"])
    }
    return len(sides)


# One kernel each, without atomics, so that nothing is moved but inputs and results.
EXACT = {
    "linear": "matmul_naive", "softmax": "softmax_warp",
    "cross_entropy": "cross_entropy_fused", "layer_norm": "layer_norm_warp",
    "batch_norm": "batch_norm_block", "rms_norm": "rms_norm_warp",
    "local_response_norm": "local_response_naive",
    "local_response_norm_backward": "local_response_backward_naive",
    "group_norm": "group_norm_block", "adaptive_avg_pool2d": "adaptive_avg_pool_warp",
    "adaptive_avg_pool2d_backward": "adaptive_avg_pool_backward_gather",
    "batch_norm_inference": "batch_norm_inference_plane",
    "batch_norm_backward": "batch_norm_backward_block", "avg_pool2d": "avg_pool_naive",
    "max_pool2d": "max_pool_naive", "max_pool2d_backward": "max_pool_backward_gather",
    "avg_pool2d_backward": "avg_pool_backward_gather", "conv2d": "conv_direct",
    "conv_transpose2d": "conv_transpose_direct",
    "attention": "attention_online", "lstm_cell": "lstm_fused", "gru_cell": "gru_fused",
    "box_iou": "box_iou_naive", "gram_matrix": "gram_naive",
    "gram_matrix_backward": "gram_backward_naive", "adam": "adam_fused",
    "softmax_backward": "softmax_backward_warp",
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("ladder", EXACT)
def test_bytes_are_those_that_a_kernel_touches(ladder):
    (case,) = (case for case in benchmark.CASES if case.ladder == ladder)
    inputs = case.make(benchmark.Draw(torch, "cpu"), *case.tiny)
    _, traces = cuda.LADDERS[ladder].record(*inputs, rung=EXACT[ladder])
    assert sum(map(touched, traces)) == cost(ladder, *inputs).bytes


EXACT_HALVES = {"linear": "matmul_mma", "conv2d": "conv_mma", "attention": "attention_mma"}


@needs_compiler
@pytest.mark.parametrize("ladder", EXACT_HALVES)
def test_bytes_of_bfloat16_are_those_that_a_kernel_touches(ladder):
    (case,) = (case for case in benchmark.CASES if case.ladder == ladder)
    inputs = case.make(benchmark.Draw(torch, "cpu"), *case.tiny)
    inputs = benchmark.in_dtype(torch, inputs, "bfloat16", cuda.LADDERS[ladder])
    _, traces = cuda.LADDERS[ladder].record(*inputs, rung=EXACT_HALVES[ladder])
    assert sum(map(touched, traces)) == cost(ladder, *inputs).bytes


def test_operations_of_products():
    """2 for each product of the sums that the formulas write out."""
    f = lambda *shape: np.broadcast_to(np.float32(0), shape)  # noqa: E731
    assert cost("linear", f(3, 5), f(7, 5)).operations == 2 * 3 * 5 * 7
    assert cost("linear", f(3, 5), f(7, 5), f(7)).operations == 2 * 3 * 5 * 7 + 3 * 7
    dy, x, w = f(3, 7), f(3, 5), f(7, 5)
    assert cost("linear_backward", dy, x, w).operations == 2 * (2 * 3 * 5 * 7) + 3 * 7
    images, filters = f(2, 6, 9, 8), f(4, 3, 3, 2)
    # output 4 × 7 × 8 at stride (1, 1) with groups=2, each the sum of 3 · 3 · 2 products
    settings = (1, 0, 1, 2)
    assert cost("conv2d", images, filters, None, *settings).operations == 2 * (2 * 4 * 7 * 7) * 18
    qkv = f(2, 3, 4, 5), f(2, 3, 6, 5), f(2, 3, 6, 7)
    assert cost("attention", *qkv).operations == 2 * 3 * 4 * 6 * (2 * (5 + 7) + 5)
    causal = cost("attention", *qkv, None, True).operations
    assert causal == 2 * 3 * (1 + 2 + 3 + 4) * (2 * (5 + 7) + 5)
    assert cost("gram_matrix", f(2, 3, 4, 5)).operations == 2 * (2 * 3 * 4 // 2) * 20
    assert cost("sum", f(9)).operations == 9
    assert cost("adam", *[f(10)] * 4, 1).bytes == 7 * 10 * 4
    assert cost("adam", *[f(10).astype(np.float64)] * 4, 1).bytes == 7 * 10 * 8


def test_an_unknown_ladder_has_no_cost():
    with pytest.raises(ValueError, match="ladder must be one of 'linear'"):
        cost("matmul")
