"""How many films were read from a place, how many were not, and why."""

from collections import defaultdict
from dataclasses import dataclass, field

# reasons that somebody asked for, which data.strict lets pass
ASKED = ("other split", "excluded finding", "sample sheet")


@dataclass
class FilmCount:
    """Printed, it is a line: "1,470 films; 31 skipped: 28 quality_flag, 3 not found (row 5, 9)"."""

    films: int = 0
    skipped: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def skip(self, reason: str, row: int = 0) -> None:
        """row: of the table, as a spreadsheet numbers them, and never a patient's file name"""
        self.skipped[reason].append(row)

    def note(self, number: int, what: str) -> None:
        """A remark about `number` films that were read nevertheless; none about 0."""
        self.notes += [f"{number:,} {what}"] if number else []

    def faults(self) -> str:
        """What was skipped though nobody asked for it; "" for nothing."""
        return ", ".join(self._reason(name) for name in self.skipped if name not in ASKED)

    def __str__(self) -> str:
        total = sum(map(len, self.skipped.values()))
        skipped = f"{total:,} skipped: {', '.join(map(self._reason, self.skipped))}"
        return "; ".join([f"{self.films:,} films", *([skipped] if total else []), *self.notes])

    def _reason(self, name: str) -> str:
        """With the first rows, by which the fault is found."""
        rows = [str(row) for row in self.skipped[name][:3] if row]
        more = ", ..." if len(self.skipped[name]) > 3 else ""
        return f"{len(self.skipped[name]):,} {name}" + (
            f" (row {', '.join(rows)}{more})" * bool(rows)
        )
