"""Schedules of the learning rate: names, arguments, defaults and values as in torch.

A schedule is made after its optimiser and stepped once an epoch, after the optimiser's steps
(`train.fit(…, scheduler=…)` does it): making it sets the rates of epoch 0, and each `step()` those
of the next epoch, in `optimizer.param_groups[i]["lr"]`. The schedules work on the rate they find
there, so that several on one optimiser multiply (`ChainedScheduler` steps them together) and a
rate set by hand is kept; `CosineAnnealingWarmRestarts`, `CyclicLR`, `OneCycleLR` and `LambdaLR`
compute it anew from `initial_lr` each time.

`state_dict()` holds plain values that go into a checkpoint; functions are not among them.
TypeError or ValueError, naming the argument, for anything that does not make a schedule.

Where no source is named the schedule is plain arithmetic. A step costs a few operations for each
parameter group. optimizer and last_epoch are explained at `LRScheduler`.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.optim.optimizer import Optimizer


class LRScheduler:
    """Base class. A subclass gives `get_lr`, the rates of epoch `last_epoch`, one for each group.

    last_epoch: -1 at the start; to resume without a state_dict, the number of the epoch that was
    trained last, with `initial_lr` in every parameter group.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = _optimizer(optimizer)
        self.last_epoch = _validate.integer("last_epoch", last_epoch, low=-1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                raise ValueError(
                    f"last_epoch={last_epoch} resumes a schedule, so parameter group {i} must "
                    "have initial_lr"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._start()

    def _start(self) -> None:
        """Set the rates of the first epoch."""
        self._starting = True
        self.step()
        self._starting = False

    def step(self) -> None:
        """Go on to the next epoch and set its rates."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def get_lr(self) -> list[float]:
        """Return the rates of epoch `last_epoch`; called by `step` (see `get_last_lr`)."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr")

    def get_last_lr(self) -> list[float]:
        """Return the rates that were set last, one for each parameter group."""
        return self._last_lr

    def restart(self) -> None:
        """Go to epoch 0 whatever the rate is now (SequentialLR, when this one's turn comes)."""
        self.last_epoch = 0
        self._set([base * self._first_factor() for base in self.base_lrs])

    def _first_factor(self) -> float:
        return 1.0

    def _rewind(self) -> None:
        """Forget the step that set the first rates, and all after it."""
        self.last_epoch = -1

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._rates()

    def state_dict(self) -> dict:
        """Return all that changes, and the settings, but neither optimiser nor functions."""
        return {
            name: dict(value) if isinstance(value, Counter) else _copied(value)
            for name, value in self.__dict__.items()
            if name not in ("optimizer", "_starting") and not callable(value)
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what `state_dict` returned; ValueError if it is another schedule's."""
        own = self.state_dict()
        if set(state_dict) != set(own):
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}: it has {sorted(state_dict)}, "
                f"not {sorted(own)}"
            )
        self.__dict__.update({name: _copied(value) for name, value in state_dict.items()})


class LambdaLR(LRScheduler):
    """initial_lr · lr_lambda(epoch); one function, or one for each parameter group.

    `dlnotes.optim.schedules` has the usual functions. TypeError for what cannot be called.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable | Sequence[Callable],
        last_epoch: int = -1,
    ):
        self.lr_lambdas = _functions("lr_lambda", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return initial_lr · lr_lambda(epoch)."""
        return [
            base * float(factor(self.last_epoch))
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]

    def restart(self) -> None:
        """Go to epoch 0."""
        self.last_epoch = 0
        self._set(self.get_lr())

    def state_dict(self) -> dict:
        """Return the state without the functions."""
        return {name: v for name, v in super().state_dict().items() if name != "lr_lambdas"}


class MultiplicativeLR(LambdaLR):
    """Multiply the rate by lr_lambda(epoch) each epoch but the first.

    initial_lr · Π lr_lambda(i), i = 1 … epoch; one function, or one for each parameter group.
    """

    def get_lr(self) -> list[float]:
        """Return lr · lr_lambda(epoch)."""
        if self._starting:
            return self._rates()
        return [
            rate * float(factor(self.last_epoch))
            for rate, factor in zip(self._rates(), self.lr_lambdas, strict=True)
        ]


class StepLR(LRScheduler):
    """The staircase initial_lr · gamma^⌊epoch / step_size⌋.

    step_size: epochs, at least 1; gamma: a number. (Szegedy et al., 2015, with gamma 0.96 and 8
    epochs.)
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: Number = 0.1, last_epoch: int = -1
    ):
        self.step_size = _validate.integer("step_size", step_size, low=1)
        self.gamma = _validate.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr, times gamma every step_size epochs."""
        at_step = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [rate * self.gamma if at_step else rate for rate in self._rates()]


class MultiStepLR(LRScheduler):
    """initial_lr · gamma^(number of milestones up to this epoch).

    milestones: epochs from 0, in any order. (He, Zhang, Ren and Sun, 2016, with gamma 0.1.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: Number = 0.1,
        last_epoch: int = -1,
    ):
        self.milestones = Counter(_validate.integer("milestones", m, low=0) for m in milestones)
        self.gamma = _validate.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr, times gamma at a milestone (twice if it is named twice)."""
        factor = self.gamma ** self.milestones[self.last_epoch]
        return [rate * factor for rate in self._rates()]

    def _first_factor(self) -> float:
        return self.gamma ** self.milestones[0]

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.milestones = Counter(self.milestones)


class ConstantLR(LRScheduler):
    """initial_lr · factor for the first total_iters epochs, then initial_lr.

    factor: above 0, at most 1; total_iters: at least 0. (A warm-up: He, Zhang, Ren and Sun, 2016.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Number = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        self.factor = _positive("factor", factor, high=1)
        self.total_iters = _validate.integer("total_iters", total_iters, low=0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr · factor at first, and lr / factor once at the end."""
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates()]
        if self.last_epoch == self.total_iters:
            return [rate * (1 / self.factor) for rate in self._rates()]
        return self._rates()

    def _first_factor(self) -> float:
        return self.factor if self.total_iters else 1.0


class LinearLR(LRScheduler):
    """From initial_lr · start_factor in equal steps to initial_lr · end_factor at total_iters.

    initial_lr · (start_factor + (end_factor - start_factor) · min(epoch, total_iters) /
    total_iters), 0 < start_factor ≤ 1, 0 ≤ end_factor ≤ 1 (warm-up: Goyal et al., 2017).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: Number = 1 / 3,
        end_factor: Number = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        self.start_factor = _positive("start_factor", start_factor, high=1)
        self.end_factor = _validate.number("end_factor", end_factor, low=0, high=1)
        self.total_iters = _validate.integer("total_iters", total_iters, low=1)
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        rise = self.end_factor - self.start_factor
        return self.start_factor + rise * min(epoch, self.total_iters) / self.total_iters

    def get_lr(self) -> list[float]:
        """Return lr times the ratio of this epoch's factor to the last one's."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates()]
        if self._starting or self.last_epoch > self.total_iters:
            return self._rates()
        ratio = self._factor(self.last_epoch) / self._factor(self.last_epoch - 1)
        return [rate * ratio for rate in self._rates()]

    def _first_factor(self) -> float:
        return self.start_factor


class ExponentialLR(LRScheduler):
    """initial_lr · gamma^epoch, gamma any number."""

    def __init__(self, optimizer: Optimizer, gamma: Number, last_epoch: int = -1):
        self.gamma = _validate.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr · gamma."""
        factor = 1.0 if self._starting else self.gamma
        return [rate * factor for rate in self._rates()]


class PolynomialLR(LRScheduler):
    """initial_lr · (1 - epoch / total_iters)^power, then 0.

    total_iters: at least 1. (Liu, Rabinovich and Berg, 2015.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: Number = 1.0,
        last_epoch: int = -1,
    ):
        self.total_iters = _validate.integer("total_iters", total_iters, low=1)
        self.power = _validate.number("power", power)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr times the ratio of this epoch's factor to the last one's."""
        if self._starting or self.last_epoch > self.total_iters:
            return self._rates()
        left, left_before = (
            1 - e / self.total_iters for e in (self.last_epoch, self.last_epoch - 1)
        )
        return [rate * (left / left_before) ** self.power for rate in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """eta_min + (initial_lr - eta_min) · (1 + cos(π · epoch / T_max)) / 2.

    Half a period of the cosine takes T_max epochs; after it, the rate rises again
    (Loshchilov and Hutter, 2017, without the restarts).
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: Number = 0.0, last_epoch: int = -1
    ):
        self.T_max = _validate.integer("T_max", T_max, low=1)
        self.eta_min = _validate.number("eta_min", eta_min, low=0)
        super().__init__(optimizer, last_epoch)

    def _height(self, epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / self.T_max)) / 2

    def get_lr(self) -> list[float]:
        """Return the rate whose height above eta_min has changed as the cosine's did."""
        if self._starting:
            return self._rates()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The last rate stood at the bottom, where a ratio would be 0 / 0.
            rise = self._height(self.T_max - 1)
            return [
                rate + (base - self.eta_min) * rise
                for rate, base in zip(self._rates(), self.base_lrs, strict=True)
            ]
        ratio = self._height(self.last_epoch) / self._height(self.last_epoch - 1)
        return [self.eta_min + (rate - self.eta_min) * ratio for rate in self._rates()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that restarts after T_0 epochs, then after T_0 · T_mult, and so on.

    eta_min + (initial_lr - eta_min) · (1 + cos(π · T_cur / T_i)) / 2, T_cur epochs after a restart
    of a cycle of T_i (Loshchilov and Hutter, 2017). `step(epoch)` may be called with a fraction of
    an epoch, in order to change the rate after every batch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: Number = 0.0,
        last_epoch: int = -1,
    ):
        self.T_0 = self.T_i = _validate.integer("T_0", T_0, low=1)
        self.T_mult = _validate.integer("T_mult", T_mult, low=1)
        self.eta_min = _validate.number("eta_min", eta_min, low=0)
        self.T_cur: Number = last_epoch
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: Number | None = None) -> None:
        """Go on by one epoch, or to the given one."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        else:
            self.T_cur, self.T_i = _validate.number("epoch", epoch, low=0), self.T_0
            while self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur - self.T_i, self.T_i * self.T_mult
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def get_lr(self) -> list[float]:
        """Return the rates at T_cur."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def restart(self) -> None:
        """Go to epoch 0."""
        self.step(0)


class CyclicLR(LRScheduler):
    """Between base_lr and max_lr and back, in straight lines (Smith, 2017); usually per batch.

    Up in step_size_up steps, down in step_size_down (as many, if None). mode: "triangular";
    "triangular2", half the height each cycle; "exp_range", height · gamma^step. Or scale_fn gives
    the height, of the cycle's number from 1 or of the step, as scale_mode says ("cycle",
    "iterations"). With cycle_momentum, momentum (or β₁) goes the other way, from max_momentum to
    base_momentum. Lists give each parameter group its own values.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Number | Sequence[Number],
        max_lr: Number | Sequence[Number],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: Number = 1.0,
        scale_fn: Callable | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Number | Sequence[Number] = 0.8,
        max_momentum: Number | Sequence[Number] = 0.9,
        last_epoch: int = -1,
    ):
        _optimizer(optimizer)
        step_size_up = _validate.integer("step_size_up", step_size_up, low=1)
        if step_size_down is None:
            step_size_down = step_size_up
        step_size_down = _validate.integer("step_size_down", step_size_down, low=1)
        self.total_size = step_size_up + step_size_down
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        if scale_fn is None:
            _validate.one_of("mode", mode, ["triangular", "triangular2", "exp_range"])
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        elif not callable(scale_fn):
            raise TypeError(f"scale_fn must be a function, got {type(scale_fn).__name__}")
        self.scale_mode = _validate.one_of("scale_mode", scale_mode, ["cycle", "iterations"])
        self.gamma = _validate.number("gamma", gamma)
        self._scale_fn = scale_fn
        base_lrs = _each_group("base_lr", base_lr, optimizer)
        self.max_lrs = _each_group("max_lr", max_lr, optimizer)
        self.cycle_momentum = cycle_momentum
        self._momenta = _set_momenta(
            optimizer, cycle_momentum, base_momentum, max_momentum, start=last_epoch == -1
        )
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = rate
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: Number) -> float:
        """Return the height of cycle x (from 1), or of step x."""
        if self._scale_fn is not None:
            return float(self._scale_fn(x))
        return {
            "triangular": 1.0,
            "triangular2": 0.5 ** (x - 1),
            "exp_range": self.gamma**x,
        }[self.mode]

    def get_lr(self) -> list[float]:
        """Return the rates, and set the momenta, of this step."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1 + self.last_epoch / self.total_size - cycle  # where in the cycle: 0 … 1
        height = x / self.step_ratio if x <= self.step_ratio else (1 - x) / (1 - self.step_ratio)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        for group, (low, high) in zip(self.optimizer.param_groups, self._momenta, strict=False):
            _set_momentum(group, high - (high - low) * height)
        bases = self.base_lrs
        return [low + (high - low) * height for low, high in zip(bases, self.max_lrs, strict=True)]

    def restart(self) -> None:
        """Go to step 0."""
        self.last_epoch = 0
        self._set(self.get_lr())


class OneCycleLR(LRScheduler):
    """One cycle for a whole run, stepped after every batch (Smith and Topin, 2019).

    From max_lr / div_factor up to max_lr in the first pct_start of total_steps (or epochs ·
    steps_per_epoch), then down to initial_lr / final_div_factor, by cosine (anneal_strategy="cos")
    or in straight lines ("linear"); with three_phase, down to the initial rate in pct_start, then
    to the last. With cycle_momentum, momentum (or β₁) falls from max_momentum to base_momentum and
    rises again. Lists give each parameter group its own values. ValueError for a step beyond
    total_steps.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Number | Sequence[Number],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: Number = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Number | Sequence[Number] = 0.85,
        max_momentum: Number | Sequence[Number] = 0.95,
        div_factor: Number = 25.0,
        final_div_factor: Number = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        _optimizer(optimizer)
        if total_steps is not None:
            self.total_steps = _validate.integer("total_steps", total_steps, low=1)
        elif epochs is not None and steps_per_epoch is not None:
            epochs = _validate.integer("epochs", epochs, low=1)
            self.total_steps = epochs * _validate.integer("steps_per_epoch", steps_per_epoch, low=1)
        else:
            raise ValueError("total_steps, or epochs and steps_per_epoch, must be given")
        _validate.number("pct_start", pct_start, low=0, high=1)
        self.anneal_strategy = _validate.one_of(
            "anneal_strategy", anneal_strategy, ["cos", "linear"]
        )
        self._phases = self._phases_of(float(pct_start), three_phase)
        div_factor = _positive("div_factor", div_factor)
        final_div_factor = _positive("final_div_factor", final_div_factor)
        highest = _each_group("max_lr", max_lr, optimizer)
        self.cycle_momentum = cycle_momentum
        _set_momenta(optimizer, cycle_momentum, base_momentum, max_momentum, last_epoch == -1)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, highest, strict=True):
                group["initial_lr"] = rate / div_factor
                group["max_lr"] = rate
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def _phases_of(self, pct_start: float, three_phase: bool) -> list[tuple]:
        """Return (step, rate, momentum) where the phases meet; rates and momenta by name."""
        top, end = pct_start * self.total_steps - 1, self.total_steps - 1
        start = (0.0, "initial_lr", "max_momentum")
        peak = (top, "max_lr", "base_momentum")
        if not three_phase:
            return [start, peak, (end, "min_lr", "max_momentum")]
        back = (2 * pct_start * self.total_steps - 2, "initial_lr", "max_momentum")
        return [start, peak, back, (end, "min_lr", "max_momentum")]

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * fraction
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    def get_lr(self) -> list[float]:
        """Return the rates, and set the momenta, of this step."""
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"total_steps is {self.total_steps}, but this would be step {step}")
        phase = 1
        while phase < len(self._phases) - 1 and step > self._phases[phase][0]:
            phase += 1
        (first, lr0, momentum0), (last, lr1, momentum1) = self._phases[phase - 1 : phase + 1]
        fraction = (step - first) / (last - first) if last != first else 1.0
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[lr0], group[lr1], fraction))
            if self.cycle_momentum:
                _set_momentum(group, self._between(group[momentum0], group[momentum1], fraction))
        return rates

    def restart(self) -> None:
        """Go to step 0."""
        self.last_epoch = 0
        self._set(self.get_lr())


class ChainedScheduler(LRScheduler):
    """Step several schedules of one optimiser together: their factors multiply.

    ValueError for schedules of different optimisers or none, and for `ReduceLROnPlateau`.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self.optimizer, self._schedulers = _together(schedulers, optimizer)
        self.last_epoch = schedulers[-1].last_epoch
        self._last_lr = self._rates()

    def step(self) -> None:
        """Step every schedule."""
        for scheduler in self._schedulers:
            scheduler.step()
        self.last_epoch += 1
        self._last_lr = self._rates()

    def restart(self) -> None:
        """Go to epoch 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self._rewind()
        self._start()

    def _start(self) -> None:
        for scheduler in self._schedulers:
            scheduler._start()
        self.last_epoch += 1
        self._last_lr = self._rates()

    def _rewind(self) -> None:
        self.last_epoch = -1
        for scheduler in self._schedulers:
            scheduler._rewind()

    def state_dict(self) -> dict:
        """Return the state, with that of each schedule under "_schedulers"."""
        inner = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": inner}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what `state_dict` returned."""
        schedulers = self._schedulers
        inner = state_dict.get("_schedulers", [])
        if len(inner) != len(schedulers):
            raise ValueError(f"state_dict must hold {len(schedulers)} schedules, got {len(inner)}")
        super().load_state_dict(state_dict)
        self._schedulers = schedulers
        for scheduler, state in zip(schedulers, inner, strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(ChainedScheduler):
    """One schedule after another: schedulers[i + 1] begins anew at epoch milestones[i].

    All begin at epoch 0; to resume, load the state_dict.
    milestones: one fewer than schedulers, rising. ValueError as in `ChainedScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
    ):
        self.optimizer, self._schedulers = _together(schedulers, optimizer)
        self._milestones = [_validate.integer("milestones", m, low=0) for m in milestones]
        if len(self._milestones) != len(self._schedulers) - 1:
            raise ValueError(
                "milestones must be one fewer than schedulers, got "
                f"{len(self._milestones)} and {len(self._schedulers)}"
            )
        if self._milestones != sorted(self._milestones):
            raise ValueError(f"milestones must rise, got {self._milestones}")
        # Each schedule has set its first rate when it was made: take that back, then start one.
        self.restart()

    def _start(self) -> None:
        self._schedulers[bisect_right(self._milestones, 0)]._start()
        self.last_epoch += 1
        self._last_lr = self._rates()

    def step(self) -> None:
        """Step the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            self._schedulers[turn].restart()
        else:
            self._schedulers[turn].step()
        self._last_lr = self._rates()


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by factor when `step(metric)` has not improved for patience epochs.

    Improved: below best · (1 - threshold), or below best - threshold with threshold_mode="abs";
    above best · (1 + threshold) or best + threshold with mode="max". After a reduction, cooldown
    epochs are not counted. The rate stays at least min_lr (a list: for each group); a change of
    at most eps is not made.
    0 ≤ factor < 1. (As Krizhevsky, Sutskever and Hinton, 2012, did by hand.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: Number = 0.1,
        patience: int = 10,
        threshold: Number = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Number | Sequence[Number] = 0,
        eps: Number = 1e-8,
    ):
        self.optimizer = _optimizer(optimizer)
        self.mode = _validate.one_of("mode", mode, ["min", "max"])
        self.factor = _validate.number("factor", factor, low=0)
        if self.factor >= 1:
            raise ValueError(f"factor must be below 1, got {factor}")
        self.patience = _validate.integer("patience", patience, low=0)
        self.threshold = _validate.number("threshold", threshold)
        self.threshold_mode = _validate.one_of("threshold_mode", threshold_mode, ["rel", "abs"])
        self.cooldown = _validate.integer("cooldown", cooldown, low=0)
        self.min_lrs = _each_group("min_lr", min_lr, optimizer)
        self.eps = _validate.number("eps", eps, low=0)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self._rates()

    def step(self, metrics) -> None:
        """Take the metric of the epoch that has ended, and set the rates of the next."""
        metrics = float(metrics)
        self.last_epoch += 1
        if self._is_better(metrics):
            self.best, self.num_bad_epochs = metrics, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group, lowest in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, lowest)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
        self._last_lr = self._rates()

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bound = self.best * (1 + sign * self.threshold)
        else:
            bound = self.best + sign * self.threshold
        return value > bound if self.mode == "max" else value < bound


# ---- arguments -------------------------------------------------------------------------------


def _optimizer(optimizer) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
    return optimizer


def _positive(name: str, value, high: Number | None = None) -> float:
    value = _validate.number(name, value, low=0, high=high)
    if value == 0:
        raise ValueError(f"{name} must be above 0, got 0")
    return value


def _each_group(name: str, value, optimizer: Optimizer) -> list[float]:
    """Return one number for each parameter group."""
    count = len(_optimizer(optimizer).param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} must have one value for each of {count} groups, got {value}")
    return [_validate.number(name, v) for v in values]


def _functions(name: str, value, optimizer: Optimizer) -> list[Callable]:
    """Return one function for each parameter group."""
    count = len(_optimizer(optimizer).param_groups)
    functions = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(functions) != count:
        raise ValueError(
            f"{name} must have one function for each of {count} groups, got {len(functions)}"
        )
    for function in functions:
        if not callable(function):
            raise TypeError(f"{name} must be a function of the epoch, got {function!r}")
    return functions


def _together(schedulers, optimizer) -> tuple[Optimizer, list[LRScheduler]]:
    """Return the optimiser and the schedules, which must all be its own."""
    if not isinstance(schedulers, list | tuple) or not schedulers:
        raise ValueError(f"schedulers must be a list of at least one schedule, got {schedulers!r}")
    for scheduler in schedulers:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"schedulers must hold schedules, got {type(scheduler).__name__}")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("schedulers cannot hold ReduceLROnPlateau, which steps by a metric")
    optimizer = schedulers[0].optimizer if optimizer is None else _optimizer(optimizer)
    if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
        raise ValueError("schedulers must all belong to the same optimizer")
    return optimizer, list(schedulers)


def _set_momenta(optimizer, cycle_momentum, base_momentum, max_momentum, start) -> list[tuple]:
    """Return (lowest, highest) for each group and note both there; [] if they are not cycled."""
    if not cycle_momentum:
        return []
    if not {"momentum", "betas"} & set(optimizer.defaults):
        raise ValueError(
            "cycle_momentum=True needs an optimizer with momentum or betas, got "
            f"{type(optimizer).__name__}"
        )
    lows = _each_group("base_momentum", base_momentum, optimizer)
    highs = _each_group("max_momentum", max_momentum, optimizer)
    if start:
        for group, low, high in zip(optimizer.param_groups, lows, highs, strict=True):
            group["base_momentum"], group["max_momentum"] = low, high
            _set_momentum(group, high)
    return list(zip(lows, highs, strict=True))


def _set_momentum(group: dict, value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _copied(value):
    return value.copy() if isinstance(value, list | dict) else value
