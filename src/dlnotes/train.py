"""The training loop of the whole book: `fit`, with `evaluate` and `predict`.

One loop serves `dlnotes.nn` and `torch.nn`: both have `parameters`, `train`, `eval` and
`state_dict`, both losses have `backward`, both optimisers `zero_grad` and `step`. Everything
that is not the loop itself (turning batches into tensors, measuring, choosing the best epoch,
checkpoints) stands below it.
"""

import contextlib
import copy
import json
import math
import os
import random
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dlnotes.random

__all__ = ["EarlyStopping", "History", "LossNotFinite", "evaluate", "fit", "predict"]


# fmt: off
def fit(
    model, train_loader, *, loss_fn, optimizer, epochs, val_loader=None, metrics=None,
    scheduler=None, early_stopping=None, restore_best=True, checkpoint=None, resume=True,
    progress=True, callbacks=(),
) -> "History":
    """Train `model` until `epochs` passes over `train_loader` are done; return the History.

    `loss_fn(outputs, targets)` gives one number, the mean over a batch; `metrics` maps names to
    functions of (output array, target array). After each epoch the model is measured on
    `val_loader`, `scheduler.step()` is called, then each `callback(epoch, model, history)`.
    With a `val_loader` the weights of the best epoch (lowest val_loss, or as `early_stopping`
    says) are put back at the end unless `restore_best=False`; without one the last are kept.
    `checkpoint` names a file, written after every epoch, from which a run that was killed at
    any moment goes on (`resume=True`) to the same weights, bit for bit; a finished run returns at
    once. An interrupt from the keyboard ends the training like early stopping: the best weights
    are put back (without a `val_loader` those of the moment stay) and the history is returned.

    Raises LossNotFinite when a loss is NaN or infinite, before it can spoil the weights, and
    TypeError or ValueError for arguments that do not fit together, before any training.
    """
    run = _Run(model, train_loader, loss_fn, optimizer, epochs, val_loader, metrics, scheduler,
               early_stopping, restore_best, checkpoint, resume, progress, callbacks)
    try:
        for _ in run.epochs():
            model.train()
            for inputs, targets in run.batches():   # a batch, as tensors
                outputs = model(inputs)             # forward
                loss = loss_fn(outputs, targets)    # how wrong?
                run.record(loss, outputs, targets)
                optimizer.zero_grad()
                loss.backward()                     # backward: a gradient for each parameter
                optimizer.step()                    # update
            run.end_epoch()
    except KeyboardInterrupt:
        run.interrupt()
    finally:
        run.close()
    return run.finish()
# fmt: on


def evaluate(
    model: Any, loader: Any, *, loss_fn: Callable, metrics: Any = None
) -> dict[str, float]:
    """Return {"loss": …, and each metric} of `model` over one pass of `loader`, in eval mode.

    The loss is the mean over samples; a metric is computed once, on the outputs and targets of
    the whole pass. No gradient is recorded, and every module's mode is put back.

    Raises ValueError for an empty loader.
    """
    engine = _engine(model)
    metrics = _checked_metrics(metrics)
    total = _Totals(metrics)
    with _eval_mode(model), engine.no_grad():
        for inputs, targets in _tensors(loader, "loader", engine):
            outputs = model(inputs)
            total.add(_loss_value(loss_fn(outputs, targets)), outputs, targets)
    return total.means("loader")


def predict(model: Any, x: Any, batch_size: int = 256) -> np.ndarray:
    """Return the outputs of `model` for the samples `x`, as one array, in eval mode.

    `x` is an array (or tensor) of shape (n, …); the result has n rows. No gradient is recorded.

    Raises ValueError when `x` has no samples or `batch_size` is below 1.
    """
    _check_count("batch_size", batch_size, least=1)
    engine = _engine(model)
    x = _array(x)
    if x.ndim == 0 or not len(x):
        raise ValueError(f"x must hold at least one sample, got shape {x.shape}")
    with _eval_mode(model), engine.no_grad():
        parts = [
            np.array(_array(model(engine.tensor(x[start : start + batch_size], "x"))))
            for start in range(0, len(x), batch_size)
        ]
    return np.concatenate(parts)


class History(dict):
    """What `fit` measured: a dictionary of lists with one number per epoch.

    Keys: "train_loss", then "train_" + each metric (both measured batch by batch, while the
    weights were still changing), "val_loss" and "val_" + each metric where there is a
    `val_loader` (measured at the end of the epoch), and "seconds".

    `best_epoch` counts from 1 and is None where nothing was monitored; `stopped_early` and
    `interrupted` say why there are fewer epochs than asked for.
    """

    def __init__(self, columns: Any = (), monitor: str | None = None, mode: str = "min"):
        super().__init__({name: [] for name in columns})
        self.monitor = monitor
        self.mode = mode
        self.stopped_early = False
        self.interrupted = False

    def __missing__(self, name: Any):
        raise KeyError(f"{name!r} was not measured; there are {', '.join(self)}")

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return min((len(values) for values in self.values()), default=0)

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, with the best monitored value (the first of equals)."""
        if self.monitor is None:
            return None
        values = np.array(self[self.monitor], dtype=np.float64)
        if not len(values) or np.isnan(values).all():
            return None
        best = np.nanargmin(values) if self.mode == "min" else np.nanargmax(values)
        return int(best) + 1

    def to_frame(self):
        """Return a pandas.DataFrame with one row per epoch, indexed from 1."""
        import pandas as pd

        index = pd.RangeIndex(1, self.epochs + 1, name="epoch")
        return pd.DataFrame(dict(self), index=index)

    def __repr__(self) -> str:
        count = f"{self.epochs} epoch" + ("" if self.epochs == 1 else "s")
        return f"History({count}: {', '.join(self)})"


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    `mode` is "min" for a loss and "max" for a score such as "val_accuracy".
    """

    monitor: str = "val_loss"
    patience: int = 5
    min_delta: float | int = 0.0
    mode: str = "min"

    def __post_init__(self):
        _check_count("patience", self.patience, least=1)
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta must be 0 or more, got {self.min_delta}")

    def epochs_waited(self, values: list[float]) -> int:
        """Return how many epochs have passed since the last improvement in `values`."""
        sign = 1 if self.mode == "min" else -1
        best, waited = math.inf, 0
        for value in values:
            if sign * value < best - self.min_delta:
                best, waited = sign * value, 0
            else:
                waited += 1
        return waited


class LossNotFinite(FloatingPointError):
    """A loss became NaN or infinite. `.history`, `.epoch` and `.batch` say how far it came."""

    def __init__(self, message: str, history: History, epoch: int, batch: int):
        super().__init__(message)
        self.history, self.epoch, self.batch = history, epoch, batch


# ---------------------------------------------------------------------------------------------
# One run: what happens around the loop
# ---------------------------------------------------------------------------------------------


class _Run:
    """The state of one call of `fit`; prepared, and every argument checked, before training."""

    def __init__(
        self, model, train_loader, loss_fn, optimizer, epochs, val_loader, metrics, scheduler,
        early_stopping, restore_best, checkpoint, resume, progress, callbacks,
    ):  # fmt: skip
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.train_loader, self.val_loader = train_loader, val_loader
        self.loss_fn, self.metrics = loss_fn, _checked_metrics(metrics)
        self.early_stopping, self.restore_best = early_stopping, restore_best
        self.callbacks, self.target = tuple(callbacks), epochs
        self.engine = _engine(model)
        self._check_arguments()
        self.modes = _modes(model)

        parts = ["train"] if val_loader is None else ["train", "val"]
        columns = [f"{part}_{name}" for part in parts for name in ("loss", *self.metrics)]
        monitor, mode = ("val_loss", "min") if val_loader is not None else (None, "min")
        if early_stopping is not None:
            monitor, mode = early_stopping.monitor, early_stopping.mode
            if monitor not in columns:
                raise ValueError(
                    f"early_stopping monitors {monitor!r}, but only {', '.join(columns)} are "
                    "measured" + ("" if val_loader is not None else " (there is no val_loader)")
                )
        self.history = History([*columns, "seconds"], monitor, mode)
        self.best = None  # {"epoch": …, "weights": …} once there is one
        self.bar = None
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        if self.checkpoint is not None:
            if resume and self.checkpoint.exists():
                self._load()
            else:
                self._save()  # so that a run killed in its first epoch resumes, too
        if _progress_wanted(progress):
            self.bar = _progress_bar(epochs, self.history.epochs, train_loader)

    def _check_arguments(self) -> None:
        _check_count("epochs", self.target, least=0)
        for name in ("loss_fn", *(f"callbacks[{i}]" for i in range(len(self.callbacks)))):
            value = self.loss_fn if name == "loss_fn" else self.callbacks[int(name[10:-1])]
            if not callable(value):
                raise TypeError(f"{name} must be callable, got {type(value).__name__}")
        if self.early_stopping is not None and not isinstance(self.early_stopping, EarlyStopping):
            raise TypeError(
                f"early_stopping must be an EarlyStopping, got {type(self.early_stopping).__name__}"
            )
        for name in ("step", "zero_grad", "state_dict", "load_state_dict"):
            if not hasattr(self.optimizer, name):
                raise TypeError(f"optimizer must have {name}(), got {self.optimizer!r}")
        own = {id(parameter) for parameter in self.model.parameters()}
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not own & held:
            raise ValueError(
                "optimizer holds none of the model's parameters: it was made for another model, "
                "or the model was replaced after it was made"
            )
        for name, loader in (("train_loader", self.train_loader), ("val_loader", self.val_loader)):
            if loader is not None:
                _check_loader(name, loader)

    def epochs(self) -> Iterator[int]:
        """Count the epochs, from 1, until there are enough or the model no longer improves."""
        while self.history.epochs < self.target and not self._exhausted():
            self.epoch = self.history.epochs + 1
            self.started = time.perf_counter()
            self.totals = _Totals(self.metrics)
            yield self.epoch
        self.history.stopped_early = self._exhausted() and self.history.epochs < self.target

    def _exhausted(self) -> bool:
        rule = self.early_stopping
        if rule is None:
            return False
        return rule.epochs_waited(self.history[rule.monitor]) >= rule.patience

    def batches(self) -> Iterator[tuple]:
        """Yield the (inputs, targets) of one pass as tensors of the model's engine."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {self.epoch}/{self.target}", refresh=False)
        for batch, pair in enumerate(_tensors(self.train_loader, "train_loader", self.engine), 1):
            self.batch = batch
            yield pair
            if self.bar is not None:
                self.bar.update()

    def record(self, loss: Any, outputs: Any, targets: Any) -> None:
        """Add a batch to the epoch's means; raise when its loss is not a finite number."""
        value = _loss_value(loss)
        self._check_finite(value, f"batch {self.batch}", self.batch)
        self.totals.add(value, outputs, targets)

    def _check_finite(self, value: float, where: str, batch: int) -> None:
        if not math.isfinite(value):
            raise LossNotFinite(
                f"the loss is {value} in epoch {self.epoch}, {where}. Usual causes: the learning "
                "rate is too large (try a tenth of it); inputs that are not scaled, or that hold "
                "NaN; log(0) or exp of a large number in the loss (use the loss of the logits)",
                self.history,
                self.epoch,
                batch,
            )

    def end_epoch(self) -> None:
        """Measure, remember the best weights, step the schedule, call back, save."""
        row = {f"train_{k}": v for k, v in self.totals.means("train_loader").items()}
        if self.val_loader is not None:
            measured = evaluate(
                self.model, self.val_loader, loss_fn=self.loss_fn, metrics=self.metrics
            )
            self._check_finite(measured["loss"], "on val_loader", self.batch)
            row |= {f"val_{k}": v for k, v in measured.items()}
        row["seconds"] = time.perf_counter() - self.started
        for name, value in row.items():
            self.history[name].append(value)
        if self.history.best_epoch == self.epoch and self.restore_best:
            self.best = {"epoch": self.epoch, "weights": _weights(self.model)}
        if self.scheduler is not None:
            _step(self.scheduler, row.get("val_loss", row["train_loss"]))
        for callback in self.callbacks:
            callback(self.epoch, self.model, self.history)
        if self.checkpoint is not None:
            self._save()
        if self.bar is not None:
            shown = {k: f"{v:.4g}" for k, v in row.items() if k.endswith("_loss")}
            self.bar.set_postfix(shown, refresh=False)

    def interrupt(self) -> None:
        """Drop what was measured of an unfinished epoch, and say that training was interrupted."""
        finished = self.history.epochs
        for values in self.history.values():
            del values[finished:]
        self.history.interrupted = True
        print(f"training interrupted after {finished} finished epochs", file=sys.stderr)

    def close(self) -> None:
        """Take the progress bar down and put the modules' modes back."""
        if self.bar is not None:
            self.bar.close()
        _set_modes(self.modes)

    def finish(self) -> History:
        """Put the best weights back and return the history."""
        if self.restore_best and self.best is not None:
            self.model.load_state_dict(self.best["weights"])
        return self.history

    def _save(self) -> None:
        """Write everything that the next epoch depends on."""
        _write_checkpoint(
            self.checkpoint,
            {
                "identity": self._identity(),
                "model": _weights(self.model),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "history": dict(self.history),
                "best": self.best,
                "generators": _generator_states(self.train_loader, self.val_loader),
            },
        )

    def _load(self) -> None:
        """Take up a run where its checkpoint left it, after checking that it is this run."""
        state = _read_checkpoint(self.checkpoint)
        path = self.checkpoint
        advice = "give another file, or start anew with resume=False"
        _check_same_model(path, state["model"], self.model, advice)
        for what, now in self._identity().items():
            then = state["identity"][what]
            if then != now:
                raise ValueError(
                    f"checkpoint {path} belongs to another run: its {what} is {then}, this run's "
                    f"is {now}; {advice}"
                )
        done = len(state["history"]["seconds"])
        if done > self.target:
            raise ValueError(
                f"epochs={self.target}, but checkpoint {path} has already run {done}: ask for "
                f"{done} or more, {advice}"
            )
        self.optimizer.load_state_dict(state["optimizer"])  # first: it may refuse
        self.model.load_state_dict(state["model"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for name in self.history:
            self.history[name].extend(state["history"][name])
        self.best = state["best"]
        _set_generator_states(state["generators"], self.train_loader, self.val_loader)

    def _identity(self) -> dict:
        """Return what must not change between a run and its resumption."""
        return {
            "engine": self.engine.name,
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "measured columns": list(self.history),
            "monitored column": [self.history.monitor, self.history.mode],
            "restore_best": bool(self.restore_best),
            "number of batches in train_loader": _length(self.train_loader),
        }


class _Totals:
    """Sums over the batches of one pass, from which the pass's means are made."""

    def __init__(self, metrics: Mapping[str, Callable]):
        self.metrics = metrics
        self.loss, self.samples = 0.0, 0
        self.outputs, self.targets = [], []

    def add(self, loss: float, outputs: Any, targets: Any) -> None:
        count = len(targets) if len(targets.shape) else 1
        self.loss += loss * count
        self.samples += count
        if self.metrics:
            self.outputs.append(np.array(_array(outputs)))
            self.targets.append(np.array(_array(targets)))

    def means(self, loader: str) -> dict[str, float]:
        """Return the mean loss per sample, and each metric of all outputs and targets."""
        if not self.samples:
            raise ValueError(f"{loader} gave no samples")
        measured = {"loss": self.loss / self.samples}
        if self.metrics:
            outputs, targets = np.concatenate(self.outputs), np.concatenate(self.targets)
            for name, metric in self.metrics.items():
                value = np.asarray(metric(outputs, targets))
                if value.size != 1:
                    raise ValueError(
                        f"metric {name!r} must give one number, got shape {value.shape}"
                    )
                measured[name] = float(value.item())
        return measured


# ---------------------------------------------------------------------------------------------
# Two engines
# ---------------------------------------------------------------------------------------------


class _NumPyEngine:
    """`dlnotes.nn`: batches become `dlnotes.autograd.Tensor`."""

    name = "dlnotes.nn"

    def __init__(self, parameter: Any):
        self.dtype = parameter.dtype

    def tensor(self, value: Any, name: str) -> Any:
        from dlnotes.autograd import Tensor

        return Tensor(_batch_array(value, self.dtype, name))

    def no_grad(self):
        from dlnotes.autograd import no_grad

        return no_grad()


class _TorchEngine:
    """`torch.nn`: batches become torch tensors on the model's device."""

    name = "torch.nn"

    def __init__(self, parameter: Any):
        import torch

        self.torch = torch
        self.dtype, self.device = parameter.dtype, parameter.device

    def tensor(self, value: Any, name: str) -> Any:
        if not isinstance(value, self.torch.Tensor):
            value = self.torch.from_numpy(np.array(_batch_array(value, None, name)))
        if value.is_floating_point():
            value = value.to(self.dtype)
        return value.to(self.device)

    def no_grad(self):
        return self.torch.no_grad()


def _engine(model: Any) -> _NumPyEngine | _TorchEngine:
    """Return the engine to which the model's parameters belong."""
    for name in ("parameters", "state_dict", "load_state_dict", "train", "modules"):
        if not hasattr(model, name):
            raise TypeError(
                f"model must be a dlnotes.nn or torch.nn Module, got {type(model).__name__}"
            )
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise ValueError("model must have at least one parameter, got none")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(parameter, torch.Tensor):
        return _TorchEngine(parameter)
    return _NumPyEngine(parameter)


def _batch_array(value: Any, dtype: Any, name: str) -> np.ndarray:
    """Return a batch as an array; floating values in `dtype`, so that float64 data may be fed."""
    array = _array(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}")
    if dtype is not None and array.dtype.kind == "f":
        array = array.astype(dtype, copy=False)
    return array


def _tensors(loader: Any, name: str, engine: Any) -> Iterator[tuple]:
    """Yield each batch of `loader` as two tensors."""
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            got = f"{len(batch)} items" if isinstance(batch, tuple | list) else type(batch).__name__
            raise ValueError(f"{name} must give (inputs, targets) pairs, got {got}")
        inputs, targets = batch
        if str(inputs.dtype).endswith("uint8"):
            raise TypeError(
                f"{name} gives uint8 inputs: convert images with data.images_to_float(x) first"
            )
        if np.issubdtype(_array(targets).dtype, np.integer):
            targets = _array(targets).astype(np.int64)  # torch takes no smaller labels
        inputs = engine.tensor(inputs, f"inputs of {name}")
        yield inputs, engine.tensor(targets, f"targets of {name}")


def _loss_value(loss: Any) -> float:
    """Return the loss as a number; a loss of another shape cannot be differentiated."""
    shape = tuple(getattr(loss, "shape", ()))
    if math.prod(shape) != 1 or not hasattr(loss, "item"):
        got = f"shape {shape}" if shape else type(loss).__name__
        raise ValueError(f"loss_fn must return one number, a tensor, got {got} (reduction='mean'?)")
    return float(loss.item())


def _array(value: Any) -> np.ndarray:
    """Return a tensor of either engine, or an array, as an array that may share memory."""
    if hasattr(value, "detach"):
        value = value.detach()
        value = value.cpu() if hasattr(value, "cpu") else value
        if str(value.dtype) == "torch.bfloat16":  # NumPy has none
            value = value.float()
        value = value.numpy()
    return np.asarray(value)


def _weights(model: Any) -> dict[str, Any]:
    """Return a copy of the model's state_dict."""
    return {
        name: value.detach().clone() if hasattr(value, "clone") else np.array(value)
        for name, value in model.state_dict().items()
    }


def _modes(model: Any) -> list[tuple]:
    return [(module, module.training) for module in model.modules()]


def _set_modes(modes: list[tuple]) -> None:
    for module, training in modes:
        module.training = training


@contextlib.contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Switch a model to evaluation and put every module's own mode back afterwards."""
    modes = _modes(model)
    model.eval()
    try:
        yield
    finally:
        _set_modes(modes)


def _step(scheduler: Any, loss: float) -> None:
    """Step a schedule; torch's ReduceLROnPlateau wants the loss."""
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        scheduler.step(loss)
    else:
        scheduler.step()


# ---------------------------------------------------------------------------------------------
# Checkpoints: one .npz of arrays and one JSON text, no pickle
# ---------------------------------------------------------------------------------------------

_FORMAT = "dlnotes checkpoint 1"
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,  # also broken JSON and UTF-8, and arrays that would need pickle
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    NotImplementedError,  # a damaged header may ask for a zip feature that Python lacks
    RuntimeError,  # or say that the file is encrypted
    SyntaxError,  # or break the header of an array
    OverflowError,
    MemoryError,  # or promise an impossible size
)


def _write_checkpoint(path: Path, state: dict) -> None:
    """Write `state` so that `path` holds the old or the new checkpoint at every moment."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps({"format": _FORMAT, "state": _pack(state, "", arrays)})
    arrays["json"] = np.frombuffer(text.encode(), dtype=np.uint8)
    # Always the same name, so that what a killed run left behind is written over.
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"checkpoint {path} cannot be written ({error.strerror}): choose a file in a folder "
            "that exists, may be written to and has room",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the renaming last through a power cut; Windows neither needs nor allows it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_checkpoint(path: Path) -> dict:
    """Read what `_write_checkpoint` wrote; a damaged or foreign file is a ValueError."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            document = json.loads(arrays["json"].tobytes())
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r} is not {_FORMAT!r}")
            return _unpack(document["state"], arrays)
    except _UNREADABLE as error:
        raise ValueError(
            f"checkpoint {path} cannot be read: it is damaged, or no checkpoint of this version. "
            "Remove it, give another file, or start anew with resume=False"
        ) from error


def _pack(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return `value` as JSON, with its arrays and tensors put aside under their paths."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        items = [
            [_pack(k, path, arrays), _pack(v, f"{path}/{k}", arrays)] for k, v in value.items()
        ]
        return {"dict": items}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    kind, dtype = "array", None
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        kind, dtype = "tensor", str(value.dtype).removeprefix("torch.")
        value = value.detach().cpu().contiguous()
        shape = list(value.shape)
        # As bytes: NumPy has no bfloat16.
        value = value.reshape(-1).view(sys.modules["torch"].uint8).numpy()
    elif hasattr(value, "detach"):
        value = _array(value)
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.hasobject:
        raise TypeError(
            f"a checkpoint holds numbers, texts, arrays and containers of them, but "
            f"{path.strip('/')} is a {type(value).__name__}"
        )
    key = f"{len(arrays)}{path}"
    arrays[key] = np.asarray(value)
    if kind == "tensor":
        return {"tensor": key, "dtype": dtype, "shape": shape}
    return {"scalar" if isinstance(value, np.generic) else "array": key}


def _unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Undo `_pack`."""
    if not isinstance(packed, dict):
        return packed
    if "dict" in packed:
        return {_unpack(k, arrays): _unpack(v, arrays) for k, v in packed["dict"]}
    if "tuple" in packed:
        # Numbers pass straight through: a generator's state may hold hundreds.
        return tuple(_unpack(v, arrays) if isinstance(v, dict) else v for v in packed["tuple"])
    if "list" in packed:
        return [_unpack(v, arrays) for v in packed["list"]]
    if "tensor" in packed:
        import torch

        flat = torch.from_numpy(np.array(arrays[packed["tensor"]]))
        return flat.view(getattr(torch, packed["dtype"])).reshape(packed["shape"])
    if "scalar" in packed:
        return arrays[packed["scalar"]][()]
    return np.array(arrays[packed["array"]])


def _check_same_model(path: Path, stored: dict, model: Any, advice: str) -> None:
    """Raise when the stored weights do not fit the model, naming the first that does not."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    kept = {name: tuple(value.shape) for name, value in stored.items()}
    faults = [f"it lacks {name!r}" for name in own if name not in kept]
    faults += [f"it has {name!r}, which this model lacks" for name in kept if name not in own]
    faults += [
        f"{name!r} has shape {kept[name]} there and {shape} here"
        for name, shape in own.items()
        if name in kept and kept[name] != shape
    ]
    if faults:
        raise ValueError(f"checkpoint {path} belongs to another model: {faults[0]}; {advice}")


def _generator_states(*loaders: Any) -> dict:
    """Return the state of every random generator that the next epoch may draw from."""
    state = {
        "dlnotes": copy.deepcopy(dlnotes.random.get_state()),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 (other libraries draw from it)
        "python": random.getstate(),
        "loaders": [_state_of(getattr(loader, "generator", None)) for loader in loaders],
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_generator_states(state: dict, *loaders: Any) -> None:
    """Restore what `_generator_states` returned."""
    dlnotes.random.set_state(state["dlnotes"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
    for loader, own in zip(loaders, state["loaders"], strict=True):
        generator = getattr(loader, "generator", None)
        if own is None or generator is None:
            continue
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = own
        else:
            generator.set_state(own)
    torch = sys.modules.get("torch")
    if torch is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])


def _state_of(generator: Any) -> Any:
    """Return the state of a loader's own generator, NumPy's or torch's; None without one."""
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state() if hasattr(generator, "get_state") else None


# ---------------------------------------------------------------------------------------------
# Arguments and progress
# ---------------------------------------------------------------------------------------------


def _check_count(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, got {value}")


def _check_loader(name: str, loader: Any) -> None:
    if not hasattr(loader, "__iter__") or isinstance(loader, str | bytes | Mapping):
        raise TypeError(f"{name} must give batches when iterated, got {type(loader).__name__}")
    if hasattr(loader, "__next__"):
        raise TypeError(
            f"{name} must start anew at each epoch, as a DataLoader or a list of batches does; "
            f"a {type(loader).__name__} is empty after the first"
        )
    if _length(loader) == 0:
        raise ValueError(f"{name} must give at least one batch, got none")


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # torch's loader of an IterableDataset, or a class without a length
        return None


def _checked_metrics(metrics: Any) -> dict[str, Callable]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must map names to functions, got {type(metrics).__name__}")
    for name, metric in metrics.items():
        if not isinstance(name, str) or name == "loss":
            raise ValueError(f"metrics must have names other than 'loss', got {name!r}")
        if not callable(metric):
            raise TypeError(f"metrics[{name!r}] must be callable, got {type(metric).__name__}")
    return dict(metrics)


def _progress_wanted(progress: Any) -> bool:
    """A bar is shown to a person only: on a terminal or in a notebook, unless switched off."""
    if not progress or os.environ.get("DLNOTES_PROGRESS") == "0":
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _progress_bar(epochs: int, done: int, loader: Any):
    from tqdm import tqdm

    batches = _length(loader)
    total = None if batches is None else epochs * batches
    initial = 0 if batches is None else done * batches
    return tqdm(total=total, initial=initial, file=sys.stderr, unit="batch")
