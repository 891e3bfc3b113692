"""What a watched kernel did: accesses by line, as memory sees them, and a warp step by step."""

import ctypes
import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dlnotes.cuda._source import Source

# As the struct Event of engine/watch.h.
EVENT = np.dtype([
    ("pc", "u8"), ("line", "u4"), ("offset", "u4"), ("block", "u4"), ("thread", "u4"),
    ("buffer", "i2"), ("kind", "u1"), ("bytes", "u1"), ("pad", "u4"), ("value", "u1", 16),
])  # fmt: skip
KINDS = ("read", "write", "atomic")
SYNC_WARP, SYNC_BLOCK, STEP = 3, 4, 5
WARP, SECTOR, BANKS, WORD = 32, 32, 32, 4  # lanes; bytes of a sector; banks of 4-byte words


@dataclass(frozen=True)
class Buffer:
    """An array of a kernel: an argument ("global") or a __shared__ variable ("shared")."""

    name: str
    space: str
    item: int  # bytes of an element
    dtype: np.dtype | None


@dataclass(frozen=True)
class Access:
    """One thread's access: of which element (counted flat) of which array, and its values."""

    kind: str
    name: str
    space: str
    index: int
    values: tuple[int | float, ...]

    def __str__(self) -> str:
        sign = {"read": "→", "write": "←", "atomic": "⇄"}[self.kind]
        values = ", ".join(f"{value:.6g}" for value in self.values)
        return f"{self.name}[{self.index}] {sign} {values}"


@dataclass(frozen=True)
class LineReport:
    """How the accesses of one line to one array reach memory.

    A *request* is one load or store instruction of a warp. From global memory it fetches sectors of
    32 bytes: `sectors` are those of a mean request, `used` the part of their bytes that was asked
    for. Shared memory has 32 banks of 4-byte words: `ways` says how many times longer than without
    conflicts a mean request takes (1.0: none), `passes` how many turns all requests take together.
    For the other kind of memory these are None.
    """

    file: str
    line: int
    source: str
    name: str
    space: str
    kind: str
    requests: int
    bytes: float  # of a mean request, counted once for each lane
    sectors: float | None
    used: float | None
    ways: float | None
    passes: int | None = None

    def __str__(self) -> str:
        if self.space == "global":
            cost = f"{self.sectors:5.1f} sectors a request, {self.used:4.0%} of their bytes used"
        else:
            cost = f"{self.ways:5.1f}-way bank conflict" if self.ways > 1 else "no bank conflict"
        what = f"{self.kind} {self.name}"
        return f"line {self.line:3d}  {what:<14} {self.requests:6d} requests  {cost}"


@dataclass(frozen=True)
class Totals:
    """What a whole launch asks of memory, added up over its lines.

    requests, sectors: load and store instructions of warps to global memory, atomics included, and
    the 32-byte sectors that they touch. shared_requests, passes: the same instructions to shared
    memory, and the turns that they take: one each without bank conflicts and with 4-byte words.
    """

    requests: int
    sectors: int
    shared_requests: int
    passes: int

    @property
    def bytes(self) -> int:
        """The bytes of all sectors, as if nothing stayed in a cache."""
        return SECTOR * self.sectors


class _Recording:
    """The events of one launch, with what names them."""

    def __init__(self, source: Source, events: np.ndarray, lines: dict[int, tuple[str, int]],
                 arguments: list[Buffer], shared: list[Buffer]):  # fmt: skip
        self.source, self.events = source, events
        self._lines, self._arguments, self._shared = lines, arguments, shared

    @property
    def buffers(self) -> list[Buffer]:
        """All arrays that the kernel was given or declared."""
        return [*self._arguments, *self._shared]

    def _buffer(self, number: int) -> Buffer:
        return self._arguments[number] if number >= 0 else self._shared[-1 - number]

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """For each event the index of its (file, line) in `_names`."""
        pairs = np.stack([self.events["pc"], self.events["line"].astype(np.uint64)], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        self._names = [self._place(int(pc), int(line)) for pc, line in unique]
        return inverse.ravel()

    def _place(self, pc: int, line: int) -> tuple[str, int]:
        if not line:
            return self._lines.get(pc, ("", 0))
        return ctypes.string_at(pc).decode(), line  # the engine's own functions know their caller

    def place(self, event: int) -> tuple[str, int]:
        """Return (file, line) of an event."""
        where = self._places[event]
        return self._names[where]


class Trace(_Recording):
    """Every access of a launch. `report()` lists them by line; `str()` prints that list.

    `events` is the raw record, in the order of execution on the CPU: thread by thread up to each
    barrier. Its fields: `block` and `thread` (counted flat), `buffer`, `offset` and `bytes`, `kind`
    (an index into KINDS; larger for barriers), `value`.
    """

    def report(self) -> list[LineReport]:
        """Return one row for each line, array and kind of access, in the order of the lines."""
        return list(self._report)

    @functools.cached_property
    def _report(self) -> list[LineReport]:
        accesses = np.flatnonzero(self.events["kind"] < len(KINDS))
        if not accesses.size:
            return []
        events, places = self.events[accesses], self._places[accesses]
        request = self._requests(events, places)
        spot = np.array([hash_of for hash_of in self._spots()], np.int64)[places]
        unique, group = _groups(spot, events["buffer"], events["kind"])
        rows = []
        for number, (where, buffer, kind) in enumerate(unique.tolist()):
            chosen = group == number
            rows.append(
                self._row(self._spot_names[where], buffer, kind, events[chosen], request[chosen])
            )
        return sorted(
            rows, key=lambda r: (r.file != os.path.basename(self.source.name), r.file, r.line)
        )

    def totals(self, name: str | None = None) -> Totals:
        """Return the whole launch's requests, sectors and passes, or one array's.

        Raises ValueError where there is no array `name`.
        """
        if name is not None:
            self._named(name)
        sums = {"global": [0, 0.0], "shared": [0, 0.0]}
        for row in self._report:
            if name in (None, row.name):
                sums[row.space][0] += row.requests
                sums[row.space][1] += row.passes or row.requests * row.sectors
        (requests, sectors), (shared, passes) = sums["global"], sums["shared"]
        return Totals(requests, round(sectors), shared, round(passes))

    def _spots(self) -> list[int]:
        """Number the (file, line) pairs: several instructions may stand in one line."""
        self._spot_names = sorted(set(self._names))
        number = {name: i for i, name in enumerate(self._spot_names)}
        return [number[name] for name in self._names]

    @staticmethod
    def _requests(events: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Number the requests: the n-th run of an instruction by each lane of a warp is one."""
        thread = events["block"].astype(np.int64) * 1024 + events["thread"]
        order = np.lexsort((np.arange(len(events)), places, thread))
        starts = np.r_[True, (np.diff(thread[order]) != 0) | (np.diff(places[order]) != 0)]
        nth = np.arange(len(events))
        nth -= np.maximum.accumulate(np.where(starts, nth, 0))
        turn = np.empty_like(nth)
        turn[order] = nth
        return _groups(thread // WARP, places, turn)[1]

    def _row(self, place, number, kind, events, request) -> LineReport:
        file, line = place
        buffer = self._buffer(number)
        requests = len(np.unique(request))
        sectors = used = ways = passes = None
        if buffer.space == "global":
            sectors, used = _sectors(events, request, requests)
        else:
            ways, passes = _ways(events, request)
        return LineReport(
            os.path.basename(file), line, self.source.line(file, line).strip(), buffer.name,
            buffer.space, KINDS[kind], requests, float(events["bytes"].sum() / requests),
            sectors, used, ways, passes,
        )  # fmt: skip

    def count(self, name: str, kind: str = "read") -> np.ndarray:
        """Return how often each element of an array was read, written or updated ("atomic")."""
        numbers, buffer = self._named(name)
        events = self.events
        chosen = events[np.isin(events["buffer"], numbers) & (events["kind"] == KINDS.index(kind))]
        first = chosen["offset"].astype(np.int64) // buffer.item
        last = (chosen["offset"].astype(np.int64) + chosen["bytes"] - 1) // buffer.item
        counts = np.zeros(int(last.max(initial=-1)) + 1, np.int64)
        for step in range(int((last - first).max(initial=0)) + 1):
            np.add.at(counts, (first + step)[first + step <= last], 1)
        return counts

    def first_request(
        self, name: str, kind: str = "read", block: int = 0, warp: int = 0
    ) -> np.ndarray:
        """Return which element each lane touches in the warp's first such request; -1: none."""
        numbers, buffer = self._named(name)
        events = self.events
        chosen = np.flatnonzero(
            np.isin(events["buffer"], numbers) & (events["kind"] == KINDS.index(kind))
            & (events["block"] == block) & (events["thread"] // WARP == warp)
        )  # fmt: skip
        lanes = np.full(WARP, -1, np.int64)
        if chosen.size:
            request = self._requests(events[chosen], self._places[chosen])
            these = events[chosen[request == request[0]]]
            lanes[these["thread"] % WARP] = these["offset"] // buffer.item
        return lanes

    def _named(self, name: str) -> tuple[list[int], Buffer]:
        found = {i: b for i, b in enumerate(self._arguments) if b.name == name}
        found |= {-1 - i: b for i, b in enumerate(self._shared) if b.name == name}
        if not found:
            names = ", ".join(repr(b.name) for b in self.buffers)
            raise ValueError(f"name must be one of {names}, got {name!r}")
        return list(found), next(iter(found.values()))

    def __str__(self) -> str:
        return "\n".join(map(str, self.report())) or "no accesses"


def _groups(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different rows of a table of whole numbers, sorted, and which each row is.

    As np.unique(axis=0) does, but packed into one number a row, which is several times faster.
    """
    table = [np.asarray(column, np.int64) for column in columns]
    lows = [int(column.min()) for column in table]
    sizes = [int(column.max()) - low + 1 for column, low in zip(table, lows, strict=True)]
    if math.prod(sizes) >= 2**62:
        unique, group = np.unique(np.stack(table, axis=1), axis=0, return_inverse=True)
        return unique, group.ravel()
    packed = np.zeros(len(table[0]), np.int64)
    for column, low, size in zip(table, lows, sizes, strict=True):
        packed = packed * size + (column - low)
    unique, group = np.unique(packed, return_inverse=True)
    rows = np.stack(np.unravel_index(unique, sizes), axis=1) + lows
    return rows, group.ravel()


def _changes(rows: np.ndarray) -> np.ndarray:
    """Say of each row of a sorted table whether it differs from the one before."""
    return np.r_[True, (np.diff(rows, axis=0) != 0).any(1)]


def _sectors(events, request, requests) -> tuple[float, float]:
    """Return sectors of a mean request, and the part of their bytes that any lane asked for."""
    # Most accesses are of whole words, which are counted in place of their bytes.
    grain = int(np.gcd.reduce(np.gcd(events["offset"], events["bytes"]), initial=SECTOR))
    first, length = events["offset"] // grain, events["bytes"] // grain
    pieces = []
    for step in range(int(length.max())):
        inside = step < length
        pieces.append((request[inside], first[inside] + step))
    touched, _ = _groups(*map(np.concatenate, zip(*pieces, strict=True)))
    touched_sectors, _ = _groups(touched[:, 0], touched[:, 1] * grain // SECTOR)
    return len(touched_sectors) / requests, len(touched) * grain / (SECTOR * len(touched_sectors))


def _ways(events, request) -> tuple[float, int]:
    """Return the time of a mean request in units of one without conflicts, and all turns.

    Lanes that read the same word are served together, atomics on one word one after another.
    8-byte accesses are served half a warp at a time and 16-byte ones a quarter, as NVIDIA's
    profilers count them.
    """
    words = np.maximum(events["bytes"] // WORD, 1).astype(np.int64)
    phase = events["thread"].astype(np.int64) % WARP * words // WARP
    atomic = (events["kind"] == KINDS.index("atomic")) * (events["thread"].astype(np.int64) + 1)
    pieces = []
    for step in range(int(words.max())):
        inside = step < words
        word = events["offset"][inside].astype(np.int64) // WORD + step
        pieces.append((request[inside], phase[inside], word % BANKS, word // BANKS, atomic[inside]))
    each, _ = _groups(*map(np.concatenate, zip(*pieces, strict=True)))
    # The rows are sorted, so those of one bank, and of one phase, stand side by side.
    start = np.flatnonzero(_changes(each[:, :3]))
    banks, depth = each[start], np.diff(np.append(start, len(each)))
    start = np.flatnonzero(_changes(banks[:, :2]))
    phases = banks[start]
    passes = int(np.maximum.reduceat(depth, start).sum())
    return passes / len(phases), passes


@dataclass(frozen=True)
class Step:
    """A line that lanes of a warp ran together: who took part, and what each of them accessed."""

    file: str
    line: int
    source: str
    lanes: tuple[int, ...]
    accesses: dict[int, tuple[Access, ...]]  # by lane
    barrier: str | None  # "block" or "warp" where the line is one

    def __str__(self) -> str:
        text = f"line {self.line:3d}  {len(self.lanes):2d} lanes  {self.source}"
        for lane in self.lanes[:1]:
            text += "".join(
                f"\n{'':20}lane {lane}: {access}" for access in self.accesses.get(lane, ())
            )
        return text


@dataclass
class _LaneStep:
    place: tuple[str, int]
    accesses: list[Access]
    barrier: str | None
    pieces: set[int] = field(default_factory=set)  # the straight pieces of code seen


class Steps(_Recording):
    """One warp, line by line. Iterate for `Step`s; `lane(i)` is what a single thread did.

    Lanes run together where they can, as on a GPU before Volta: at each step those that are
    furthest behind in the source go on, so that lanes which parted meet again. A closing brace on a
    line of its own is no step.
    """

    @functools.cached_property
    def _by_lane(self) -> dict[int, list[_LaneStep]]:
        steps: dict[int, list[_LaneStep]] = {}
        places = self._places  # which finds the names, too
        braces = {name for name in self._names if self.source.line(*name).strip() == "}"}
        for number, event in enumerate(self.events):
            place, lane = self._names[places[number]], int(event["thread"]) % WARP
            if place[0] not in self.source.files or place in braces:
                continue
            mine = steps.setdefault(lane, [])
            kind = int(event["kind"])
            if kind in (SYNC_WARP, SYNC_BLOCK):
                if not mine or mine[-1].place != place or mine[-1].accesses or mine[-1].barrier:
                    mine.append(_LaneStep(place, [], None))
                mine[-1].barrier = "warp" if kind == SYNC_WARP else "block"
                continue
            again = kind == STEP and mine and int(event["pc"]) in mine[-1].pieces  # a loop
            if not mine or mine[-1].place != place or mine[-1].barrier or again:
                mine.append(_LaneStep(place, [], None))
            if kind == STEP:
                mine[-1].pieces.add(int(event["pc"]))
            else:
                mine[-1].accesses.append(self._access(event))
        return dict(sorted(steps.items()))

    def _access(self, event) -> Access:
        buffer = self._buffer(int(event["buffer"]))
        raw = event["value"].tobytes()[: int(event["bytes"])]
        dtype = buffer.dtype if buffer.dtype is not None else np.dtype(np.uint8)
        size = len(raw) // dtype.itemsize * dtype.itemsize
        values = tuple(np.frombuffer(raw[:size], dtype).tolist())
        return Access(
            KINDS[event["kind"]],
            buffer.name,
            buffer.space,
            int(event["offset"]) // buffer.item,
            values,
        )

    def lane(self, number: int) -> list[Step]:
        """Return the steps of one lane."""
        return [self._step(s.place, {number: s}) for s in self._by_lane.get(number, [])]

    def _step(self, place, taking_part: dict[int, _LaneStep]) -> Step:
        accesses = {lane: tuple(s.accesses) for lane, s in taking_part.items() if s.accesses}
        barrier = next(iter(taking_part.values())).barrier
        file, line = place
        return Step(os.path.basename(file), line, self.source.line(file, line).strip(),
                    tuple(taking_part), accesses, barrier)  # fmt: skip

    @functools.cached_property
    def _together(self) -> list[Step]:
        rest = {lane: list(reversed(steps)) for lane, steps in self._by_lane.items()}
        found = []
        while heads := {lane: steps[-1] for lane, steps in rest.items() if steps}:
            place = min(step.place for step in heads.values())
            taking_part = {lane: step for lane, step in heads.items() if step.place == place}
            for lane in taking_part:
                rest[lane].pop()
            found.append(self._step(place, taking_part))
        return found

    def __iter__(self) -> Iterator[Step]:
        return iter(self._together)

    def __len__(self) -> int:
        return len(self._together)

    def __getitem__(self, index: int) -> Step:
        return self._together[index]

    def __str__(self) -> str:
        return "\n".join(map(str, self._together))
