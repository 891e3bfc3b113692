"""One loop for both engines: equal results, early stopping, checkpoints that survive a kill."""

import contextlib
import inspect
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import metrics, nn, optim, train
from dlnotes.data import DataLoader, TensorDataset

ENGINES = ("dlnotes", "torch")


def samples(count=61, seed=0):
    r = np.random.default_rng(seed)
    x = r.normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def network(engine, hidden=9):
    """Return (model, optimiser, loss) with the same weights for both engines."""
    dlnotes.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))
    if engine == "dlnotes":
        optimizer = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        return model, optimizer, nn.CrossEntropyLoss()
    weights = nn.to_torch(model.state_dict())
    model = torch.nn.Sequential(
        torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2)
    )
    model.load_state_dict(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return model, optimizer, torch.nn.CrossEntropyLoss()


def loaders(count=61, batch_size=8, generator=None):
    x, y = samples(count)
    third = count // 3
    return (
        DataLoader(
            TensorDataset(x[third:], y[third:]), batch_size, shuffle=True, generator=generator
        ),
        DataLoader(TensorDataset(x[:third], y[:third]), batch_size),
    )


def run(engine, *, epochs=6, with_validation=True, parts=None, loader=None, **options):
    model, optimizer, loss = parts or network(engine)
    train_loader, val_loader = loaders()
    history = train.fit(
        model,
        loader or train_loader,
        loss_fn=loss,
        optimizer=optimizer,
        epochs=epochs,
        val_loader=val_loader if with_validation else None,
        progress=False,
        **options,
    )
    return model, history


def weights(model):
    values = model.state_dict().items()
    return {k: v.numpy().copy() if isinstance(v, torch.Tensor) else v for k, v in values}


def assert_same_weights(one, two):
    assert list(one) == list(two)
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


def without_seconds(history):
    return {name: values for name, values in history.items() if name != "seconds"}


# ---- the loop --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_equals_a_loop_written_out(engine):
    model, history = run(engine, epochs=3, with_validation=False)
    written, optimizer, loss_fn = network(engine)
    loader, _ = loaders()
    tensor = torch.from_numpy if engine == "torch" else dlnotes.autograd.Tensor
    means = []
    for _ in range(3):
        total = 0.0
        for x, y in loader:
            loss = loss_fn(written(tensor(x)), tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        means.append(total / len(loader.dataset))
    assert_same_weights(weights(model), weights(written))
    assert history["train_loss"] == means
    assert set(history) == {"train_loss", "seconds"}


def test_both_engines_see_the_same_batches_and_learn_the_same():
    seen = {}
    for engine in ENGINES:
        batches = []

        def metric(outputs, targets, batches=batches):
            batches.append(targets.copy())
            return metrics.accuracy(outputs, targets)

        model, history = run(engine, metrics={"accuracy": metric})
        seen[engine] = batches, weights(model), history
    for a, b in zip(seen["dlnotes"][0], seen["torch"][0], strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in seen["dlnotes"][1].items():
        np.testing.assert_allclose(value, seen["torch"][1][name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        seen["dlnotes"][2]["val_loss"], seen["torch"][2]["val_loss"], rtol=1e-5
    )
    assert seen["dlnotes"][2]["val_accuracy"] == seen["torch"][2]["val_accuracy"]


def test_torch_loader_and_float64_batches():
    x, y = samples(20)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x).double(), torch.from_numpy(y))
    for engine in ENGINES:
        loader = torch.utils.data.DataLoader(dataset, batch_size=7)
        _, history = run(engine, epochs=2, loader=loader)
        assert history.epochs == 2


def test_last_short_batch_counts_by_its_samples():
    model, _, loss = network("dlnotes")
    x, y = samples(11)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    whole = DataLoader(TensorDataset(x, y), batch_size=11)
    by_batches = train.evaluate(model, loader, loss_fn=loss)
    at_once = train.evaluate(model, whole, loss_fn=loss)
    assert by_batches["loss"] == pytest.approx(at_once["loss"], rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_metrics_are_computed_on_the_whole_pass(engine):
    model, _, loss = network(engine)
    _, val_loader = loaders()
    shapes = []

    def spread(outputs, targets):
        assert type(outputs) is np.ndarray
        assert type(targets) is np.ndarray
        shapes.append((outputs.shape, targets.shape))
        return np.float32(outputs.max() - outputs.min())

    result = train.evaluate(model, val_loader, loss_fn=loss, metrics={"spread": spread})
    assert shapes == [((20, 2), (20,))]
    assert type(result["spread"]) is float


@pytest.mark.parametrize("engine", ENGINES)
def test_predict_and_evaluate_leave_modes_and_gradients_alone(engine):
    model, _, loss = network(engine)
    model.train()
    next(iter(model.children())).eval()
    before = [module.training for module in model.modules()]
    x, y = samples(13)
    outputs = train.predict(model, x.astype(np.float64), batch_size=4)
    assert outputs.shape == (13, 2)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, train.predict(model, x, batch_size=4))
    train.evaluate(model, [(x, y)], loss_fn=loss)
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_allclose(train.predict(model, x[:1], 1), outputs[:1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"x must hold at least one sample, got shape \(0, 4\)"):
        train.predict(model, x[:0])


def test_fit_puts_the_modes_back():
    parts = network("torch")
    parts[0].eval()
    run("torch", epochs=1, parts=parts)
    assert not parts[0].training


def test_callbacks_and_scheduler_each_epoch():
    parts = network("torch")
    scheduler = torch.optim.lr_scheduler.StepLR(parts[1], step_size=2, gamma=0.1)
    seen = []

    def callback(epoch, model, history):
        assert model is parts[0]
        seen.append((epoch, history.epochs, len(history["val_loss"])))

    run("torch", epochs=4, parts=parts, scheduler=scheduler, callbacks=[callback])
    assert seen == [(i, i, i) for i in range(1, 5)]
    assert parts[1].param_groups[0]["lr"] == pytest.approx(0.002)


def test_plateau_scheduler_gets_the_loss():
    parts = network("torch")
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(parts[1], patience=0, threshold=1e9)
    run("torch", epochs=4, parts=parts, scheduler=scheduler)
    assert parts[1].param_groups[0]["lr"] < 0.2


def test_source_fits_a_screen():
    source = inspect.getsource(train.fit)
    assert len(source.splitlines()) <= 52
    for step in ("model(inputs)", "loss_fn(outputs", "zero_grad", "backward()", "optimizer.step()"):
        assert step in source


# ---- history, early stopping, best weights ---------------------------------------------------


class Scripted:
    """A metric whose values per epoch are given: it is called once for train, once for val."""

    def __init__(self, values):
        self.values, self.calls = values, 0

    def __call__(self, outputs, targets):
        value = self.values[self.calls // 2]
        self.calls += 1
        return value


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("mode", "values"), [("max", [1, 3, 2, 3, 0, 9]), ("min", [9, 3, 4, 3, 5, 0])]
)
def test_early_stopping_restores_the_best_epoch(engine, mode, values):
    kept = []
    rule = train.EarlyStopping("val_score", patience=3, mode=mode)
    model, history = run(
        engine,
        epochs=6,
        metrics={"score": Scripted(values)},
        early_stopping=rule,
        callbacks=[lambda epoch, model, history: kept.append(weights(model))],
    )
    assert history.epochs == 5  # epochs 3, 4 (a tie) and 5 bring nothing better
    assert history.stopped_early
    assert history.best_epoch == 2
    assert_same_weights(weights(model), kept[1])
    assert any(kept[1][name].tobytes() != kept[4][name].tobytes() for name in kept[1])


def test_restore_best_false_keeps_the_last():
    kept = []
    model, history = run(
        "dlnotes",
        epochs=4,
        metrics={"score": Scripted([5, 1, 1, 1])},
        early_stopping=train.EarlyStopping("val_score", patience=9, mode="max"),
        restore_best=False,
        callbacks=[lambda epoch, model, history: kept.append(weights(model))],
    )
    assert history.best_epoch == 1
    assert not history.stopped_early
    assert_same_weights(weights(model), kept[-1])


def test_min_delta_counts_small_steps_as_none():
    rule = train.EarlyStopping(patience=3, min_delta=0.1)
    assert rule.epochs_waited([1.0, 0.95, 0.92, 0.91]) == 3
    assert rule.epochs_waited([1.0, 0.95, 0.89, 0.85]) == 1
    assert train.EarlyStopping(patience=3).epochs_waited([1.0, float("nan"), 1.0]) == 2


def test_history_frame_and_messages():
    _, history = run("dlnotes", epochs=3, metrics={"accuracy": metrics.accuracy})
    frame = history.to_frame()
    assert list(frame.index) == [1, 2, 3]
    assert list(frame["val_loss"]) == history["val_loss"]
    assert repr(history) == (
        "History(3 epochs: train_loss, train_accuracy, val_loss, val_accuracy, seconds)"
    )
    with pytest.raises(KeyError, match="'accuracy' was not measured; there are train_loss"):
        history["accuracy"]
    assert run("dlnotes", epochs=0)[1].best_epoch is None


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_not_finite_names_epoch_batch_and_causes(engine):
    parts = network(engine)
    before = {}

    def loss_fn(outputs, targets, calls=[]):  # noqa: B006 (counts its calls)
        calls.append(1)
        loss = parts[2](outputs, targets)
        if len(calls) == 9:
            before.update(weights(parts[0]))
            return loss * float("inf")
        return loss

    model, optimizer, _ = parts
    with pytest.raises(train.LossNotFinite, match=r"loss is inf in epoch 2, batch 3") as caught:
        run(engine, parts=(model, optimizer, loss_fn), with_validation=False)
    assert "learning rate is too large" in str(caught.value)
    assert (caught.value.epoch, caught.value.batch) == (2, 3)
    assert caught.value.history.epochs == 1
    assert_same_weights(weights(model), before)  # the update was not made


def test_nan_on_the_validation_set():
    model, optimizer, loss = network("torch")
    train_loader, _ = loaders()
    x, y = samples(5)
    x[2, 1] = np.nan
    with pytest.raises(train.LossNotFinite, match="epoch 1, on val_loader"):
        train.fit(
            model,
            train_loader,
            loss_fn=loss,
            optimizer=optimizer,
            epochs=2,
            val_loader=[(x, y)],
            progress=False,
        )


class Interrupting:
    """A loader of the usual batches that presses Ctrl-C at a given batch."""

    def __init__(self, at):
        self.loader, self.at, self.count = loaders()[0], at, 0

    def __iter__(self):
        for batch in self.loader:
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt
            yield batch

    def __len__(self):
        return len(self.loader)


def test_interrupt_keeps_history_best_weights_and_checkpoint(tmp_path, capsys):
    path = tmp_path / "run.npz"
    kept = []
    model, history = run(
        "dlnotes",
        loader=Interrupting(at=3 * 6 + 2),
        checkpoint=path,
        metrics={"score": Scripted([1, 9, 2, 1, 1, 1])},
        early_stopping=train.EarlyStopping("val_score", patience=9, mode="max"),
        callbacks=[lambda epoch, model, history: kept.append(weights(model))],
    )
    assert history.interrupted
    assert history.epochs == 3
    assert_same_weights(weights(model), kept[1])
    assert "interrupted after 3 finished epochs" in capsys.readouterr().err
    options = {
        "metrics": {"score": Scripted([1, 1, 1])},
        "early_stopping": train.EarlyStopping("val_score", patience=9, mode="max"),
    }
    _, resumed = run("dlnotes", checkpoint=path, **options)
    assert resumed.epochs == 6
    assert not resumed.interrupted
    whole = run("dlnotes", **options | {"metrics": {"score": Scripted([1, 9, 2, 1, 1, 1])}})[1]
    assert without_seconds(resumed) == without_seconds(whole)


def test_interrupt_between_two_columns_leaves_equal_lengths():
    history = train.History(["train_loss", "seconds"])
    history["train_loss"].append(1.0)
    fake = type("Fake", (), {"history": history})()
    train._Run.interrupt(fake)
    assert history == {"train_loss": [], "seconds": []}


def refused(error, match, **options):
    parts = options.pop("parts", None) or network("dlnotes")
    arguments = {
        "train_loader": loaders()[0],
        "loss_fn": parts[2],
        "optimizer": parts[1],
        "epochs": 1,
        "progress": False,
    } | options
    before = weights(parts[0]) if hasattr(parts[0], "state_dict") else None
    with pytest.raises(error, match=match):
        train.fit(parts[0], **arguments)
    if before is not None:
        assert_same_weights(weights(parts[0]), before)


def test_arguments_are_refused_before_training():
    refused(TypeError, "epochs must be an int, got float", epochs=1.0)
    refused(ValueError, "epochs must be 0 or more, got -1", epochs=-1)
    refused(TypeError, "loss_fn must be callable", loss_fn="mse")
    refused(TypeError, "optimizer must have step", optimizer=0.1)
    other = network("dlnotes")[1]
    refused(ValueError, "holds none of the model's parameters", optimizer=other)
    refused(TypeError, "early_stopping must be an EarlyStopping, got int", early_stopping=3)
    refused(ValueError, "there is no val_loader", early_stopping=train.EarlyStopping())
    refused(TypeError, "empty after the first", train_loader=iter([1]))
    refused(ValueError, "train_loader must give at least one batch", train_loader=[])
    refused(TypeError, "train_loader must give batches", train_loader=3)
    refused(TypeError, "metrics must map names", metrics=[metrics.accuracy])
    refused(ValueError, "other than 'loss'", metrics={"loss": metrics.accuracy})
    refused(TypeError, r"metrics\['f'\] must be callable", metrics={"f": 3})
    refused(TypeError, r"callbacks\[0\] must be callable", callbacks=[3])
    refused(TypeError, "model must be a dlnotes.nn or torch.nn Module", parts=(abs, None, abs))
    empty = nn.Sequential(nn.Tanh())
    refused(ValueError, "at least one parameter", parts=(empty, None, abs))
    x, y = samples(4)
    refused(ValueError, "pairs, got 3 items", train_loader=[(x, y, y)])
    refused(ValueError, "pairs, got ndarray", train_loader=[x])
    refused(TypeError, "convert images", train_loader=[(x.astype(np.uint8), y)])
    refused(TypeError, "must hold numbers", train_loader=[(x.astype(str), y)])
    whole = nn.CrossEntropyLoss(reduction="none")
    refused(
        ValueError, r"one number, a tensor, got shape \(4,\)", loss_fn=whole, train_loader=[(x, y)]
    )
    refused(ValueError, "got float", loss_fn=lambda o, t: 0.5, train_loader=[(x, y)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be 1 or more, got 0"),
        ({"mode": "most"}, "mode must be 'min' or 'max'"),
        ({"min_delta": -1.0}, "min_delta must be 0 or more"),
    ],
)
def test_early_stopping_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        train.EarlyStopping(**options)


# ---- progress --------------------------------------------------------------------------------


def test_progress_shows_on_a_terminal_only(capsys, monkeypatch):
    def shown():
        model, optimizer, loss = network("dlnotes")
        train.fit(model, loaders()[0], loss_fn=loss, optimizer=optimizer, epochs=2)
        out, err = capsys.readouterr()
        assert out == ""
        return err

    monkeypatch.delenv("DLNOTES_PROGRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert shown() == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "epoch 2/2" in shown()
    monkeypatch.setenv("DLNOTES_PROGRESS", "0")
    assert shown() == ""


# ---- checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("own_generator", [False, True])
def test_resume_gives_the_same_bits(engine, own_generator, tmp_path):
    def part(epochs, checkpoint):
        generator = np.random.default_rng(5) if own_generator else None
        loader = loaders(generator=generator)[0]
        return run(engine, epochs=epochs, checkpoint=checkpoint, loader=loader)

    model, history = part(9, None)
    path = tmp_path / "run.npz"
    for epochs in (2, 3, 7, 9, 9):  # the last finds the run finished
        resumed, resumed_history = part(epochs, path)
    assert_same_weights(weights(resumed), weights(model))
    assert without_seconds(resumed_history) == without_seconds(history)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz"]


def test_resume_of_torch_parts(tmp_path):
    """Adam's state, a schedule, dropout, batch norm's buffers, a torch loader, bfloat16."""
    x, y = samples(30)
    x[:, 0] += 2

    def part(epochs, checkpoint):
        dlnotes.manual_seed(0)
        layers = torch.nn
        model = layers.Sequential(
            layers.Linear(4, 6), layers.BatchNorm1d(6), layers.Dropout(0.4), layers.Linear(6, 2)
        )
        model.register_buffer("scale", torch.ones(3, dtype=torch.bfloat16))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
        dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        history = train.fit(
            model,
            torch.utils.data.DataLoader(dataset, batch_size=10, shuffle=True),
            loss_fn=layers.CrossEntropyLoss(),
            optimizer=optimizer,
            epochs=epochs,
            scheduler=scheduler,
            checkpoint=checkpoint,
            progress=False,
        )
        return {k: v.float().numpy() for k, v in model.state_dict().items()}, history

    whole, history = part(6, None)
    part(2, tmp_path / "c.npz")
    resumed, resumed_history = part(6, tmp_path / "c.npz")
    assert_same_weights(resumed, whole)
    assert resumed_history["train_loss"] == history["train_loss"]


def test_resume_false_starts_anew(tmp_path):
    path = tmp_path / "run.npz"
    run("dlnotes", epochs=3, checkpoint=path)
    _, history = run("dlnotes", epochs=2, checkpoint=path, resume=False)
    assert history.epochs == 2
    assert run("dlnotes", epochs=2, checkpoint=path)[1].epochs == 2


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    run("dlnotes", epochs=3, checkpoint=path)
    kept = path.read_bytes()

    def refuses(match, engine="dlnotes", hidden=9, **options):
        parts = network(engine, hidden)
        before = weights(parts[0])
        with pytest.raises(ValueError, match=match):
            run(engine, parts=parts, checkpoint=path, **options)
        assert_same_weights(weights(parts[0]), before)
        assert path.read_bytes() == kept

    refuses(r"another model: '0.weight' has shape \(9, 4\) there and \(5, 4\) here", hidden=5)
    refuses("its engine is dlnotes.nn, this run's is torch.nn", engine="torch")
    refuses("its measured columns is", metrics={"accuracy": metrics.accuracy})
    refuses("has already run 3: ask for 3 or more", epochs=2)
    refuses("number of batches in train_loader is 6, this run's is 1", loader=[samples(4)])
    refuses("its restore_best is True", restore_best=False)
    more = nn.Sequential(*network("dlnotes")[0].children(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"another model: it lacks '3.weight'"):
        run(
            "dlnotes",
            parts=(more, optim.SGD(more.parameters()), nn.CrossEntropyLoss()),
            checkpoint=path,
        )


def test_every_damaged_checkpoint_is_refused_or_read_right(tmp_path):
    path = tmp_path / "run.npz"
    model, _ = run("dlnotes", epochs=2, checkpoint=path)
    good, right = path.read_bytes(), train._read_checkpoint(path)
    r = np.random.default_rng(0)
    damaged = [b"", b"PK\x03\x04", b"not a checkpoint", good[:-1], good[: len(good) // 2]]
    for _ in range(60):
        one = bytearray(good)
        one[r.integers(len(one))] ^= 1 << int(r.integers(8))
        damaged.append(bytes(one))
    refused = read = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            state = train._read_checkpoint(path)
        except ValueError as error:
            refused += "cannot be read: it is damaged" in str(error)
        else:  # the bit had no meaning (a date in the zip, say)
            assert_same_weights(state["model"], right["model"])
            assert state["history"] == right["history"]
            read += 1
    assert refused + read == len(damaged)
    assert refused > 40
    np.savez(path, weights=np.ones(3))
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        run("dlnotes", checkpoint=path)
    assert weights(model)  # the model that wrote it is untouched


def test_checkpoint_holds_no_pickle(tmp_path):
    path = tmp_path / "run.npz"
    run("torch", epochs=1, checkpoint=path)
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiu" for name in arrays.files)
    with pytest.raises(TypeError, match="but a/b is a object"):
        train._write_checkpoint(path, {"a": {"b": object()}})
    assert train._read_checkpoint(path)["history"]["seconds"]


@pytest.mark.parametrize(
    "value",
    [
        {1: (2, [3.5, None, True]), "x": {}, (1, 2): "é"},
        {"big": 2**127 - 1, "nan": [float("inf"), -0.0, 1e-310]},
        [np.float32(0.1), np.int64(-3), np.zeros((0, 3)), np.array(1.5, dtype=np.float16)],
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        torch.zeros(()),
        torch.tensor([[True, False]]),
    ],
)
def test_packing_loses_nothing(value, tmp_path):
    train._write_checkpoint(tmp_path / "c.npz", {"v": value})
    back = train._read_checkpoint(tmp_path / "c.npz")["v"]

    def same(a, b):
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert list(a) == list(b)
            return all(same(a[k], b[k]) for k in a)
        if isinstance(a, tuple | list):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        if isinstance(a, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return repr(a) == repr(b)

    assert same(value, back)


def test_unwritable_folder_is_refused_before_training(tmp_path):
    calls = []

    def loss_fn(outputs, targets):
        calls.append(1)
        raise AssertionError("training began")

    def refuses(path):
        model, optimizer, _ = network("dlnotes")
        with pytest.raises(OSError, match=r"cannot be written .*: choose a file in a folder"):
            run("dlnotes", parts=(model, optimizer, loss_fn), checkpoint=path)
        assert not calls

    refuses(tmp_path / "missing" / "run.npz")
    (tmp_path / "file").write_text("")
    refuses(tmp_path / "file" / "run.npz")
    folder = tmp_path / "locked"
    folder.mkdir()
    if Path("/proc/self").is_dir():
        refuses("/proc/self/run.npz")  # read-only for every user, root included
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        folder.chmod(0o500)
        refuses(folder / "run.npz")
        folder.chmod(0o700)


def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    run("dlnotes", epochs=1, checkpoint=path)
    kept = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        run("dlnotes", epochs=3, checkpoint=path)
    assert path.read_bytes() == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz"]


# Runs in a process of its own: children are forked, killed at random, and started again until
# one of them finishes; what they leave must be what an uninterrupted run leaves.
KILLS = """
import os, random, signal, sys, threading, time
import numpy as np
import dlnotes
from dlnotes import nn, optim, train
from dlnotes.data import DataLoader, TensorDataset

folder, seed = sys.argv[1], int(sys.argv[2])
r = np.random.default_rng(0)
x = r.normal(size=(160, 4)).astype(np.float32)
y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)

def work(checkpoint, result, epochs=40):
    dlnotes.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    history = train.fit(
        model, DataLoader(TensorDataset(x[40:], y[40:]), 8, shuffle=True),
        loss_fn=nn.CrossEntropyLoss(), optimizer=optim.SGD(model.parameters(), 0.3, 0.9),
        epochs=epochs, val_loader=DataLoader(TensorDataset(x[:40], y[:40]), 40),
        early_stopping=train.EarlyStopping(patience=epochs), checkpoint=checkpoint, progress=False)
    last = train._read_checkpoint(checkpoint)
    np.savez(result, best=history.best_epoch, draw=dlnotes.random.generator().integers(2**60),
             train_loss=history["train_loss"], val_loss=history["val_loss"],
             **{"m" + k: v for k, v in model.state_dict().items()},
             **{"l" + k: v for k, v in last["model"].items()})

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying:  # a file that kills the process at a random byte of a random checkpoint
    def __init__(self, file, at):
        self.file, self.at = file, at
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()
    def write(self, data):
        data = bytes(data)
        if len(data) > self.at:
            self.file.write(data[:self.at]); self.file.flush(); die()
        self.at -= len(data)
        return self.file.write(data)

def kill_in_write():
    saves, at = chance.randrange(1, 9), chance.randrange(20_000)
    stage = chance.choice(["bytes", "fsync", "before replace", "after replace"])
    import builtins
    opened, replace, fsync = builtins.open, os.replace, os.fsync
    count = [0]
    def counted(name, mode="r", *rest, **more):
        file = opened(name, mode, *rest, **more)
        if mode == "wb":
            count[0] += 1
            if stage == "bytes" and count[0] == saves:
                return Dying(file, at)
        return file
    def dying_fsync(descriptor):
        if stage == "fsync" and count[0] == saves: die()
        fsync(descriptor)
    def dying_replace(a, b):
        if stage == "before replace" and count[0] == saves: die()
        replace(a, b)
        if stage == "after replace" and count[0] == saves: die()
    train.open, os.replace, os.fsync = counted, dying_replace, dying_fsync

work(folder + "/whole.npz", folder + "/expected.npz")
whole = dict(np.load(folder + "/expected.npz"))
killed, attempts, finished = {"in a write": 0, "at any time": 0}, 0, 0
while finished < 4 or min(killed.values()) < 10:
    checkpoint, result = folder + "/run.npz", folder + "/result.npz"
    attempts += 1
    chance = random.Random(f"{seed} {attempts}")  # drawn anew: a child's draws stay in the child
    way = chance.choice(list(killed))
    child = os.fork()
    if child == 0:
        if way == "in a write":
            kill_in_write()
        else:
            threading.Timer(chance.random() * 0.15, die).start()
        work(checkpoint, result)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed[way] += 1
        continue
    assert os.waitstatus_to_exitcode(status) == 0
    found = dict(np.load(result))
    assert found.keys() == whole.keys()
    for name in whole:
        assert found[name].tobytes() == whole[name].tobytes(), name
    os.remove(checkpoint); os.remove(result)
    finished += 1
left = sorted(os.listdir(folder))
leftovers = {"run.npz", "run.npz.tmp"}  # of a run that was killed last
assert {"expected.npz", "whole.npz"} <= set(left) <= {"expected.npz", "whole.npz"} | leftovers, left
print(sum(killed.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forking after NumPy is safe on Linux only")
@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_to_the_same_bits(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), "0"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20  # kills


ONCE = """
import sys
import numpy as np
import torch
import dlnotes
from dlnotes import train
from dlnotes.data import DataLoader, TensorDataset

dlnotes.manual_seed(1)
torch.set_num_threads(1)
r = np.random.default_rng(0)
x = r.normal(size=(60, 4)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
layers = torch.nn
model = layers.Sequential(layers.Linear(4, 8), layers.Dropout(0.2), layers.Linear(8, 2))
train.fit(
    model, DataLoader(TensorDataset(x, y), 8, shuffle=True), loss_fn=layers.CrossEntropyLoss(),
    optimizer=torch.optim.Adam(model.parameters()), epochs=30, checkpoint=sys.argv[1],
    progress=False, callbacks=[lambda epoch, model, history: print(epoch, flush=True)])
np.savez(sys.argv[2], **{k: v.numpy() for k, v in model.state_dict().items()})
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_torch_run_killed_in_the_middle_resumes_in_a_new_process(tmp_path, monkeypatch):
    def start(name):
        paths = [str(tmp_path / name), str(tmp_path / f"{name}.out.npz")]
        command = [sys.executable, "-c", ONCE, *paths]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start("killed") as killed:
        for line in killed.stdout:
            if line.strip() == "12":
                killed.kill()
    assert killed.returncode == -signal.SIGKILL
    with start("killed") as resumed:
        first = resumed.stdout.readline()
        resumed.communicate()
    assert resumed.returncode == 0
    assert int(first) >= 12  # it went on; the callback comes before the checkpoint

    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "whole"), str(tmp_path / "whole.out.npz")])
    try:
        exec(compile(ONCE, "once", "exec"), {})
    finally:
        torch.set_num_threads(threads)
    with (
        contextlib.closing(np.load(tmp_path / "whole.out.npz")) as a,
        contextlib.closing(np.load(tmp_path / "killed.out.npz")) as b,
    ):
        assert_same_weights(dict(a), dict(b))


def test_train_imports_neither_torch_nor_pandas():
    code = """
        import sys
        import dlnotes.train
        import dlnotes.check
        assert not {"torch", "pandas", "matplotlib", "tqdm"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
