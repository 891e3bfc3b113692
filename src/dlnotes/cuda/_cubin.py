"""What a kernel's machine code takes of a multiprocessor, read from the cubin, an ELF file.

Sections and attributes as NVIDIA's `cuobjdump --dump-elf` names them: `.nv.info` holds, by symbol,
EIATTR_REGCOUNT and EIATTR_MIN_STACK_SIZE; the size of `.nv.shared.NAME` is static shared memory.
From sm_90 on its first KB is the driver's; a section `.nv.shared.reserved.0` tells.
`.nv.info.NAME` holds an EIATTR_KPARAM_INFO for each parameter.
"""

import struct
from dataclasses import dataclass

_REGISTERS, _STACK = 0x2F, 0x12  # EIATTR_REGCOUNT, EIATTR_MIN_STACK_SIZE
_RESERVED, _RESERVED_BYTES = ".nv.shared.reserved.0", 1024
_PARAMETER = 0x17  # EIATTR_KPARAM_INFO: index (4 bytes), ordinal, offset (2 each), size << 18
_VALUE_BY_SIZE = 0x04  # the attribute's data follow, as long as its last field says


@dataclass(frozen=True)
class Resources:
    """What one kernel takes.

    registers: of each thread. shared_bytes: static, of each block, as the kernel declares it; what
    a launch asks for comes on top, and 1 KB that the driver keeps from sm_80 on. stack_bytes: of
    each thread in local memory, which lies in the card's main memory: arrays indexed by numbers
    unknown to the compiler, and registers that did not fit (*spills*).
    """

    registers: int
    shared_bytes: int
    stack_bytes: int


def resources(cubin: bytes, symbol: str) -> Resources:
    """Return what the kernel `symbol` of a cubin takes.

    Raises ValueError where the bytes are no cubin or it has no such kernel.
    """
    if cubin[:4] != b"\x7fELF" or len(cubin) < 64:
        raise ValueError("these bytes are no cubin: an ELF file begins otherwise")
    sections = _sections(cubin)
    names = _symbols(cubin, sections)
    if symbol not in names:
        raise ValueError(f"no kernel {symbol!r} in this cubin")
    number = names[symbol]
    found = {_REGISTERS: 0, _STACK: 0}
    for attribute, data in _attributes(cubin, sections[".nv.info"]):
        if attribute in found and len(data) == 8:
            index, value = struct.unpack("<II", data)
            if index == number:
                found[attribute] = value
    _, _, shared = sections.get(f".nv.shared.{symbol}", (0, 0, 0))
    if _RESERVED in sections:
        shared = max(shared - _RESERVED_BYTES, 0)
    return Resources(found[_REGISTERS], shared, found[_STACK])


def parameter_bytes(cubin: bytes, symbol: str) -> list[int]:
    """Return how many bytes each parameter of the kernel `symbol` takes, in their order.

    The driver tells as much by cuFuncGetParamInfo, but only from CUDA 12.4 on.
    """
    sections = _sections(cubin)
    if f".nv.info.{symbol}" not in sections:
        raise ValueError(f"no kernel {symbol!r} in this cubin")
    sizes = {}
    for attribute, data in _attributes(cubin, sections[f".nv.info.{symbol}"]):
        if attribute == _PARAMETER:
            _, ordinal, _, word = struct.unpack("<IHHI", data)
            sizes[ordinal] = word >> 18
    return [sizes[i] for i in range(len(sizes))]


def _sections(cubin: bytes) -> dict[str, tuple[int, int, int]]:
    """Return (link, offset, size) of each section by name."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    each, count, of_names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + i * each) for i in range(count)]
    texts = headers[of_names][4]
    return {_text(cubin, texts + h[0]): (h[6], h[4], h[5]) for h in headers}


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _symbols(cubin: bytes, sections) -> dict[str, int]:
    """Return the number of each symbol by name."""
    _, start, size = sections[".symtab"]
    texts = sections[".strtab"][1]
    entries = range(start, start + size, 24)
    return {
        _text(cubin, texts + struct.unpack_from("<I", cubin, at)[0]): number
        for number, at in enumerate(entries)
    }


def _attributes(cubin: bytes, section: tuple[int, int, int]):
    """Yield (attribute, data) of an .nv.info section."""
    _, at, size = section
    end = at + size
    while at < end:
        form, attribute, value = struct.unpack_from("<BBH", cubin, at)
        at += 4
        length = value if form == _VALUE_BY_SIZE else 0
        yield attribute, cubin[at : at + length]
        at += length
