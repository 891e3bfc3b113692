"""Download a large file once: resumed when interrupted, checked, and never left half-written.

pooch keeps the cache: it checks the SHA-256 and moves a file into place only when it is right.
What pooch lacks is given to it as a downloader: a partial file stays beside the cache entry as
`NAME.part` and the next attempt asks the server for the rest of it (HTTP Range).
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dlnotes.data._catalogue import CorruptFileError, Remote, sha256

ATTEMPTS = 4
CONNECT_SECONDS, READ_SECONDS = 10, 60
_FIRST_PAUSE = 1.0  # seconds; doubled after each failed attempt
_CHUNK = 1 << 16
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_verified: set[Path] = set()


class DownloadError(OSError):
    """A file could not be downloaded; the message says what can be done."""


class _Interrupted(Exception):
    """The transfer stopped early; another attempt may go on from there."""


def cache_folder() -> Path:
    """Return the folder of the downloads: DLNOTES_DATA, or the system's cache folder."""
    import pooch

    chosen = os.environ.get("DLNOTES_DATA")
    return Path(chosen).expanduser().resolve() if chosen else Path(pooch.os_cache("dlnotes"))


def fetch(remote: Remote) -> Path:
    """Return the path of a downloaded file; download it first when it is not in the cache.

    A file in the cache is checked against its SHA-256 once per process and downloaded again when
    it is damaged. A cache that cannot be written is good enough when the file is there.

    Raises `DownloadError` when the server cannot be reached, PermissionError when the cache
    folder cannot be written, and `CorruptFileError` when what arrives has another checksum.
    """
    import pooch

    folder = cache_folder()
    path = folder / remote.name
    if _is_right(path, remote):
        return path
    _make_writable(path.parent)
    with _lock(path.parent / f".{path.name}.lock"):
        if _is_right(path, remote):  # another process was faster
            return path
        downloader = _Resume(remote, path)
        for fresh in (False, True):
            if fresh:
                downloader.part.unlink(missing_ok=True)
            try:
                pooch.retrieve(
                    remote.url,
                    known_hash=f"sha256:{remote.sha256}",
                    fname=path.name,
                    path=path.parent,
                    downloader=downloader,
                )
                break
            except ValueError as error:
                # A continued file may join two versions of it: try once from the start.
                if fresh or not downloader.resumed:
                    raise CorruptFileError(
                        f"what {remote.url} sent is not {remote.name}: its SHA-256 should be "
                        f"{remote.sha256} but is {downloader.found}; it was deleted. "
                        "Try again later, and if it stays so, report it"
                    ) from error
    _verified.add(path)
    return path


def _is_right(path: Path, remote: Remote) -> bool:
    """Say whether the file is there and is the one that the manifest names."""
    if not path.is_file():
        _verified.discard(path)
        return False
    if path not in _verified:
        if path.stat().st_size != remote.bytes or sha256(path) != remote.sha256:
            return False
        _verified.add(path)
    return True


def _make_writable(folder: Path) -> None:
    """Create the folder; raise PermissionError with what to do when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(
            f"the download folder {folder} cannot be written ({error.strerror or error}); set the "
            "environment variable DLNOTES_DATA to a folder that can. "
            "The default scale needs neither folder nor network"
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time download a file (two would write into the same partial one)."""
    with path.open("a+b") as stream:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # gave up after ten seconds: somebody is still downloading
                    continue
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class _Resume:
    """A downloader for pooch that goes on where the last attempt stopped."""

    def __init__(self, remote: Remote, path: Path):
        self.remote = remote
        self.part = path.with_name(path.name + ".part")
        self.resumed = False
        self.found = ""

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file` (pooch's protocol)."""
        self.resumed = self._have() > 0
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                self._transfer(url)
                break
            except _Interrupted as error:
                reason = error
        else:
            raise DownloadError(self._advice(url, reason)) from reason
        self.found = sha256(self.part)
        os.replace(self.part, output_file)

    def _have(self) -> int:
        """Return the size of the partial file in bytes; 0 when there is none."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _transfer(self, url: str) -> None:
        """Make one request for what is missing and append it to the partial file."""
        import requests
        import urllib3

        if self._have() > self.remote.bytes:
            self.part.unlink()
        have = self._have()
        if have == self.remote.bytes:
            return
        # "identity": the bytes as they lie on the server, so that sizes and offsets agree.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
            ) as response:
                self._check_status(url, response.status_code)
                begins = f"bytes {have}-"
                goes_on = response.status_code == 206 and response.headers.get(
                    "Content-Range", ""
                ).startswith(begins)
                self._write(response.raw, have if goes_on else 0)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _Interrupted(_plain(error)) from error
        if self._have() != self.remote.bytes:
            raise _Interrupted(f"the transfer ended after {self._have():,} bytes")

    def _check_status(self, url: str, status: int) -> None:
        """Raise for an answer that brings no data."""
        if status == 416:  # the server cannot go on from there: start again
            self.part.unlink(missing_ok=True)
            raise _Interrupted("the server refused to continue a partial download")
        if status in _WORTH_RETRYING:
            raise _Interrupted(f"the server answered with status {status}")
        if status not in (200, 206):
            raise DownloadError(self._advice(url, f"the server answered with status {status}"))

    def _write(self, raw, have: int) -> None:
        """Append the body of an answer to the first `have` bytes, showing progress."""
        from tqdm import tqdm

        with (
            self.part.open("ab" if have else "wb") as stream,
            tqdm(
                desc=self.remote.name,
                total=self.remote.bytes,
                initial=have,
                unit="B",
                unit_scale=True,
                disable=not _shows_progress(),
            ) as bar,
        ):
            for chunk in raw.stream(_CHUNK, decode_content=False):
                have += len(chunk)
                if have > self.remote.bytes:
                    break  # not our file; the check of the size after it says so
                stream.write(chunk)
                bar.update(len(chunk))
        if have > self.remote.bytes:
            self.part.unlink()
            raise _Interrupted(f"the server sent more than the {self.remote.bytes:,} bytes")

    def _advice(self, url: str, reason: object) -> str:
        """Say what failed and what the reader can do."""
        name = self.remote.name.split("/")[0]
        kept = self._have()
        return (
            f"could not download {self.remote.name} ({self.remote.bytes / 1e6:.1f} MB) from {url}: "
            f"{reason}.\n"
            "This is needed at full scale only; the default scale uses the bundled data and no "
            "network (leave DLNOTES_SCALE unset, or load with full=False).\n"
            "To go on at full scale: check the connection and run again"
            + (f" ({kept:,} bytes are kept and will be continued)" if kept else "")
            + f"; or fetch the file on another machine and put it into {self.part.parent}; "
            f"or set DLNOTES_DATA to a folder that holds {name}/."
        )


def _plain(error: Exception) -> str:
    """Reduce a network library's nested error to one line."""
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service" in text:
        return "the server's name could not be resolved (is this machine offline?)"
    if "refused" in text:
        return "the connection was refused"
    if "timed out" in text.lower():
        return "the server did not answer in time"
    return f"the connection failed ({type(error).__name__})"


def _shows_progress() -> bool:
    """Show a bar in a terminal or a notebook, unless DLNOTES_PROGRESS=0."""
    if os.environ.get("DLNOTES_PROGRESS") == "0":
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules
