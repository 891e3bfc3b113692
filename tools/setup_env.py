"""Create the environment `.venv` and install the book with the versions of constraints.txt.

    python3 tools/setup_env.py [--latest]

Needs nothing but Python 3.11 or newer. When nothing has changed since the last time it does
nothing, in a fraction of a second and without the network. With --latest it ignores
constraints.txt (the weekly test of the newest versions).
"""

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "dlnotes-installed.txt"
OLDEST = (3, 11)


def fingerprint(latest: bool) -> str:
    """Name what an installation depends on: the two files, the place, the choice of versions."""
    digest = hashlib.sha256(f"{ROOT}\n{latest}\n".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works() -> bool:
    """Whether the environment has a Python that starts and is new enough."""
    if not PYTHON.exists():
        return False
    test = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([PYTHON, "-c", test], check=False).returncode == 0


def run(*command: str) -> None:
    done = subprocess.run([str(PYTHON), "-m", "pip", *command], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pip {' '.join(command)} failed (see above); run the command again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latest", action="store_true", help="ignore constraints.txt")
    latest = parser.parse_args().latest
    if sys.version_info < OLDEST:
        raise SystemExit(
            f"dlnotes needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this is Python "
            f"{sys.version.split()[0]}. Install a newer one, or name it: "
            "make PYTHON=/path/to/python3 …"
        )
    wanted = fingerprint(latest)
    if works() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        return
    if not works():
        print(f"Creating the environment .venv with Python {sys.version.split()[0]} …", flush=True)
        try:
            venv.create(ENVIRONMENT, with_pip=True, clear=ENVIRONMENT.exists())
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                "This Python cannot make virtual environments. On Debian and Ubuntu install "
                "its package python3-venv and try again."
            ) from error
    print("Installing (minutes the first time, most of it PyTorch) …", flush=True)
    STAMP.unlink(missing_ok=True)
    constraints = [] if latest else ["--constraint", "constraints.txt"]
    newest = ["--upgrade", "--upgrade-strategy", "eager"] if latest else []
    run("install", "--quiet", *newest, *constraints, "--editable", ".[book,lab,dev]")
    STAMP.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
