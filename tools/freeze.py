"""Print the versions of this environment as constraints.txt holds them.

    python tools/freeze.py

Only what dlnotes and its extras need, directly or indirectly. What only another system needs
(PLATFORM_ONLY) cannot be seen from here and keeps the version that constraints.txt has.
"""

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("book", "lab", "dev")
PLATFORM_ONLY = ("appnope", "colorama", "pywinpty")
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_constraints(path: Path = CONSTRAINTS) -> tuple[list[str], dict[str, str]]:
    """Return the file's comment lines and its versions by name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    pins = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return comments, {name.strip(): version.strip() for name, _, version in pins}


def installed(name: str = "dlnotes", extras: tuple[str, ...] = EXTRAS) -> dict[str, str]:
    """Return the versions of everything that a distribution needs here, itself left out."""
    found: dict[tuple[str, tuple[str, ...]], str] = {}

    def visit(name: str, extras: tuple[str, ...]) -> None:
        key = (canonical(name), tuple(sorted(extras)))
        if key in found:
            return
        this = distribution(name)
        # A local build such as 2.13.0+cpu is the same version for everybody else.
        found[key] = this.version.partition("+")[0]
        for text in this.requires or []:
            need = Requirement(text)
            wanted = need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            if wanted:
                visit(need.name, tuple(need.extras))

    visit(name, extras)
    return {key[0]: version for key, version in found.items() if key[0] != canonical(name)}


def main() -> None:
    comments, pins = read_constraints()
    versions = installed() | {name: pins[name] for name in PLATFORM_ONLY if name in pins}
    print("\n".join(comments))
    for name in sorted(versions):
        print(f"{name}=={versions[name]}")


if __name__ == "__main__":
    main()
