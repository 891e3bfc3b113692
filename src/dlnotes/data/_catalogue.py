"""The manifest: what is bundled, with licence, source and checksum; and its files, verified."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOM = Path(__file__).parent
FILES = _ROOM / "files"
DATASHEETS = _ROOM / "datasheets"
MANIFEST = _ROOM / "manifest.json"
_CHUNK = 1 << 20


class CorruptFileError(ValueError):
    """A data file is not, byte for byte, the one that the manifest names."""


@dataclass(frozen=True)
class File:
    """One bundled file: its name below `files/`, its size and its SHA-256."""

    name: str
    bytes: int
    sha256: str
    licence: str = ""  # of this one file, where it is not the set's
    attribution: str = ""


@dataclass(frozen=True)
class Remote:
    """One file of a full-scale set: where it is downloaded from and what it must be."""

    name: str
    url: str
    bytes: int
    sha256: str
    sha256_unpacked: str = ""


@dataclass(frozen=True)
class Entry:
    """One data set of the manifest."""

    name: str
    kind: str
    title: str
    licence: str
    source: str
    attribution: str
    citation: str
    files: tuple[File, ...] = ()
    full: tuple[Remote, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the bundled files in bytes."""
        return sum(file.bytes for file in self.files)

    @property
    def full_bytes(self) -> int:
        """Size of the full-scale download in bytes; 0 where there is none."""
        return sum(file.bytes for file in self.full)

    @property
    def datasheet(self) -> str:
        """The data sheet, as Markdown."""
        return (DATASHEETS / f"{self.name}.md").read_text(encoding="utf-8")


@cache
def entries() -> dict[str, Entry]:
    """Return the manifest: name of the data set → its entry, in the order of the manifest."""
    raw = json.loads(MANIFEST.read_text(encoding="utf-8"))
    result = {}
    for name, fields in raw["sets"].items():
        fields["files"] = tuple(File(**file) for file in fields.get("files", ()))
        fields["full"] = tuple(Remote(**file) for file in fields.get("full", ()))
        result[name] = Entry(name=name, **fields)
    return result


def entry(name: str) -> Entry:
    """Return the entry of the data set `name`.

    Raises TypeError when `name` is not a string and ValueError, with the names that
    exist, when there is no such set.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    if name not in entries():
        raise ValueError(f"name must be one of {', '.join(entries())}; got {name!r}")
    return entries()[name]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def _verified(path: Path, expected: str) -> Path:
    """Check one file against its checksum, once per process (failures are not cached)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"the data file {path.name} is missing from {path.parent}; "
            "install dlnotes again, for example with `pip install --force-reinstall dlnotes`"
        )
    found = sha256(path)
    if found != expected:
        raise CorruptFileError(
            f"the data file {path} is damaged: its SHA-256 should be {expected} but is {found}; "
            "install dlnotes again, or restore the file from the repository"
        )
    return path


def bundled(name: str, file: str | None = None) -> Path:
    """Return the verified path of a bundled file; `file` is needed when there are several."""
    found = entry(name)
    names = [each.name for each in found.files]
    if not names:
        raise ValueError(
            f"{name!r} has no file in the package: "
            + (
                f"load({name!r}, full=True) downloads it"
                if found.full
                else f"load({name!r}) takes it from scikit-learn"
            )
        )
    if file is None:
        if len(names) > 1:
            raise ValueError(f"{name!r} has several files; file must be one of {', '.join(names)}")
        file = names[0]
    if file not in names:
        raise ValueError(f"file must be one of {', '.join(names)}; got {file!r}")
    record = found.files[names.index(file)]
    return _verified(FILES / record.name, record.sha256)
