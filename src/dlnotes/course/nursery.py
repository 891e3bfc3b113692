"""A process that has the libraries loaded and forks a fresh child for each submission.

Loading NumPy and Matplotlib takes longer than grading most notebooks; a fork has them at once.
The nursery runs inside the sandbox, shows itself to no debugger, and between two submissions ends
every process that the last one left behind and empties the folders that it could write to.

`python -m dlnotes.course.nursery FD PARENT_PID_NAMESPACE WORK [FOLDER …]` talks to the
grader over the socket FD; `dlnotes.course.sandbox` builds the command.
"""

import contextlib
import ctypes
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

FILE_LIMIT = 64 << 20  # bytes of one file that a submission may write
PROCESS_LIMIT = 2048
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 24, 36, 38


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _drop_rights() -> None:
    """Give up every capability for good: a sandbox of user namespaces starts with all of them."""
    if sys.platform != "linux":
        return
    for capability in range(64):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    nothing = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None, use_errno=True).capset(header, nothing)


def _own_namespace(parents: str) -> bool:
    """Whether this process sees only the sandbox's processes, so that it may kill all it sees."""
    try:
        return bool(parents) and os.readlink("/proc/self/ns/pid") != parents
    except OSError:
        return False


def _children() -> list[int]:
    me, found = os.getpid(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == me:
            found.append(int(entry.name))
    return found


def _end_all(child: int, alone: bool) -> None:
    """End the submission's process and everything that it started."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if alone:
            targets = [-1]
        elif sys.platform == "linux":
            targets = _children()  # orphans come to the nursery, which is their reaper
        else:
            targets = [-child] if child > 0 else []
        for target in targets:
            try:
                os.kill(target, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _empty(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def _limit(memory: int) -> None:
    import resource

    def lower(what: int, value: int) -> None:
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, FILE_LIMIT)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)
        lower(resource.RLIMIT_NPROC, PROCESS_LIMIT)


def _begin(control: socket.socket, sock: socket.socket, memory: int, work: str) -> int:
    child = os.fork()
    if child:
        sock.close()
        return child
    status = 1
    try:
        control.close()
        os.setsid()
        _prctl(_PR_SET_DUMPABLE, 1)
        os.chdir(work)
        _limit(memory)
        from dlnotes.course import worker

        worker.serve(sock)
        status = 0
    finally:
        os._exit(status)


def _load(names: list[str]) -> None:
    for name in names:
        with contextlib.suppress(Exception):  # a notebook that needs it will say so itself
            importlib.import_module(name)


def main(arguments: list[str]) -> None:
    """Serve until the grader hangs up."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    alone, work = _own_namespace(arguments[1]), arguments[2]
    folders = [work, *arguments[3:]]
    _drop_rights()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _load(["numpy", "dlnotes.course.worker"])
    _prctl(_PR_SET_DUMPABLE, 0)
    control.sendall(json.dumps({"ready": True, "alone": alone}).encode() + b"\n")
    child = 0
    while True:
        readable, _, _ = select.select([control], [], [], 0.02 if child else None)
        if readable:
            data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not data:
                break
            request = json.loads(data)
            if "begin" in request:
                sock = socket.socket(fileno=descriptors[0])
                child = _begin(control, sock, request["memory"], work)
            elif "load" in request:
                _load(request["load"])
                control.sendall(b'{"loaded": true}\n')
            else:
                _end_all(child, alone)
                child = 0
                for folder in folders:
                    _empty(folder)
                control.sendall(b'{"ended": true}\n')
        if child:
            try:
                done, status = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                done, status = child, 0
            if done:
                code = os.waitstatus_to_exitcode(status)
                control.sendall(json.dumps({"died": code}).encode() + b"\n")
                _end_all(child, alone)
                child = 0
    if child:
        _end_all(child, alone)


if __name__ == "__main__":
    main(sys.argv[1:])
