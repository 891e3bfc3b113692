"""The table of all data sets."""

from html import escape

from dlnotes.data import _catalogue


class Available(tuple):
    """The rows (name, title, megabytes, full-scale megabytes, licence); shows as a table."""

    COLUMNS = ("name", "what", "MB", "full MB", "licence")

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (name, title, _megabytes(size), _megabytes(full), licence)
            for name, title, size, full, licence in self
        ]

    def __repr__(self) -> str:
        rows = [self.COLUMNS, *self._cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.COLUMNS))]
        right = {2, 3}
        lines = [
            "  ".join(
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in self.COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._cells()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}" if size else "–"


def available() -> Available:
    """Return the table of all data sets: name, what it is, MB bundled, MB at full scale, licence.

    A set without bundled megabytes comes with scikit-learn or by download only.
    """
    return Available(
        (entry.name, entry.title, entry.bytes, entry.full_bytes, entry.licence)
        for entry in _catalogue.entries().values()
    )
