"""A look at a file before it is imported: what its columns would become, and its first rows. Nothing is kept.

The same reader and the same column plan as the import itself, so what is shown is what would happen. Called by the
API with an upload in storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mautolib.contacts.imports.headers import SAMPLE_ROWS, suggest_columns
from mautolib.contacts.imports.model import ImportOptions, PresetChoice
from mautolib.contacts.imports.reading import open_csv

__all__ = ["Preview", "preview"]

_SHOWN_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a file looks like.

    Args:
        mapping: header -> field; None: ignored, or to be decided because the column looks like consent.
        sample_rows: the first rows that can be read.
        preset: the platform whose export it is taken for.
    """

    total_rows: int
    columns: tuple[str, ...]
    sample_rows: tuple[Mapping[str, str], ...]
    detected_email_column: str | None
    mapping: Mapping[str, str | None]
    delimiter: str
    encoding: str
    preset: PresetChoice | None


def preview(path: Path, options: ImportOptions | None = None, *, limit: int) -> Preview:
    """Read a whole file for its size, and its first rows for its shape.

    Args:
        limit: largest size in bytes, unpacked.

    Raises:
        InvalidInput: not a CSV file that can be read.
    """
    options = options or ImportOptions()
    with open_csv(path, encoding=options.encoding, delimiter=options.delimiter, limit=limit) as file:
        records = file.records()
        first = [cells for _, cells in islice(records, SAMPLE_ROWS)]
        readable = [cells for cells in first if isinstance(cells, list)]
        mapping, preset = suggest_columns(file.header, options.mapping, readable, options.preset)
        rows = [dict(zip(file.header, map(_shown, cells), strict=False)) for cells in readable[:_SHOWN_ROWS]]
        return Preview(
            total_rows=len(first) + sum(1 for _ in records), columns=tuple(file.header), sample_rows=tuple(rows),
            detected_email_column=next((name for name, field in mapping.items() if field == "email"), None),
            mapping=mapping, delimiter=file.delimiter, encoding=file.encoding, preset=preset,
        )  # fmt: skip


def _shown(cell: str) -> str:
    """A cell as it can be shown: what does not fit the encoding becomes the replacement character."""
    return cell.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
