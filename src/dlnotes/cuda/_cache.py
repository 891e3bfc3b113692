"""Compiled kernels on disk, one folder an entry, named by the hash of all that went into it.

An entry appears whole or not at all: it is written beside its place and renamed. Two processes
that want the same one wait for each other at a lock file. Each entry lists the SHA-256 of its
files; one that does not match is built again.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

MANIFEST = "manifest.json"
_fallback: Path | None = None


def chosen() -> Path:
    """Return the cache's folder: DLNOTES_KERNELS, else one in the user's own cache folder."""
    named = os.environ.get("DLNOTES_KERNELS")
    return Path(named).expanduser() if named else _user_cache() / "dlnotes" / "kernels"


def folder() -> Path:
    """Return the folder for what is built: `chosen()`, made where it is missing.

    Where that cannot be written, a temporary folder serves for this process, and a line on stderr
    says so once.
    """
    global _fallback
    if _fallback is not None:
        return _fallback
    path = chosen()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        _fallback = Path(tempfile.mkdtemp(prefix="dlnotes-kernels-"))
        atexit.register(_remove_in, os.getpid(), _fallback)
        print(
            f"dlnotes: {path} cannot be written ({error.strerror}); compiled kernels go to "
            f"{_fallback} until this process ends. Set DLNOTES_KERNELS to a folder to keep them.",
            file=sys.stderr,
        )
        return _fallback


def _remove_in(process: int, place: Path) -> None:
    if os.getpid() == process:  # not in a copy of it
        shutil.rmtree(place, ignore_errors=True)


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def key(*parts: object) -> str:
    """Return the name of the entry made from `parts` (strings, bytes, lists and dicts of them)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of the entry `name`; where it is missing or damaged, `build` fills it.

    `build` gets an empty folder. What it raises goes to the caller, and no entry is left behind. A
    cache that can only be read serves for what it has.
    """
    if _whole(chosen() / name):
        return chosen() / name
    place = folder() / name
    if _whole(place):
        return place
    with _locked(place.with_name(f"{name}.lock")):
        if _whole(place):  # another process was faster
            return place
        new = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=place.parent))
        try:
            build(new)
            sums = {file.name: _sha256(file) for file in sorted(new.iterdir())}
            (new / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
            if place.is_dir():  # damaged
                shutil.rmtree(place, ignore_errors=True)
            else:  # a file has no business there
                place.unlink(missing_ok=True)
            try:
                os.replace(new, place)
            except OSError:
                if not _whole(place):  # else another process was faster after all
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return place


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _whole(place: Path) -> bool:
    try:
        sums = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        return bool(sums) and all(_sha256(place / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on `file`; the system lets go of it when a process dies."""
    with open(file, "w") as handle:
        if sys.platform != "win32":
            import fcntl

            # Where a file system has no locks both build, and the renaming decides.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
