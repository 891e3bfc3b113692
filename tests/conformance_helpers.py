"""How the conformance tests keep count: every case of a suite passes, fails or has a reason."""

import re
from collections import Counter


class Report:
    """What became of the cases of somebody else's test suite.

    `reasons` maps a pattern, searched in "case: what our error says", to why it is not covered. A
    case ends as passed, as not covered for one of them, or as failed; `check` asserts that none
    failed and that every reason was needed.
    """

    def __init__(self, suite: str, reasons: dict[str, str]):
        self.suite, self.reasons = suite, reasons
        self.passed, self.used, self.failed = Counter(), Counter(), []

    def run(self, group: str, case: str, agrees) -> None:
        """Count one case; `agrees` returns whether it passes, and raises where we refuse."""
        try:
            right = agrees()
        except (ValueError, TypeError, NotImplementedError) as error:
            self.excuse(group, case, str(error) or type(error).__name__)
            return
        if right:
            self.passed[group] += 1
        else:
            self.failed.append(f"{group}: {case}: another value")

    def excuse(self, group: str, case: str, message: str) -> None:
        """Count a case as not covered if there is a reason, else as failed."""
        for pattern in self.reasons:
            if re.search(pattern, f"{group}: {message}"):
                self.used[pattern] += 1
                return
        self.failed.append(f"{group}: {case}: {message}")

    def check(self, capsys, at_least: int) -> None:
        """Print the summary; assert that nothing failed, no reason idles, enough has passed."""
        with capsys.disabled():
            print(
                f"\n{self.suite}: {self.passed.total()} passed, {len(self.failed)} failed, "
                f"{self.used.total()} not covered"
            )
            for pattern, count in self.used.items():
                print(f"  {count} × {self.reasons[pattern]}")
        assert not self.failed, "\n".join(self.failed)
        unused = [pattern for pattern in self.reasons if not self.used[pattern]]
        assert not unused, f"reasons that no case needs any more: {unused}"
        assert self.passed.total() >= at_least
