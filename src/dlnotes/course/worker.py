"""Runs one student's cells in a process of its own and answers the grader. Never sees a check.

Everything here shares a process with the student's code, which may break or replace any of it:
then this process gives wrong answers or none, and the grader, which trusts only plain values and
its own clock, gives no points for them. `serve` is entered in a fork of its own
(`dlnotes.course.nursery`).
"""

import ast
import builtins
import contextlib
import importlib
import io
import linecache
import operator
import os
import re
import socket
import sys
import traceback
import types
from typing import Any

from dlnotes.course.wire import Channel, Closed, Codec, WireError

OUTPUT_LIMIT = 20_000  # characters of what a notebook prints that are kept
_CELL = re.compile(r"<cell (\d+)>")
_BINARY = ("add", "floordiv", "matmul", "mod", "mul", "pow", "sub", "truediv")
_UNARY = ("abs", "invert", "neg", "pos")
_ITEMS = ("contains", "delitem", "getitem", "setitem")
_OPERATORS = {name: getattr(operator, name) for name in (*_BINARY, *_UNARY, *_ITEMS)}
_OPERATORS |= {"len": len, "float": float, "int": int, "iter": iter, "str": str}


class _Bounded(io.TextIOBase):
    """A text stream that keeps the beginning of what is written and counts the rest."""

    def __init__(self, limit: int):
        self._parts: list[str] = []
        self._left, self.lost = limit, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: self._left]
        if kept:
            self._parts.append(kept)
            self._left -= len(kept)
        self.lost += len(text) - len(kept)
        return len(text)

    def isatty(self) -> bool:
        return False

    def text(self) -> str:
        cut = f"\n… {self.lost} more characters\n" if self.lost else ""
        return "".join(self._parts) + cut


class _SilentGrader:
    """What `Grader` is while a notebook is graded: its checks are the grader's business."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    score = check


def plain_python(source: str) -> str | None:
    """Return a notebook cell as plain Python, or None when nothing of it can be run.

    Lines for the shell (`!`) and IPython (`%`, `?`) are left out, a cell for another language
    (`%%`) wholly; `%%time`, `%%capture` and `%%prun` are dropped from above their Python.
    """
    lines = source.splitlines()
    while lines and not lines[0].strip():
        lines.pop(0)
    if lines and lines[0].startswith("%%"):
        if lines[0].split()[0] not in ("%%time", "%%capture", "%%prun"):
            return None
        lines[0] = "pass"
    source = "\n".join(lines)
    try:
        ast.parse(source)
        return source
    except (SyntaxError, ValueError):
        pass
    kept = [re.sub(r"^(\s*)(?:[!%?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", line) for line in lines]
    kept = [re.sub(r"^(\s*[\w, ]+=\s*)[!%].*$", r"\1None", line) for line in kept]
    return "\n".join(kept)


class _Server:
    """Answers the grader's requests, one after another, until the channel closes."""

    def __init__(self, channel: Channel):
        self.channel = channel
        self.codec = Codec(self._hold, self._fetch, owner=False)
        self.held: list[Any] = []
        self.index_of: dict[int, int] = {}
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        self.names = vars(main)
        self.sequence = 0

    # What does not cross.

    def _hold(self, value: Any) -> dict:
        number = self.index_of.get(id(value))
        if number is None:
            number = self.index_of[id(value)] = len(self.held)
            self.held.append(value)
        return {"t": "handle", "h": number, "r": type(value).__name__[:80]}

    def _fetch(self, document: dict) -> Any:
        if document["t"] == "handle":
            return self.held[document["h"]]
        number = document["h"]

        def function(*args, **kwargs):
            return self._call_back(number, args, kwargs)

        function.__name__ = function.__qualname__ = str(document["r"])
        return function

    def _call_back(self, number: int, args: tuple, kwargs: dict) -> Any:
        self._send({"callback": number}, args=args, kwargs=kwargs)
        reply = self._receive()
        if "error" in reply:
            kind = getattr(builtins, str(reply["error"]["kind"]), RuntimeError)
            raise kind(reply["error"]["text"])
        return reply["value"]

    # Messages.

    def _send(self, fields: dict, **values: Any) -> None:
        fields = {"n": self.sequence, **fields}
        try:
            data = self.codec.message(fields, **values)
        except WireError as error:
            fields = {"n": self.sequence, "error": {"kind": "ValueError", "text": str(error)}}
            data = self.codec.message(fields)
        self.channel.send(data)

    def _receive(self) -> dict:
        message = self.codec.read(*self.channel.receive())
        for name in ("args", "kwargs", "value"):
            if name in message:
                message[name] = self.codec.decode(message[name])
        self.codec.apply_changes()
        return message

    def run(self) -> None:
        while True:
            try:
                message = self._receive()
            except Closed:
                return
            self.sequence = message["n"]
            try:
                value = getattr(self, "_op_" + message["op"])(message)
            except Closed:
                return
            except BaseException as error:
                self._send({"error": self._describe(error)})
            else:
                try:
                    self._send({}, value=value)
                except Closed:
                    return
                except BaseException as error:  # such as a student's object that cannot be read
                    self._send({"error": self._describe(error)})

    def _describe(self, error: BaseException) -> dict:
        """Say in plain values what was raised and in which line of which cell."""
        where = ""
        for frame in traceback.extract_tb(error.__traceback__):
            cell = _CELL.match(frame.filename)
            if cell:
                where = f"cell {cell[1]}, line {frame.lineno}"
        if isinstance(error, SyntaxError) and _CELL.match(str(error.filename)):
            where = f"cell {_CELL.match(error.filename)[1]}, line {error.lineno}"
        try:
            text = str(error)[:500]
        except BaseException:
            text = "(its message cannot be read)"
        kinds = [t.__name__ for t in type(error).__mro__ if t.__module__ == "builtins"]
        return {"kind": type(error).__name__[:80], "bases": kinds, "text": text, "where": where}

    # Requests.

    def _op_cell(self, message: dict) -> None:
        number, source = message["number"], plain_python(message["source"])
        if source is None:
            return
        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        try:
            exec(compile(source, name, "exec"), self.names)
        finally:
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")

    def _op_begin(self, message: dict) -> None:
        """Begin a check: shared arguments are forgotten, random numbers start anew."""
        self.codec.forget()
        _seed(message["seed"])

    def _op_get(self, message: dict) -> Any:
        return self.names[message["name"]]

    def _op_defined(self, message: dict) -> bool:
        return message["name"] in self.names

    def _op_import(self, message: dict) -> Any:
        return importlib.import_module(message["name"])

    def _op_attribute(self, message: dict) -> Any:
        return getattr(message["value"], message["name"])

    def _op_set_attribute(self, message: dict) -> None:
        setattr(message["value"], message["name"], message["args"][0])

    def _op_call(self, message: dict) -> Any:
        return message["value"](*message["args"], **message["kwargs"])

    def _op_operator(self, message: dict) -> Any:
        return _OPERATORS[message["name"]](message["value"], *message["args"])

    def _op_reflected(self, message: dict) -> Any:
        return _OPERATORS[message["name"]](*message["args"], message["value"])

    def _op_next(self, message: dict) -> Any:
        """The next element in a list of one; an empty list at the end."""
        try:
            return [next(message["value"])]
        except StopIteration:
            return []

    def _op_array(self, message: dict) -> Any:
        from dlnotes.course.cases import array

        return array(message["value"])

    def _op_modules(self, message: dict) -> list[str]:
        """The modules that are loaded, in the order in which they were met."""
        return [name for name in sys.modules if name != "__main__"]

    def _op_output(self, message: dict) -> str:
        return sys.stdout.text() if isinstance(sys.stdout, _Bounded) else ""


def _seed(seed: int) -> None:
    from dlnotes.random import manual_seed

    manual_seed(seed)


def _stand_ins() -> None:
    """Put quiet stand-ins where a notebook talks to Jupyter."""
    import dlnotes.course

    stand_in = types.ModuleType("dlnotes.course.notebook")
    stand_in.Grader = _SilentGrader
    sys.modules["dlnotes.course.notebook"] = stand_in
    dlnotes.course.Grader = _SilentGrader
    builtins.display = lambda *args, **kwargs: None
    if "dlnotes.viz" in sys.modules:  # drawing takes longer than grading, and nobody looks
        sys.modules["dlnotes.viz"].show = lambda *args, **kwargs: None


def serve(sock: socket.socket) -> None:
    """Answer the grader on `sock` until it hangs up; returns then."""
    # Where student code that walks over the usual descriptors does not meet it.
    import fcntl

    number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 200)
    sock.close()
    channel = Channel(socket.socket(fileno=number))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (at its end: input() raises EOFError)
    sys.stdout = sys.stderr = _Bounded(OUTPUT_LIMIT)
    _stand_ins()
    _seed(0)
    with contextlib.suppress(Closed):
        _Server(channel).run()
