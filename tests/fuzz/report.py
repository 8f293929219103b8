"""What the fuzzer saw: per operation the calls, the successes, the statuses, and what was wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

#: Fewer successes than this, and an operation was not really reached.
ENOUGH = 20


@dataclass(kw_only=True)
class Seen:
    """One operation."""

    label: str
    documented: frozenset[int]
    statuses: Counter[int] = field(default_factory=Counter)
    #: 405 to methods this path does not have.
    other_methods: int = 0
    #: Calls without an answer.
    broken: int = 0
    #: What a check found, with the first request that showed it.
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How many answers there were."""
        return self.statuses.total() + self.other_methods + self.broken

    @property
    def successes(self) -> int:
        """Answers of 2xx and 3xx."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 400)

    @property
    def server_errors(self) -> int:
        """Answers of 5xx."""
        return sum(count for status, count in self.statuses.items() if status >= 500)

    @property
    def undocumented(self) -> list[int]:
        """Statuses the document does not name for this operation."""
        return sorted(self.statuses.keys() - self.documented)

    def complaints(self, enough: int) -> list[str]:
        """Everything that makes the run fail."""
        found = []
        if self.server_errors:
            found.append(f"{self.server_errors} x 5xx")
        if self.undocumented:
            found.append(f"undocumented: {', '.join(map(str, self.undocumented))}")
        if self.successes < enough:
            found.append(f"only {self.successes} successes")
        return found + [name.partition(" |")[0] for name in self.faults]


@dataclass(kw_only=True)
class Report:
    """The whole run."""

    seed: int
    enough: int = ENOUGH
    operations: dict[str, Seen] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How many cases were sent."""
        return sum(seen.calls for seen in self.operations.values())

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(seen.complaints(self.enough) for seen in self.operations.values())

    def text(self) -> str:
        """The table, the faults with a request each, and one line of totals."""
        width = max((len(label) for label in self.operations), default=10)
        lines = [f"{'operation':<{width}}  {'calls':>6} {'2xx/3xx':>8} {'5xx':>4} {'undoc.':>7}  statuses"]
        for label, seen in self.operations.items():
            statuses = " ".join(f"{status}:{count}" for status, count in sorted(seen.statuses.items()))
            mark = "  <-- " + "; ".join(seen.complaints(self.enough)) if seen.complaints(self.enough) else ""
            lines.append(
                f"{label:<{width}}  {seen.calls:>6} {seen.successes:>8} {seen.server_errors:>4} "
                f"{len(seen.undocumented):>7}  {statuses}{mark}"
            )
        for seen in self.operations.values():
            for name, request in seen.faults.items():
                lines += ["", f"{seen.label}: {name}", request]
        everything = self.operations.values()
        lines += [
            "",
            f"{self.calls} cases over {len(self.operations)} operations (seed {self.seed}): "
            f"{sum(seen.server_errors for seen in everything)} x 5xx, "
            f"{sum(len(seen.undocumented) for seen in everything)} undocumented statuses, "
            f"{sum(len(seen.faults) for seen in everything)} failed checks, "
            f"{sum(seen.successes < self.enough for seen in everything)} operations with fewer than "
            f"{self.enough} successes; fewest successes {min((s.successes for s in everything), default=0)}",
        ]
        return "\n".join(lines)
