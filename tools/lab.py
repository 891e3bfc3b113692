"""Open the book in JupyterLab.

    python tools/lab.py [JUPYTERLAB OPTION ...]

Where there is no display or no browser, JupyterLab prints the address to open instead.
"""

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST_PAGE = "/lab/tree/notebooks/01_basics.ipynb"


def has_browser() -> bool:
    """Whether a browser with a window can be opened here."""
    graphical = sys.platform in ("darwin", "win32")
    if not (graphical or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def is_root() -> bool:
    """Whether JupyterLab would refuse to start without being told that root is meant."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def command(*options: str, browser: bool, book: Path = ROOT) -> list[str]:
    """Return the command line that opens JupyterLab on the book in the folder `book`."""
    return [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={book}",
        f"--LabApp.default_url={FIRST_PAGE}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if is_root() else []),
        *options,
    ]


def main() -> int:
    browser = has_browser()
    if not browser:
        print("No browser here: open the address that JupyterLab prints below.", flush=True)
    line = command(*sys.argv[1:], browser=browser)
    if os.name != "nt":
        os.execv(line[0], line)  # JupyterLab takes this process's place, and its signals
    try:
        return subprocess.run(line, check=False).returncode
    except KeyboardInterrupt:  # Ctrl-C is how one leaves JupyterLab
        return 0


if __name__ == "__main__":
    sys.exit(main())
