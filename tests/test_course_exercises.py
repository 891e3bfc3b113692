"""The book's own exercises: built files in step, and every answer marked as it must be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlnotes.course import build
from dlnotes.course.layout import Layout

LAYOUT = Layout(Path(__file__).resolve().parents[1])
NAMES = [path.stem for path in LAYOUT.masters]


@pytest.mark.parametrize("name", NAMES)
def test_built_files_are_in_step_with_the_master(name):
    # Not executed here: the stored outputs are compared with the other notebooks'.
    files = build.build(LAYOUT, name, execute=False)
    assert build.differences(files, LAYOUT.root) == []


@pytest.mark.timeout(1200)  # a minute for the longest, several where other work shares the cores
@pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs Linux or macOS")
@pytest.mark.parametrize("name", NAMES)
def test_blank_solution_and_wrong_answers_get_what_they_must(name):
    # A process of its own: checking the type of every value that crosses takes minutes.
    command = [sys.executable, "-m", "dlnotes.cli", "check-exercises", name]
    done = subprocess.run(
        [*command, "--root", LAYOUT.root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
