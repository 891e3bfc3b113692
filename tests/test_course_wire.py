"""Values cross between two processes as they are; arguments are shared; nonsense is refused."""

import json
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes.course.wire import BLOB_LIMIT, HEADER, Codec, WireError


def refuse(value):
    raise TypeError(f"held {value!r}")


def pair(hold=refuse, fetch=refuse):
    return Codec(hold, fetch, owner=True), Codec(hold, fetch, owner=False)


def split(data):
    text, _ = HEADER.unpack(data[: HEADER.size])
    return data[HEADER.size : HEADER.size + text], data[HEADER.size + text :]


def send(sender, receiver, value):
    document = receiver.read(*split(sender.message({}, value=value)))
    result = receiver.decode(document["value"])
    receiver.apply_changes()
    return result


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


arrays = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.floating_dtypes(sizes=(16, 32, 64)),
        hnp.complex_number_dtypes(sizes=(64, 128)),
    ),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(
    plain | arrays | st.complex_numbers(allow_nan=False),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v) | st.tuples(v, v),
    max_leaves=8,
)


@settings(deadline=None)  # the machine may be busy
@given(values)
def test_values_arrive_as_they_are_in_both_directions(value):
    grader, worker = pair()
    there = send(grader, worker, value)
    assert same(there, value)
    assert same(send(*reversed(pair()), value), value)
    back = send(worker, grader, there)
    if isinstance(value, np.ndarray | list | dict):
        assert back is value, "an argument that is returned is the argument"
    else:
        assert same(back, value)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.int8(-3),
        np.True_,
        np.dtype("<f4"),
        np.float32,
        int,
        ...,
        slice(1, None),
        range(1, 9, 2),
        {1, 2},
        frozenset({"a"}),
        -0.0,
        float("inf"),
        10**400,
        "\ud800",
        np.datetime64("2026-01-01"),
    ],
    ids=repr,
)
def test_other_plain_values(value):
    got = send(*pair(), value)
    assert type(got) is type(value)
    assert got == value


@pytest.mark.parametrize("make", [np.asfortranarray, lambda a: a[:, ::2], lambda a: a.T[::-1]])
def test_the_layout_of_an_array_is_kept_as_far_as_it_matters(make):
    value = make(np.arange(24.0).reshape(4, 6))
    got = send(*pair(), value)
    assert np.array_equal(got, value)
    assert got.flags.c_contiguous == value.flags.c_contiguous
    assert got.flags.f_contiguous == value.flags.f_contiguous


def test_a_locked_array_stays_locked():
    value = np.ones(3)
    value.flags.writeable = False
    assert not send(*pair(), value).flags.writeable


def test_subclasses_arrive_as_their_base():
    class Text(str):
        __slots__ = ()

    class Number(float):
        __slots__ = ()

        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    got = send(*reversed(pair()), [Text("a"), Number(2)])
    assert [type(x) for x in got] == [str, float]
    assert got == ["a", 2.0]


def test_changes_in_place_are_seen_on_both_sides():
    grader, worker = pair()
    x, d, items, r = np.zeros(3), {"a": 1}, [1], np.random.default_rng(3)
    tx, td, tl, tr, alias = send(grader, worker, (x, d, items, r, x))
    assert tx is alias
    tx += 1
    td["b"] = tx
    tl.append([2])
    first = tr.normal()
    assert send(worker, grader, None) is None
    assert x.tolist() == [1, 1, 1]
    assert d["b"] is x
    assert items == [1, [2]]
    assert r.normal() != first
    x += 1
    items[1].append(3)
    send(grader, worker, None)
    assert tx.tolist() == [2, 2, 2]
    assert tl == [1, [2, 3]]


def test_unchanged_arguments_are_sent_once():
    grader, worker = pair()
    x = np.zeros(10_000)
    first = len(grader.message({}, value=x))
    worker.read(*split(grader.message({}, value=x)))
    assert len(grader.message({}, value=x)) < 1000 < first


def test_used_up_arguments_are_dropped():
    grader, worker = pair()
    for _ in range(20):
        send(grader, worker, np.zeros(5))
        send(worker, grader, None)
    assert len(grader._shared) <= 1
    assert len(worker._shared) <= 2


def test_what_cannot_cross_is_refused():
    grader, worker = pair()
    deep = []
    for _ in range(100):
        deep = [deep]
    for codec in (grader, worker):
        with pytest.raises(WireError, match="nested too deep"):
            codec.message({}, value=deep)
        with pytest.raises(WireError, match="too large"):
            codec.message({}, value=np.zeros(BLOB_LIMIT // 8 + 1))
        with pytest.raises(WireError, match=r"default_rng"):
            codec.message({}, value=np.random.Generator(np.random.MT19937(0)))
    loop = []
    loop.append(loop)
    with pytest.raises(WireError, match="nested too deep"):
        worker.message({}, value=loop)


GOOD = {"sizes": [], "changes": [], "dropped": []}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        GOOD | {"sizes": [5]},
        GOOD | {"sizes": [-1]},
        GOOD | {"sizes": "x"},
        GOOD | {"changes": [[1]]},
        GOOD | {"changes": 3},
    ],
)
def test_bad_messages_are_refused(document):
    grader, _ = pair()
    with pytest.raises(WireError, match="bad message"):
        grader.read(json.dumps(document).encode(), b"abc")


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_bad_text_is_refused(text):
    with pytest.raises(WireError, match="bad message"):
        pair()[0].read(text, b"")


def array_of(**changes):
    return {
        "t": "array",
        "dtype": "<f8",
        "shape": [1],
        "layout": "C",
        "locked": False,
        "blob": 0,
    } | changes


@pytest.mark.parametrize(
    "value",
    [
        {"t": "pickle", "v": ""},
        {"v": 1},
        [1],
        {"t": "shared", "i": 7},
        {"t": "list", "v": 5},
        {"t": "dict", "v": [[{"t": "list", "v": []}, 1]]},
        {"t": "namedtuple", "fields": ["a b"], "v": [1]},
        {"t": "namedtuple", "fields": ["__init__"], "v": [1]},
        {"t": "type", "v": "Popen"},
        {"t": "dtype", "v": "O"},
        {"t": "bytes", "blob": 9},
        {"t": "complex", "v": ["x", 1]},
        {"t": "generator", "state": {}},
        array_of(dtype="O"),
        array_of(dtype="no"),
        array_of(shape=[2]),
        array_of(shape=[-1]),
        array_of(shape=["1"]),
        array_of(blob=1),
        {"t": "objects", "shape": [3], "v": [1]},
    ],
)
def test_bad_values_are_refused(value):
    grader, _ = pair()
    message = GOOD | {"sizes": [8], "value": value}
    document = grader.read(json.dumps(message).encode(), b"\0" * 8)
    with pytest.raises(WireError, match="bad value"):
        grader.decode(document["value"])


def test_a_byte_that_is_no_truth_value_becomes_one():
    grader, _ = pair()
    value = array_of(dtype="|b1", shape=[8])
    document = grader.read(json.dumps(GOOD | {"sizes": [8], "value": value}).encode(), b"\7" * 8)
    got = grader.decode(document["value"])
    assert got.view(np.uint8).tolist() == [1] * 8


def test_a_change_of_kind_is_refused():
    grader, worker = pair()
    x = [1]
    send(grader, worker, x)
    grader.read(json.dumps(GOOD | {"changes": [[0, {"t": "dict", "v": []}]]}).encode(), b"")
    with pytest.raises(WireError, match="a change of kind"):
        grader.apply_changes()
    grader.read(json.dumps(GOOD | {"changes": [[5, None]]}).encode(), b"")
    with pytest.raises(WireError, match="a change of nothing"):
        grader.apply_changes()
