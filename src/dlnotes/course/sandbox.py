"""Where a student's code runs: no network, nothing to read but Python, nowhere to write but its
own folder.

Two ways exist on Linux, tried in this order: bubblewrap, and user namespaces with `unshare`.
`find` tries each with a probe that attempts what must fail. Elsewhere, or where the system forbids
both, code runs with the teacher's own rights, only limited in time and memory, and every result
says `sandbox: none`.
"""

import contextlib
import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

SPACE = 256 << 20  # bytes of the folders that a submission may write to
WORK = "/submission"
KINDS = ("bubblewrap", "namespaces", "none")

_PROBE = """
import os, socket, sys
import numpy, dlnotes.course.wire
secret, work = sys.argv[1:]
bad = []
if os.path.exists(secret): bad.append("a private file is visible")
for name in (os.path.dirname(numpy.__file__), "/", "/usr"):
    try:
        open(os.path.join(name, "dlnotes-probe"), "w").close(); bad.append(f"{name} is writable")
    except OSError: pass
open(os.path.join(work, "probe"), "w").close(); os.unlink(os.path.join(work, "probe"))
if any(name != "lo" for _, name in socket.if_nameindex()): bad.append("a network is there")
print("; ".join(bad) or "sealed")
"""


@dataclass(frozen=True)
class Sandbox:
    """One way to run code; `hidden` are folders that must not be visible even inside others."""

    kind: str
    hidden: tuple[str, ...] = ()

    def command(self, program: list[str], work: str) -> list[str]:
        """Return the command that runs `program` with the work folder `work` (WORK inside)."""
        if self.kind == "bubblewrap":
            return [*_bubblewrap(self.hidden), *program]
        if self.kind == "namespaces":
            return [*_namespaces(self.hidden), *program]
        return program

    @property
    def sealed(self) -> bool:
        """Whether there is any."""
        return self.kind != "none"


def environment(work: str) -> dict[str, str]:
    """Return the environment of a student's code: fixed, and without the teacher's."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": work,
        "TMPDIR": work,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": f"{work}/.matplotlib",
        "DLNOTES_PROGRESS": "0",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(_package().parent),
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: the nursery forks
        **{f"{name}_NUM_THREADS": "1" for name in threads},
        # Which compiler builds the kernels of an exercise, where somebody has chosen one.
        **{name: os.environ[name] for name in ("DLNOTES_CXX",) if name in os.environ},
    }


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _readable() -> list[str]:
    """Return what Python needs to run: the system's libraries, Python's and this package."""
    paths = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/alternatives"]
    paths += ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"]
    paths += ["/etc/fonts", "/etc/mime.types", "/etc/passwd"]
    paths += [sys.prefix, sys.base_prefix, sys.exec_prefix, str(_package())]
    paths += [str(Path(sys.executable).resolve().parent.parent)]
    paths += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    found: list[str] = []
    for path in sorted({os.path.normpath(p) for p in paths if os.path.exists(p)}):
        if path != "/" and not any(path.startswith(f"{parent}/") for parent in found):
            found.append(path)
    return found


def _masked(hidden: tuple[str, ...]) -> list[str]:
    """Return those hidden folders that lie inside what is readable, as the sandbox names them."""
    inside = set()
    for path in (os.path.realpath(h) for h in hidden if os.path.isdir(h)):
        for parent in _readable():
            real = os.path.realpath(parent)
            if path == real or path.startswith(f"{real}/"):
                inside.add(parent + path[len(real) :])
    return sorted(inside)


def _bubblewrap(hidden: tuple[str, ...]) -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--hostname", "sandbox"]
    for path in ("/tmp", WORK):
        command += ["--size", str(SPACE), "--tmpfs", path]
    for path in _readable():
        command += ["--ro-bind", os.path.realpath(path), path]
    for path in _masked(hidden):
        command += ["--tmpfs", path, "--remount-ro", path]
    return [
        *command,
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--remount-ro",
        "/",
        "--chdir",
        WORK,
        "--",
    ]


def _namespaces(hidden: tuple[str, ...]) -> list[str]:
    """A new root on a tmpfs, put together by a shell script as bubblewrap would."""
    readable = _readable()
    real = [os.path.realpath(path) for path in readable]
    free = (base for base in ("/mnt", "/media", "/srv", "/opt", "/home") if os.path.isdir(base))
    base = next(b for b in free if not any(r == b or r.startswith(f"{b}/") for r in real))
    lines = ["set -e", f"mount -t tmpfs -o mode=755 tmpfs {base}", f"cd {base}"]
    lines += [f"mkdir -p proc dev old tmp .{WORK}"]
    lines += [f"mount -t tmpfs -o size={SPACE} tmpfs .{path}" for path in ("/tmp", WORK)]
    for path, source in zip(readable, real, strict=True):
        inside = shlex.quote(f".{path}")
        lines += [
            f"mkdir -p {shlex.quote('.' + os.path.dirname(path))}",
            f"{'mkdir -p' if os.path.isdir(path) else 'touch'} {inside}",
            f"mount --bind {shlex.quote(source)} {inside}",
            f"mount -o remount,bind,ro,nosuid,nodev {inside}",
        ]
    lines += [f"mount -t tmpfs -o ro tmpfs {shlex.quote('.' + path)}" for path in _masked(hidden)]
    lines += ["mount -t proc proc proc"]
    for name in ("null", "zero", "random", "urandom"):
        lines += [f"touch dev/{name}", f"mount --bind /dev/{name} dev/{name}"]
    lines += [
        "mkdir dev/shm",
        f"mount -t tmpfs -o size={SPACE} tmpfs dev/shm",
        "pivot_root . old",
        "umount -l /old",
        "mount -o remount,ro /",
        f"cd {WORK}",
        'exec "$@"',
    ]
    flags = "--user --map-root-user --net --mount --pid --ipc --uts --fork --kill-child"
    return ["unshare", *flags.split(), "--", "/bin/sh", "-c", "\n".join(lines), "sh"]


def _works(sandbox: Sandbox) -> str:
    """Return "" when the sandbox keeps what it promises, else what is wrong with it."""
    home = os.path.expanduser("~")
    with tempfile.NamedTemporaryFile(dir=home if os.access(home, os.W_OK) else None) as secret:
        command = sandbox.command([sys.executable, "-c", _PROBE, secret.name, WORK], WORK)
        try:
            done = subprocess.run(
                command,
                env=environment(WORK),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.stdout.strip() == "sealed":
        return ""
    return (done.stdout.strip() or done.stderr.strip().splitlines()[-1:] or ["?"])[-1][:200]


def find(wanted: str = "auto", hidden: tuple[str, ...] = ()) -> Sandbox:
    """Return the first kind of sandbox that works here.

    `wanted` is "auto", or one of KINDS, which must then work. Raises ValueError for an unknown
    kind and RuntimeError when the wanted one does not work here.
    """
    if wanted not in ("auto", *KINDS):
        raise ValueError(f"sandbox must be auto or one of {', '.join(KINDS)}, got {wanted!r}")
    if wanted == "none":
        return Sandbox("none", hidden)
    reasons = []
    programs = {"bubblewrap": "bwrap", "namespaces": "unshare"}
    for kind in KINDS[:2] if wanted == "auto" else (wanted,):
        if sys.platform != "linux" or shutil.which(programs[kind]) is None:
            reasons.append(f"{kind}: {programs[kind]} is not installed")
            continue
        sandbox = Sandbox(kind, hidden)
        reason = _works(sandbox)
        if not reason:
            return sandbox
        reasons.append(f"{kind}: {reason}")
    if wanted != "auto":
        raise RuntimeError(f"the sandbox {wanted} does not work here ({'; '.join(reasons)})")
    return Sandbox("none", hidden)


@contextlib.contextmanager
def work_folder(sandbox: Sandbox):
    """Give the folder in which the code runs: WORK in a sandbox, a temporary one without."""
    if sandbox.sealed:
        yield WORK
    else:
        with tempfile.TemporaryDirectory(prefix="dlnotes-", ignore_cleanup_errors=True) as folder:
            yield folder
