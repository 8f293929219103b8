"""What the demo prints: headings, one live line of progress, small tables. Plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

_WIDTH = 28


class Screen:
    """Writes to one stream; a live line is overwritten in place on a terminal and left out elsewhere."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._pending = False

    def head(self, text: str) -> None:
        """Begin a section."""
        self._write(f"\n{text}")

    def line(self, text: str) -> None:
        """One line that stays."""
        self._write(f"  {text}")

    def bar(self, done: int, total: int, text: str) -> None:
        """Progress of something countable, on the live line."""
        if not self._is_live:
            return
        share = min(done / total, 1.0) if total else 0.0
        filled = round(share * _WIDTH)
        self._stream.write(f"\r\x1b[2K  [{'#' * filled}{'.' * (_WIDTH - filled)}] {done:,} of {total:,} {text}")
        self._stream.flush()
        self._pending = True

    def table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        """Two columns."""
        self.head(title)
        rows = list(rows)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.line(f"{name:<{width}}  {value}")

    def end(self) -> None:
        """Leave the live line behind."""
        if self._pending:
            self._stream.write("\r\x1b[2K")
            self._pending = False
            self._stream.flush()

    def _write(self, text: str) -> None:
        self.end()
        self._stream.write(text + "\n")
        self._stream.flush()
