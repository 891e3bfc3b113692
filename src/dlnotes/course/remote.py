"""The grader's side of a student's process: start it, ask it, end it.

`Nursery` owns the process that forks (`dlnotes.course.nursery`), `Session` one submission's
process. To a check, `Student` is the notebook's namespace and `Remote` an object that stays there.
"""

import builtins
import contextlib
import copy
import hashlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np

from dlnotes.course import sandbox as sandboxes
from dlnotes.course.cases import NotDefined, StudentError
from dlnotes.course.wire import Channel, Closed, Codec, Late, WireError, is_function

OUTSIDE_KNOWN = 2000  # results of kernels that are remembered


class Stopped(BaseException):
    """The student's process is gone or was ended; the message says why.

    Not an Exception, so that a check that catches exceptions cannot swallow it.
    """

    def __init__(self, why: str, *, by_itself: bool = False):
        super().__init__(why)
        self.by_itself = by_itself  # nobody ended it: an exit, a crash or the system


class Nursery:
    """The process that forks one child for each submission. Use as a context manager.

    `given` are the cells that every submission starts from: they are run once, in a child, and
    the modules that they needed are then loaded for all.
    """

    def __init__(self, sandbox: sandboxes.Sandbox, given: tuple[str, ...] = ()):
        self.sandbox, self.given = sandbox, given
        self.outside_known: dict[bytes, Any] = {}
        self._second: Nursery | None = None
        self._process: subprocess.Popen | None = None
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        self._work = self._files.enter_context(sandboxes.work_folder(self.sandbox))
        ours, theirs = socket.socketpair()
        number = str(theirs.fileno())
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        folders = ["/tmp", "/dev/shm"] if self.sandbox.sealed else []
        program = [sys.executable, "-m", "dlnotes.course.nursery", number, namespace, self._work]
        program += folders
        self._process = subprocess.Popen(
            self.sandbox.command(program, self._work),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # read only when it does not start
            env=sandboxes.environment(self._work),
            cwd="/" if self.sandbox.sealed else self._work,
            start_new_session=True,
        )
        theirs.close()
        self._control = ours
        self._lines = b""
        told = self.told(120)
        if not told.get("ready"):
            why = self._last_words()
            self.close()
            raise RuntimeError(f"the process that runs submissions did not start: {why}")
        self._preload()

    def _preload(self) -> None:
        """Load what the given cells load. Their results stay in the child: a library that has
        started threads, as torch does in its first backward pass, does not survive a fork."""
        if not self.given:
            return
        session = Session(self, 8 << 30)
        modules: list[str] = []
        try:
            for source in self.given:
                with contextlib.suppress(Exception):
                    session.run_cell(0, source, 120)
            modules = session.ask("modules")
        except Stopped:
            pass  # each submission will find out for itself
        finally:
            session.close()
        if self._process is None:
            raise RuntimeError("the given cells end the process that runs submissions")
        for start in range(0, len(modules), 50):
            request = {"load": modules[start : start + 50]}
            self._control.sendall(json.dumps(request).encode())
            self.told(120)

    def _last_words(self) -> str:
        self._kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            error = self._process.communicate(timeout=5)[1].decode(errors="replace").strip()
            return error.splitlines()[-1] if error else f"exit code {self._process.returncode}"
        return "it hangs"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def told(self, seconds: int | float) -> dict:
        """Return the nursery's next message, or {} when none comes in time."""
        end = time.monotonic() + seconds
        while b"\n" not in self._lines:
            left = end - time.monotonic()
            if left <= 0:
                return {}
            self._control.settimeout(left)
            try:
                data = self._control.recv(4096)
            except TimeoutError:
                return {}
            except OSError:
                data = b""
            if not data:
                return {"gone": True}
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return json.loads(line)

    def begin(self, memory: int) -> socket.socket:
        """Fork a child with `memory` bytes beyond what is loaded; return the socket to it."""
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._start()
            ours, theirs = socket.socketpair()
            request = json.dumps({"begin": True, "memory": memory}).encode()
            try:
                socket.send_fds(self._control, [request], [theirs.fileno()])
            except OSError:
                ours.close()
                self.close()
                continue
            finally:
                theirs.close()
            return ours
        raise RuntimeError("the process that runs submissions does not stay alive")

    def end(self) -> None:
        """End the child with all that it started, and empty its folders."""
        if self._process is None:
            return
        try:
            self._control.sendall(b'{"end": true}')
        except OSError:
            self.close()
            return
        while not (told := self.told(20)).get("ended"):
            if told.get("gone") or not told:
                self.close()  # a submission ended its nursery: the next one gets a new one
                return

    def second(self, given: tuple[str, ...]) -> "Nursery":
        """Return another nursery in the same kind of sandbox; it ends with this one."""
        if self._second is None:
            self._second = Nursery(self.sandbox, given)
        return self._second

    def close(self) -> None:
        """End the nursery and everything in it."""
        if self._second is not None:
            self._second.close()
            self._second = None
        if self._process is not None:
            self._control.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.5)
            self._kill()
            self._process.wait()
            self._process.stderr.close()
            self._process = None
        self._files.close()


def _ending(code: int | None) -> str:
    if code is None:
        return "the process ended"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"the process was ended by {name}"
    return f"the process ended itself (exit code {code})"


class Session:
    """One submission's process, from its first cell to its last check."""

    def __init__(self, nursery: Nursery, memory: int):
        self._nursery, self._memory = nursery, memory
        self._outside: Session | None = None
        self._channel = Channel(nursery.begin(memory))
        self.codec = Codec(self._hold, self._fetch, owner=True)
        self.started = time.monotonic()
        self.deadline = self.started + 60
        self._sequence = 0
        self._functions: list[Any] = []
        self.student = Student(self)

    def close(self) -> None:
        """End the process."""
        self._close_outside()
        self._channel.close()
        self._nursery.end()

    def _close_outside(self) -> None:
        if self._outside is not None:
            self._outside.close()
            self._outside = None

    def outside(self, module: str, function: str, *args: Any) -> Any:
        """Call a function of a library in a process that has run none of the student's Python.

        What came of the same arguments before is remembered: such a function gives the same again.
        Raises StudentError when the process has to be stopped or ends.
        """
        known = self._nursery.outside_known
        key = hashlib.sha256(pickle.dumps((module, function, args))).digest()
        if key not in known:
            if len(known) >= OUTSIDE_KNOWN:
                known.clear()
            known[key] = self._ask_outside(module, function, args)
        return copy.deepcopy(known[key])

    def _ask_outside(self, module: str, function: str, args: tuple) -> Any:
        if self._outside is None:
            nursery = self._nursery.second((f"import {module}",))
            self._outside = Session(nursery, self._memory)
        other = self._outside
        try:
            other.begin_check(0, self.deadline - time.monotonic())
            found = getattr(other.ask("import", name=module), function)(*args)
            return copy.deepcopy(found)  # its containers are the codec's, until the next call
        except Stopped as stopped:
            self._close_outside()
            raise StudentError(f"your kernel was stopped: {stopped}") from None

    def begin_check(self, seed: int, seconds: int | float) -> None:
        """Forget the last check's arguments and seed all random numbers."""
        self.codec.forget()
        self._functions.clear()
        self.deadline = time.monotonic() + seconds
        self.ask("begin", seed=seed)

    def run_cell(self, number: int, source: str, seconds: int | float) -> None:
        """Run a cell; raises StudentError when it raises and Stopped when it has to be ended."""
        self.deadline = time.monotonic() + seconds
        self.ask("cell", number=number, source=source)

    def idle(self, seconds: int | float) -> None:
        """Wait whether the process ends by itself; raises Stopped when it does."""
        time.sleep(seconds)
        self.deadline = time.monotonic() + 5
        self.ask("defined", name="")

    # Values.

    def _hold(self, value: Any) -> dict:
        if isinstance(value, Remote):
            return {"t": "handle", "h": value.__dlnotes_handle__}
        if is_function(value):
            self._functions.append(value)
            name = getattr(value, "__name__", "function")
            return {"t": "function", "h": len(self._functions) - 1, "r": name}
        kind = type(value).__name__
        raise TypeError(
            f"a check cannot pass a {kind} to student code: only numbers, text, arrays, "
            "containers of them and functions; build it with module(s, ...)"
        )

    def _fetch(self, document: dict) -> "Remote":
        return Remote(self, int(document["h"]), str(document["r"]))

    def ask(self, op: str, *, values: dict | None = None, **fields: Any) -> Any:
        """Send a request and return its answer, serving calls back to the check's functions."""
        self._sequence += 1
        fields = {"n": self._sequence, "op": op, **fields}
        try:
            self._channel.send(self.codec.message(fields, **(values or {})), self.deadline)
            while True:
                reply = self._read()
                if "callback" not in reply:
                    break
                self._answer(reply)
            if "error" in reply:
                raise self._error(reply["error"])
            return reply.get("value")
        except Late:
            raise Stopped("it took too long") from None
        except Closed:
            code = self._nursery.told(0.5).get("died")
            raise Stopped(_ending(code), by_itself=True) from None
        except WireError as error:
            raise Stopped(f"its process sent something unreadable ({error})") from None

    def _read(self) -> dict:
        reply = self.codec.read(*self._channel.receive(self.deadline))
        if reply.get("n") != self._sequence:
            raise WireError("an answer to another question")
        for name in ("args", "kwargs", "value"):
            if name in reply:
                reply[name] = self.codec.decode(reply[name])
        self.codec.apply_changes()
        return reply

    def _answer(self, request: dict) -> None:
        try:
            function = self._functions[request["callback"]]
            value = function(*request["args"], **request["kwargs"])
            fields, values = {}, {"value": value}
        except (WireError, Stopped):
            raise
        except Exception as error:
            fields, values = {"error": {"kind": type(error).__name__, "text": str(error)}}, {}
        # Not shared: thousands of such values may pass in one check.
        data = self.codec.message({"n": self._sequence, **fields}, share=False, **values)
        self._channel.send(data, self.deadline)

    def _error(self, error: Any) -> Exception:
        """Return an exception of the kind that the student's code raised, if Python knows it."""
        if not isinstance(error, dict):
            return StudentError("your code raised an error that cannot be read")
        kind, text, where = (str(error.get(k, ""))[:500] for k in ("kind", "text", "where"))
        message = f"your code raised {kind}" + (f": {text}" if text else "")
        message += f" ({where})" if where else ""
        bases = (getattr(builtins, str(name), None) for name in list(error.get("bases", ()))[:20])
        base = next((b for b in bases if isinstance(b, type) and issubclass(b, Exception)), None)
        if base in (
            None,
            Exception,
            AssertionError,
            UnicodeDecodeError,
            UnicodeEncodeError,
            UnicodeTranslateError,
            BaseExceptionGroup,
            ExceptionGroup,
        ):
            return StudentError(message)
        return type(base.__name__, (StudentError, base), {"__str__": lambda self: message})(message)


class Student:
    """The names of the student's notebook, each asked for when a check uses it."""

    __dlnotes_remote__ = True

    def __init__(self, session: Session):
        self.__session = session

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__session.ask("defined", name=name) is not True:
            raise NotDefined(f"{name} is not defined when the notebook has run from top to bottom")
        return self.__session.ask("get", name=name)

    def __dlnotes_import__(self, name: str) -> Any:
        return self.__session.ask("import", name=name)

    def __dlnotes_outside__(self, module: str, function: str, *args: Any) -> Any:
        return self.__session.outside(module, function, *args)


class Remote:
    """An object that stays in the student's process.

    It can be called, indexed, iterated over, read and set attributes of, used in arithmetic and
    converted to a number, text or an array. It is never equal to anything but itself and has no
    truth value: otherwise the student's object would decide what a check finds.
    """

    __dlnotes_remote__ = True
    __hash__ = object.__hash__
    __array_ufunc__ = None  # array + remote asks the remote

    def __init__(self, session: Session, handle: int, kind: str):
        vars(self).update(
            __dlnotes_session__=session, __dlnotes_handle__=handle, __dlnotes_kind__=kind
        )

    def __ask(self, op: str, *args: Any, **fields: Any) -> Any:
        values = {"value": self, "args": args}
        return self.__dlnotes_session__.ask(op, values=values, **fields)

    def __repr__(self) -> str:
        return f"<{self.__dlnotes_kind__} of the student's notebook>"

    def __str__(self) -> str:
        return str(self.__ask("operator", name="str"))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self.__ask("attribute", name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__ask("set_attribute", value, name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in the student's process."""
        values = {"value": self, "args": args, "kwargs": kwargs}
        return self.__dlnotes_session__.ask("call", values=values)

    def __bool__(self) -> bool:
        raise TypeError(f"a {self.__dlnotes_kind__} was returned where a plain value is needed")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.__ask("array")
        if not isinstance(value, np.ndarray | np.generic):
            raise TypeError(f"a {self.__dlnotes_kind__} cannot be converted to an array")
        return np.asarray(value, dtype)

    def __iter__(self):
        iterator = self.__ask("operator", name="iter")
        if not isinstance(iterator, Remote):
            raise TypeError(f"a {self.__dlnotes_kind__} cannot be iterated over")
        session = self.__dlnotes_session__
        while item := session.ask("next", values={"value": iterator}):
            yield item[0]

    def __len__(self) -> int:
        return int(self.__ask("operator", name="len"))

    def __float__(self) -> int | float:
        return float(self.__ask("operator", name="float"))

    def __int__(self) -> int:
        return int(self.__ask("operator", name="int"))

    def __contains__(self, item: Any) -> bool:
        return self.__ask("operator", item, name="contains") is True

    def __getitem__(self, key: Any) -> Any:
        return self.__ask("operator", key, name="getitem")

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__ask("operator", key, value, name="setitem")


def _arithmetic(name: str) -> None:
    def forward(self, *others):
        values = {"value": self, "args": others}
        return self.__dlnotes_session__.ask("operator", values=values, name=name)

    def reflected(self, other):
        values = {"value": self, "args": (other,)}
        return self.__dlnotes_session__.ask("reflected", values=values, name=name)

    setattr(Remote, f"__{name}__", forward)
    if name not in ("abs", "neg", "pos", "invert"):
        setattr(Remote, f"__r{name}__", reflected)


for _name in ("add", "floordiv", "matmul", "mod", "mul", "pow", "sub", "truediv"):
    _arithmetic(_name)
for _name in ("abs", "invert", "neg", "pos"):
    _arithmetic(_name)
