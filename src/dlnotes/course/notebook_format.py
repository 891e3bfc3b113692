"""The one normal form in which every notebook of the book is stored.

Running a notebook twice gives the same bytes: nothing is kept that names a machine, a moment or
a session (time stamps, kernel versions, random cell and widget ids). Everything that writes a
notebook of this repository writes it through `normalize` and `dumps`.
"""

import copy
import hashlib
import os
import re
from pathlib import Path

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# Without "version": it moves with every patch release of Python.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KEPT_CELL_METADATA = frozenset({"deletable", "editable", "jupyter", "slideshow", "tags"})
# A code cell with this tag is folded: long drawing code, which need not be read to follow.
FOLDED = "hide-input"
# Session-bound: the model that they name exists only while the kernel runs.
WIDGET_MIMETYPES = frozenset(
    {"application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"}
)


def cell_id(slug: str, kind: str, source: str, seen: dict[str, int]) -> str:
    """Return an id that follows from the cell's content; `seen` counts equal cells before it."""
    digest = hashlib.sha256(f"{slug}\0{kind}\0{source}".encode()).hexdigest()[:8]
    count = seen.get(digest, 0)
    seen[digest] = count + 1
    return digest if count == 0 else f"{digest}-{count}"


def _merge_streams(outputs: list) -> list:
    """Join neighbouring pieces of one stream, and keep of a progress bar only its last state."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        if (
            last is not None
            and output["output_type"] == last["output_type"] == "stream"
            and output["name"] == last["name"]
        ):
            last["text"] += output["text"]
        else:
            merged.append(output)
    for output in merged:
        if output["output_type"] == "stream":
            output["text"] = re.sub(r"^.*\r(?=[^\n])", "", output["text"], flags=re.MULTILINE)
    return merged


def _normal_output(output: dict, execution_count: int | None) -> dict | None:
    """Return the output without what belongs to a session, or None when nothing is left."""
    if "data" in output:
        for mimetype in WIDGET_MIMETYPES & output["data"].keys():
            del output["data"][mimetype]
            output["metadata"].pop(mimetype, None)
        if not output["data"]:
            return None
    if output["output_type"] == "execute_result":
        output["execution_count"] = execution_count
    if "metadata" in output:
        output["metadata"].pop("execution", None)
    return output


def normalize(nb: dict, slug: str) -> dict:
    """Return a copy of the notebook in normal form; `slug` (the file's stem) seeds the cell ids.

    Cell ids follow from the content; executed cells are numbered 1, 2, …; notebook metadata are
    the book's own; widget views and their state are dropped (a demo's still picture and its text
    stay); code cells with the tag `hide-input` are folded in JupyterLab. Normalising twice changes
    nothing.
    """
    import nbformat

    nb = copy.deepcopy(nb)
    nb["nbformat"], nb["nbformat_minor"] = 4, 5
    nb["metadata"] = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO})
    seen: dict[str, int] = {}
    executed = 0
    for cell in nb["cells"]:
        kept = {k: v for k, v in sorted(cell["metadata"].items()) if k in KEPT_CELL_METADATA}
        if FOLDED in kept.get("tags", []):
            kept["jupyter"] = {**kept.get("jupyter", {}), "source_hidden": True}
        cell["metadata"] = nbformat.from_dict(kept)
        cell["id"] = cell_id(slug, cell["cell_type"], cell["source"], seen)
        if cell["cell_type"] != "code":
            continue
        if cell["execution_count"] is not None:
            executed += 1
            cell["execution_count"] = executed
        normal = (_normal_output(o, cell["execution_count"]) for o in cell["outputs"])
        cell["outputs"] = _merge_streams([o for o in normal if o is not None])
    nbformat.validate(nb)
    return nb


def dumps(nb: dict) -> str:
    """Return the notebook's text as it is stored: keys sorted, one space of indent, UTF-8."""
    import nbformat

    return nbformat.writes(nb, version=4) + "\n"


def execute(nb: dict, cwd: str | Path, timeout: int | float = 600) -> dict:
    """Run every cell in a fresh kernel that starts in `cwd` and return the executed copy.

    Not normalised yet. `timeout` is in seconds and for one cell. Raises
    nbclient.exceptions.CellExecutionError when a cell fails, CellTimeoutError when one is slow
    and DeadKernelError when the kernel dies. The kernel gets DLNOTES_PROGRESS=0, so that no
    progress bar is stored, and a fixed hash seed.
    """
    from nbclient import NotebookClient

    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    client = NotebookClient(
        nb,
        timeout=timeout,
        startup_timeout=120,
        kernel_name="python3",
        record_timing=False,  # time stamps would differ each time
        store_widget_state=False,
        resources={"metadata": {"path": str(cwd)}},
        # The history data base is shared by all kernels: not while several run at once.
        extra_arguments=["--HistoryManager.hist_file=:memory:"],
    )
    client.execute(env={**os.environ, "DLNOTES_PROGRESS": "0", "PYTHONHASHSEED": "0"})
    return nb
