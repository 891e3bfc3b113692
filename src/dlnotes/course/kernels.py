"""Run a kernel of an exercise on the CPU engine, and say in plain values what it did.

The check of a kernel asks for `observe` by `kernel(s, …)`, see docs/exercises.md. In the grader
it runs in a sandboxed process that has never run the student's Python: a notebook that patches
this package, NumPy or the engine changes nothing about how its kernels are seen.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from dlnotes import cuda

_ROW = ("name", "space", "kind", "line", "requests", "bytes", "sectors", "used", "ways", "passes")


def observe(
    source: str, name: str, grid: Any, block: Any, arguments: list, shared_bytes: int = 0
) -> dict[str, Any]:
    """Compile and run the kernel `name` of the text `source` in mode "trace".

    arguments: as for `dlnotes.cuda.Kernel.launch`; arrays are copied, never changed.

    Returns a dict of plain values. `fault`: "" where all is well, else "no kernel", "compile",
    "arguments", "tool" or a kind of `KernelError`; `text`: its message; `arrays`: the arrays after
    the run, by the names of the kernel's parameters; `rows`: the trace's lines as dicts; `totals`:
    its sums. After a fault the last three are empty.
    """
    empty = {"arrays": {}, "rows": [], "totals": {}}
    values = [np.array(v) if isinstance(v, np.ndarray) else v for v in arguments]
    try:
        kernel = cuda.load(source=source, mode="trace").kernel(name)
        trace = kernel.launch(grid, block, *values, shared_bytes=shared_bytes)
    except cuda.CompileError as error:
        text = re.sub(r"\S*[/\\](?=source\.cu)", "", str(error))  # without the cache's folder
        return {"fault": "compile", "text": text, **empty}
    except cuda.KernelError as error:
        return {"fault": error.kind, "text": str(error), **empty}
    except cuda.ToolError as error:
        return {"fault": "tool", "text": str(error), **empty}
    except ValueError as error:
        fault = "no kernel" if "no kernel" in str(error) else "arguments"
        return {"fault": fault, "text": str(error), **empty}
    except TypeError as error:
        return {"fault": "arguments", "text": str(error), **empty}
    arrays = {
        parameter.name: value
        for parameter, value in zip(kernel.parameters, values, strict=True)
        if isinstance(value, np.ndarray)
    }
    rows = [{field: getattr(row, field) for field in _ROW} for row in trace.report()]
    totals = dataclasses.asdict(trace.totals())
    return {"fault": "", "text": "", "arrays": arrays, "rows": rows, "totals": totals}
