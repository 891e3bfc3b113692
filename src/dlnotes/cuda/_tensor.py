"""What kernels for tensor cores take: bfloat16 in NumPy arrays, and tensor maps for TMA."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlnotes import _validate

_ITEM = {"uint16": 2, "bfloat16": 2, "float16": 2, "float32": 4}
_MOST_BOX, _CHUNK, _SWIZZLE = 256, 16, 128  # entries along an axis; bytes; bytes
_MAP_BYTES = 128  # of CUtensorMap, which must begin at a multiple of 64, from CUDA 13 on of 128
_pointer = ctypes.c_void_p
# cuTensorMapEncodeTiled: the map, dtype, dimensions, address; pointers to the sizes, the strides,
# the box's sizes and its strides; interleave, swizzle, promotion in L2, and what lies outside.
_ENCODE = ctypes.CFUNCTYPE(
    *(ctypes.c_int, _pointer, ctypes.c_int, ctypes.c_uint32, _pointer, *[_pointer] * 4),
    *[ctypes.c_int] * 4,
)
_SINCE = 12000  # the version of CUDA, 12.0, that has it


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Return `array` (float32, any shape) as bfloat16: its bits in uint16, of the same shape.

    NumPy has no bfloat16. It is the upper half of a float32: 8 bits of exponent, 7 of fraction.
    What is cut off is rounded to the nearest, ties to even, as a GPU and torch do; NaN stays NaN.

    Raises TypeError for another dtype.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        given = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"array must be a NumPy array of float32, got {given}")
    bits = np.ascontiguousarray(array).view(np.uint32).reshape(array.shape)
    rounded = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(0x7FFF), rounded)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 of bfloat16 numbers whose `bits` are in uint16; nothing is lost.

    Raises TypeError for another dtype.
    """
    if not isinstance(bits, np.ndarray) or bits.dtype != np.uint16:
        given = getattr(bits, "dtype", type(bits).__name__)
        raise TypeError(f"bits must be a NumPy array of uint16, got {given}")
    return (bits.astype(np.uint32) << 16).view(np.float32)


def address(array) -> int:
    """Return where an array's memory begins."""
    return array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data


@dataclass(frozen=True)
class TensorMap:
    """A matrix as TMA copies it, box by box: pass it for a `const __grid_constant__ TensorMap`.

    array: two-dimensional and contiguous, of float32, float16 or bfloat16 (NumPy: uint16). Its rows
    must be multiples of 16 bytes and begin at one. box: (rows, columns) of a copy, 1 … 256 each,
    its rows a multiple of 16 bytes, and 128 bytes at most if swizzled; what of a box lies outside
    the matrix is zero. swizzled: with the swizzle of 128 bytes, which wgmma's operands have in
    shared memory.

    Raises TypeError and ValueError where this does not hold.
    """

    array: Any
    box: tuple[int, int]
    swizzled: bool = True

    def __post_init__(self):
        dtype = str(getattr(self.array, "dtype", type(self.array).__name__))
        item = _ITEM.get(dtype.removeprefix("torch."))
        if item is None:
            raise TypeError(f"array must be of {', '.join(_ITEM)}, got {dtype}")
        if len(self.array.shape) != 2:
            raise ValueError(f"array must have 2 dimensions, got shape {tuple(self.array.shape)}")
        width = self.array.shape[1]
        if 0 in self.array.shape:
            raise ValueError(f"array must not be empty, got shape {tuple(self.array.shape)}")
        if width * item % _CHUNK:
            raise ValueError(
                f"array must have rows of a multiple of {_CHUNK} bytes, got {width} columns of "
                f"{item} bytes: pad them to {width + -width % (_CHUNK // item)}"
            )
        if address(self.array) % _CHUNK:
            raise ValueError(f"array must begin at a multiple of {_CHUNK} bytes: pass a copy")
        for name, size in zip(("rows", "columns"), self.box, strict=True):
            _validate.integer(f"box's {name}", size, low=1, high=_MOST_BOX)
        bytes_of_row = self.box[1] * item
        if bytes_of_row % _CHUNK or (self.swizzled and bytes_of_row > _SWIZZLE):
            most = f", at most {_SWIZZLE}" if self.swizzled else ""
            raise ValueError(
                f"box must have rows of a multiple of {_CHUNK} bytes{most}, got {bytes_of_row}"
            )

    def for_cpu(self, array: np.ndarray) -> bytes:
        """Return the engine's struct TensorMap, with `array` in place of this map's."""
        (rows, columns), item = array.shape, array.itemsize
        box_rows, box_columns = self.box
        fields = (ctypes.c_uint64 * 4)(array.ctypes.data, columns, rows, columns * item)
        box = (ctypes.c_uint32 * 4)(box_columns, box_rows, item, int(self.swizzled))
        return (bytes(fields) + bytes(box)).ljust(_MAP_BYTES, b"\0")

    def for_gpu(self, driver, call) -> bytes:
        """Return the driver's CUtensorMap; `call` raises what its functions report.

        cuda-bindings would make it inside a Python object, at any multiple of 16 bytes, where the
        driver wants 64 or 128. So the driver's own function is asked for and called.
        """
        (rows, columns), item = self.array.shape, self.array.dtype.itemsize
        box_rows, box_columns = self.box
        kinds, dtype = driver.CUtensorMapDataType, str(self.array.dtype).removeprefix("torch.")
        kind = getattr(kinds, f"CU_TENSOR_MAP_DATA_TYPE_{dtype.upper()}")
        swizzle = "128B" if self.swizzled else "NONE"
        settings = (
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        wide, narrow = ctypes.c_uint64, ctypes.c_uint32
        flags = driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT
        status, function, _ = driver.cuGetProcAddress(b"cuTensorMapEncodeTiled", _SINCE, flags)
        call((status,))
        _room, start = aligned(_MAP_BYTES)
        status = _ENCODE(int(function))(
            start, int(kind), 2, address(self.array),
            (wide * 2)(columns, rows), (wide * 1)(columns * item),
            (narrow * 2)(box_columns, box_rows), (narrow * 2)(1, 1),
            *map(int, settings),
        )  # fmt: skip
        call((driver.CUresult(status),))
        return ctypes.string_at(start, _MAP_BYTES)


def aligned(nbytes: int) -> tuple[ctypes.Array, int]:
    """Return a buffer, and where in it nbytes begin at a multiple of 128."""
    room = ctypes.create_string_buffer(nbytes + 128)
    return room, -(-ctypes.addressof(room) // 128) * 128
