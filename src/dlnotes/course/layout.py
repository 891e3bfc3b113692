"""Where the pieces of the exercises lie in the repository."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders of a repository (or of a teacher's own exercises) under `root`."""

    root: Path

    @property
    def masters(self) -> list[Path]:
        """The master texts, in order."""
        return sorted(p for p in self.solutions.glob("*.py") if not p.name.startswith("_"))

    @property
    def exercises(self) -> Path:
        """Notebooks for the student."""
        return self.root / "exercises"

    @property
    def solutions(self) -> Path:
        """Master texts and executed solutions."""
        return self.root / "solutions"

    @property
    def visible(self) -> Path:
        """Visible checks; they travel with the package."""
        return self.root / "src" / "dlnotes" / "course" / "checks"

    @property
    def full(self) -> Path:
        """All checks and the typical wrong answers, for the grader."""
        return self.root / "solutions" / "checks"

    def full_file(self, exercise: str) -> Path:
        """The file from which the grader reads one exercise."""
        return self.full / f"{exercise}.json"

    def master(self, exercise: str) -> Path:
        """The master text of one exercise; raises ValueError when there is none."""
        path = self.solutions / f"{exercise}.py"
        if path not in self.masters:
            known = ", ".join(p.stem for p in self.masters) or "none"
            raise ValueError(f"no exercise {exercise!r} in {self.solutions}; there are: {known}")
        return path


def find_layout(start: Path | None = None) -> Layout:
    """Return the layout of the repository around `start` (default: the working folder).

    Looks upwards for a folder that holds `solutions` with masters or built checks, then at the
    source tree that this package was installed from. Raises FileNotFoundError when there is none.
    """
    here = (start or Path.cwd()).resolve()
    source_tree = Path(__file__).resolve().parents[3]
    for folder in (here, *here.parents, source_tree):
        layout = Layout(folder)
        if layout.masters or any(layout.full.glob("*.json")):
            return layout
    raise FileNotFoundError(
        f"no folder with solutions/*.py at or above {here}; "
        "run this inside a clone of the repository, or say where it is with --root"
    )
