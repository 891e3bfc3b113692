"""What crosses between the grader and the process that runs a student's code: plain values.

A message is one JSON document and the raw bytes of its arrays; nothing is pickled, so reading a
message runs no code. Numbers, strings, None, tuples, lists, dicts, sets, arrays, dtypes, slices
and random generators are copied. Everything else stays where it is and crosses as a number, the
handle: the grader can call it, read its attributes and convert it to an array, but never holds it.

Arguments that can be changed in place (arrays, lists, dicts, sets, generators) are *shared* for
the length of one check: each side keeps its own copy under a common number, and every message
carries what its sender has changed since the last one. So a check sees that an array was changed
in place, that two arguments were one array, and that a function returned its own argument.
"""

import collections
import hashlib
import json
import socket
import struct
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

HEADER = struct.Struct(">IQ")
JSON_LIMIT = 32 << 20
BLOB_LIMIT = 256 << 20
DEPTH_LIMIT = 60
_DTYPE_KINDS = "biufcSUmM"
_SCALAR_TYPES = {
    t.__name__: t
    for t in (bool, int, float, complex, str, *(np.dtype(c).type for c in "?bBhHiIqQefdFD"))
}


class WireError(Exception):
    """A message that cannot be sent or cannot be understood."""


class Closed(WireError):
    """The other side is gone."""


class Late(WireError):
    """The other side did not answer in time."""


class Codec:
    """Turns values into a JSON document with numbered byte strings, and back.

    `hold(value)` returns the document for what does not cross; `fetch(document)` is its inverse.
    `owner` is true on the side that gives shared arguments their numbers.
    """

    def __init__(
        self,
        hold: Callable[[Any], dict],
        fetch: Callable[[dict], Any],
        *,
        owner: bool,
    ):
        self._hold, self._fetch, self._owner = hold, fetch, owner
        self._blobs: list[bytes] = []
        self._received: list[bytes] = []
        self.forget()

    def forget(self) -> None:
        """Forget all shared arguments: a new check begins."""
        self._shared: dict[int, Any] = {}
        self._number: dict[int, int] = {}
        self._state: dict[int, bytes] = {}
        self._given = 0
        self._pending: list[tuple[int, Any]] = []

    # Sending.

    def message(self, fields: dict, *, share: bool = True, **values: Any) -> bytes:
        """Return the bytes of a message with plain `fields` and encoded `values`.

        With `share=False` new arrays and containers are only copied.
        Raises WireError when a value is too deep or too large.
        """
        self._blobs = []
        document = dict(fields)
        document["dropped"] = self._drop_unused() if self._owner else []
        owner, self._owner = self._owner, self._owner and share
        try:
            for name, value in values.items():
                document[name] = self.encode(value)
        finally:
            self._owner = owner
        document["changes"] = self._changes()
        document["sizes"] = [len(blob) for blob in self._blobs]
        text, blob = json.dumps(document).encode(), b"".join(self._blobs)
        if len(text) > JSON_LIMIT or len(blob) > BLOB_LIMIT:
            raise WireError(f"a value of {(len(text) + len(blob)) >> 20} MB is too large")
        return HEADER.pack(len(text), len(blob)) + text + blob

    def encode(self, value: Any, depth: int = 0) -> Any:
        """Return the document of one value."""
        if depth > DEPTH_LIMIT:
            raise WireError("a value is nested too deep")
        number = self._number.get(id(value))
        if number is not None:
            return {"t": "shared", "i": number}
        if value is None or type(value) in (bool, str):
            return value
        if type(value) in (int, float):
            return value
        document = self._encode_container(value, depth)
        return self._encode_other(value) if document is None else document

    def _encode_container(self, value: Any, depth: int) -> dict | None:
        if isinstance(value, np.ndarray):
            document = self._encode_array(value, depth)
        elif isinstance(value, np.random.Generator):
            document = {"t": "generator", "state": _plain_state(value)}
        elif isinstance(value, list | tuple | set | frozenset | dict):
            document = self._encode_elements(value, depth)
        else:
            return None
        if self._owner and not isinstance(value, tuple | frozenset):
            document["i"] = self._given
            self._remember(self._given, value)
            self._given += 1
        return document

    def _encode_elements(self, value: Any, depth: int) -> dict:
        def inner(item):
            return self.encode(item, depth + 1)

        if isinstance(value, dict):
            return {"t": "dict", "v": [[inner(k), inner(v)] for k, v in value.items()]}
        document = {"v": [inner(item) for item in value]}
        if isinstance(value, tuple) and isinstance(getattr(value, "_fields", None), tuple):
            return document | {"t": "namedtuple", "fields": [str(f) for f in value._fields]}
        kinds = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
        return document | {"t": next(k for t, k in kinds.items() if isinstance(value, t))}

    def _encode_array(self, value: np.ndarray, depth: int) -> dict:
        if value.dtype.kind == "O":
            items = [self.encode(item, depth + 1) for item in value.ravel()]
            return {"t": "objects", "shape": list(value.shape), "v": items}
        if value.dtype.kind not in _DTYPE_KINDS:
            return self._hold(value)
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        return {
            "t": "array",
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "layout": "F" if fortran else "C" if contiguous else "strided",
            "locked": not value.flags.writeable,
            "blob": self._blob(np.asarray(value).tobytes("F" if fortran else "C")),
        }

    def _blob(self, data: bytes) -> int:
        self._blobs.append(data)
        return len(self._blobs) - 1

    def _encode_other(self, value: Any) -> dict:
        if isinstance(value, np.generic) and value.dtype.kind in _DTYPE_KINDS:
            data = self._blob(value.tobytes())
            return {"t": "scalar", "dtype": value.dtype.str, "blob": data}
        if isinstance(value, bool | int | float | str):  # a subclass: only its value crosses
            base = next(t for t in (bool, int, float, str) if isinstance(value, t))
            return {"t": "plain", "v": base(value)}
        if isinstance(value, complex):
            return {"t": "complex", "v": [value.real, value.imag]}
        if isinstance(value, bytes | bytearray):
            return {"t": "bytes", "blob": self._blob(bytes(value))}
        if isinstance(value, slice | range):
            parts = [self.encode(x) for x in (value.start, value.stop, value.step)]
            return {"t": type(value).__name__, "v": parts}
        if value is Ellipsis:
            return {"t": "ellipsis"}
        if isinstance(value, np.dtype) and value.kind in _DTYPE_KINDS:
            return {"t": "dtype", "v": value.str}
        if isinstance(value, type) and _SCALAR_TYPES.get(value.__name__) is value:
            return {"t": "type", "v": value.__name__}
        return self._hold(value)

    def _remember(self, number: int, value: Any) -> None:
        self._shared[number] = value
        self._number[id(value)] = number

    def _changes(self) -> list:
        """Return the documents of the shared arguments that changed since the last message.

        What is shared for the first time was just encoded: its state is noted, not sent again.
        """
        changes = []
        done: set[int] = set()
        while todo := self._shared.keys() - done:  # a changed list may share what it now holds
            for number in sorted(todo):
                state = self._state_of(self._shared[number])
                if self._state.get(number, state) != state:
                    changes.append([number, self._document_of(self._shared[number])])
                self._state[number] = state
            done |= todo
        return changes

    def _drop_unused(self) -> list[int]:
        """Forget shared arguments that nobody here can look at any more; return their numbers.

        A check that calls in a loop would otherwise carry all its earlier arguments along.
        """
        # Two references: the table's own and the one that is passed to getrefcount.
        unused = [n for n in self._shared if sys.getrefcount(self._shared[n]) <= 2]
        self._forget(unused)
        return unused

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            value = self._shared.pop(number, None)
            self._number.pop(id(value), None)
            self._state.pop(number, None)

    def note_state(self) -> None:
        """Take the shared arguments as they are now for what the other side knows."""
        for number, value in self._shared.items():
            self._state[number] = self._state_of(value)

    def _state_of(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray) and value.dtype.kind in _DTYPE_KINDS:
            digest = hashlib.blake2b(repr((value.shape, value.dtype.str)).encode(), digest_size=16)
            digest.update(value.tobytes())
            return digest.digest()
        # Only looking: nothing is sent, so nothing may get a number either.
        outer, self._blobs = self._blobs, []
        owner, self._owner = self._owner, False
        try:
            document = self._document_of(value)
            digest = hashlib.blake2b(json.dumps(document).encode(), digest_size=16)
            for blob in self._blobs:
                digest.update(blob)
        finally:
            self._blobs, self._owner = outer, owner
        return digest.digest()

    def _document_of(self, value: Any) -> dict:
        if isinstance(value, np.ndarray):
            return self._encode_array(value, 0)
        if isinstance(value, np.random.Generator):
            return {"t": "generator", "state": _plain_state(value)}
        return self._encode_elements(value, 0)

    # Receiving.

    def read(self, text: bytes, blob: bytes) -> dict:
        """Return the document of a message; its values wait for `decode`.

        Raises WireError for anything that is not a well-formed message.
        """
        try:
            document = json.loads(text)
            at, self._received = 0, []
            for size in document["sizes"]:
                if not isinstance(size, int) or not 0 <= size <= len(blob) - at:
                    raise ValueError("sizes do not fit")
                self._received.append(blob[at : at + size])
                at += size
            self._pending = [(int(n), d) for n, d in document["changes"]]
            if not self._owner:
                self._forget([int(n) for n in document["dropped"]])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise WireError(f"bad message: {type(error).__name__}") from None
        return document

    def decode(self, document: Any) -> Any:
        """Return the value of a document; raises WireError for one that is not well formed."""
        try:
            return self._decode(document)
        except WireError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as e:
            raise WireError(f"bad value: {type(e).__name__}") from None

    def apply_changes(self) -> None:
        """Change the shared arguments as the last message says; its values come first."""
        for number, document in self._pending:
            if number not in self._shared:
                raise WireError("bad message: a change of nothing")
            _replace(self._shared[number], self.decode(document))
        self._pending = []
        self.note_state()

    def _decode(self, d: Any) -> Any:
        if d is None or isinstance(d, bool | int | float | str):
            return d
        kind = d["t"]
        if kind == "shared":
            return self._shared[d["i"]]
        value = self._decode_kind(kind, d)
        if not self._owner and "i" in d:
            self._remember(d["i"], value)
        return value

    def _decode_kind(self, kind: str, d: dict) -> Any:
        match kind:
            case "array":
                return self._decode_array(d)
            case "scalar":
                return np.frombuffer(self._received[d["blob"]], _dtype(d["dtype"]), count=1)[0]
            case "list" | "tuple" | "set" | "frozenset":
                make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
                return make(self._decode(item) for item in d["v"])
            case "dict":
                return {self._decode(k): self._decode(v) for k, v in d["v"]}
            case "namedtuple":
                make = collections.namedtuple("Result", d["fields"][:50])
                return make(*(self._decode(item) for item in d["v"]))
            case "objects":
                value = np.empty(len(d["v"]), dtype=object)
                for i, item in enumerate(d["v"]):
                    value[i] = self._decode(item)
                return value.reshape(d["shape"])
            case "generator":
                generator = np.random.default_rng(0)
                _set_state(generator, d["state"])
                return generator
            case "plain":
                return self._decode(d["v"])
            case "complex":
                return complex(*d["v"])
            case "bytes":
                return self._received[d["blob"]]
            case "slice":
                return slice(*(self._decode(x) for x in d["v"]))
            case "range":
                return range(*d["v"])
            case "ellipsis":
                return Ellipsis
            case "dtype":
                return _dtype(d["v"])
            case "type":
                return _SCALAR_TYPES[d["v"]]
            case "handle" | "function":
                return self._fetch(d)
        raise ValueError(kind)

    def _decode_array(self, d: dict) -> np.ndarray:
        dtype, shape, data = _dtype(d["dtype"]), tuple(d["shape"]), self._received[d["blob"]]
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise ValueError("shape")
        order = "F" if d["layout"] == "F" else "C"
        value = np.frombuffer(data, dtype).reshape(shape, order=order).copy(order)
        if dtype.kind == "b":  # a byte that is neither 0 nor 1 is no truth value
            bits = value.view(np.uint8)
            np.minimum(bits, 1, out=bits)
        if d["layout"] == "strided" and value.ndim:
            wide = np.empty((*shape[:-1], 2 * shape[-1]), dtype)
            wide[..., ::2] = value
            value = wide[..., ::2]
        value.flags.writeable = not d["locked"]
        return value


def _dtype(text: str) -> np.dtype:
    dtype = np.dtype(str(text))
    if dtype.kind not in _DTYPE_KINDS:
        raise ValueError("dtype")
    return dtype


def _plain_state(generator: np.random.Generator) -> dict:
    if not isinstance(generator.bit_generator, np.random.PCG64):
        raise WireError("only generators of numpy.random.default_rng can be passed")
    state = generator.bit_generator.state
    return {
        "state": str(state["state"]["state"]),
        "inc": str(state["state"]["inc"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def _set_state(generator: np.random.Generator, state: dict) -> None:
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": int(state["state"]), "inc": int(state["inc"])},
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def _replace(value: Any, new: Any) -> None:
    """Give the shared `value` the content of `new`, in place, as far as its kind allows."""
    if isinstance(value, np.ndarray) and isinstance(new, np.ndarray):
        if value.shape == new.shape and value.dtype == new.dtype and value.flags.writeable:
            np.copyto(value, new)
    elif isinstance(value, list) and isinstance(new, list):
        value[:] = new
    elif isinstance(value, dict | set) and type(value) is type(new):
        value.clear()
        value.update(new)
    elif isinstance(value, np.random.Generator) and isinstance(new, np.random.Generator):
        value.bit_generator.state = new.bit_generator.state
    else:
        raise WireError("bad message: a change of kind")


class Channel:
    """Whole messages over a socket, with a time limit for reading."""

    def __init__(self, sock: socket.socket):
        self._socket = sock

    def send(self, data: bytes, deadline: int | float | None = None) -> None:
        """Send one message; raises Closed or Late."""
        self._socket.settimeout(_left(deadline))
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Closed from None

    def receive(self, deadline: int | float | None = None) -> tuple[bytes, bytes]:
        """Return the text and the bytes of the next message.

        Raises Closed, Late, or WireError when the message claims to be too large.
        """
        text, blob = HEADER.unpack(self._exactly(HEADER.size, deadline))
        if text > JSON_LIMIT or blob > BLOB_LIMIT:
            raise WireError("the message is too large")
        return self._exactly(text, deadline), self._exactly(blob, deadline)

    def _exactly(self, count: int, deadline: int | float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._socket.settimeout(_left(deadline))
            try:
                part = self._socket.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                raise Late from None
            except OSError:
                raise Closed from None
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _left(deadline: int | float | None) -> int | float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise Late
    return left


def is_function(value: Any) -> bool:
    """Whether a check may pass `value` to a student's code, which may only call it."""
    return isinstance(
        value,
        types.FunctionType | types.BuiltinFunctionType | types.MethodType | np.ufunc | type,
    )
