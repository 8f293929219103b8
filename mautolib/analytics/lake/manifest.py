"""What a table's folder holds, as the last export left it: `_manifest.json`, which readers of Parquet pass over.

Promise: a file named here is whole and is what its fingerprint says; one that is being replaced is not named. A
manifest that is missing or of other columns names nothing, so that everything is written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from mautolib.analytics.lake.targets import Target

NAME: Final = "_manifest.json"
_FORMAT: Final = 1


@dataclass(kw_only=True)
class Manifest:
    """The files of a table by name, each with `rows` and `fingerprint`.

    Attributes:
        columns: names and types; files of others are not what would be written now.
        checked_on: UTC day on which all of the table was last compared with its files.
    """

    table: str
    columns: Mapping[str, str]
    partitioned_by: str | None
    checked_on: date | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the manifest's own file."""
        return f"{self.table}/{NAME}"

    def read(self, target: Target) -> None:
        """Take over what the target says, if it can be believed."""
        content = target.read(self.name)
        try:
            told = json.loads(content or b"{}")
            if (told["format"], told["columns"], told["partitioned_by"]) != (
                _FORMAT, dict(self.columns), self.partitioned_by
            ):  # fmt: skip
                return
            files = {str(name): {"rows": int(one["rows"]), "fingerprint": str(one["fingerprint"])}
                     for name, one in told["files"].items()}  # fmt: skip
            checked_on = date.fromisoformat(told["checked_on"]) if told["checked_on"] else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        self.files, self.checked_on = files, checked_on

    def write(self, target: Target, *, now: datetime) -> None:
        """Write it down."""
        told = {
            "format": _FORMAT, "table": self.table, "columns": dict(self.columns),
            "partitioned_by": self.partitioned_by, "written_at": now.isoformat(),
            "checked_on": self.checked_on.isoformat() if self.checked_on else None,
            "rows": sum(one["rows"] for one in self.files.values()), "files": dict(sorted(self.files.items())),
        }  # fmt: skip
        target.write(self.name, json.dumps(told, indent=1).encode())
