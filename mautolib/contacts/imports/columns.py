"""The rows of a well-formed block to lines of COPY, column by column; the fast twin of `rows`.

Promises the same lines as `RowStager`: what is not plain beyond doubt (an unusual character, a cell to be trimmed,
an address with anything special, a value nobody has seen) is given to it, row by row. Values that repeat are checked
once a block by the same readers. Called by the importer for long files; no database here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, domain_name
from mautolib.contacts.imports.blocks import Block
from mautolib.contacts.imports.cells import Foreign, Refused
from mautolib.contacts.imports.headers import Plan
from mautolib.contacts.imports.model import ImportOptions
from mautolib.contacts.imports.rows import ATOM, ESCAPES, MOST_REMEMBERED, RowStager
from mautolib.contacts.model import ConsentStatus
from mautolib.contacts.validation import MAX_CUSTOM_BYTES, TEXT_LIMITS

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BlockStager"]

_PLAIN = rf"^{ATOM}(?:\.{ATOM})*@[A-Za-z0-9.\-]+$"
_MAX_LOCAL = 64
#: Between the cells of a row, all of them as one text; no block has it in a cell.
_BETWEEN = "\x1f"
#: A character that may have to be trimmed, escaped or refused (beyond ASCII only letters everybody knows are not),
#: a blank at the edge of a cell, or an apostrophe that may guard a formula.
_ODD = (
    "[^ -~\x1f\u00c0-\u02ff\u0391-\u03a1\u03b1-\u03c9\u0400-\u045f\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fef\uac00-\ud7a3]"
    r"|\\|(?:^|" + _BETWEEN + r")[ ']| (?:$|" + _BETWEEN + ")"
)
_TEXTS: Final = frozenset({"first_name", "last_name", "phone", "consent_source"})
_NOT_A_DOMAIN, _NOT_ACCEPTED = -1, "\0"


class BlockStager:
    """Turns blocks into bytes for the same COPY as `rows`; see `RowStager.columns`.

    Args:
        rows: does what is not plain, and knows how each field is read.
    """

    def __init__(
        self, rows: RowStager, plan: Plan, options: ImportOptions, known: domains.DomainLists, *, delimiter: str
    ) -> None:
        self._rows, self._plan, self._known, self._delimiter = rows, plan, known, delimiter
        self._keeps_blanks = options.update_policy == "overwrite"
        self._has_default_consent = options.consent_source is not None
        self._flags: dict[str, int] = {}
        # Read when polars is loaded: the other core is the database's, and waiting threads cost CPU.
        os.environ.setdefault("POLARS_MAX_THREADS", "1")

    @property
    def can_take(self) -> bool:
        """Whether every field is one column as it stands."""
        columns = (*self._plan.fields.values(), *self._plan.custom.values())
        return not self._plan.derived and all(len(positions) == 1 for positions in columns)

    def stage(self, block: Block) -> bytes:
        """The COPY lines of a block, in any order."""
        import polars as pl

        names = [f"c{position}" for position in range(len(self._plan.headers))]
        frame = pl.read_csv(
            block.data, has_header=False, schema=dict.fromkeys(names, pl.String), separator=self._delimiter,
            infer_schema=False, empty_string_is_null=False,
        )  # fmt: skip
        frame = frame.with_columns(line=pl.Series(block.lines))
        columns, doubts = self._columns(frame)
        staged = frame.select(*columns, is_odd=pl.any_horizontal(doubts))
        if "custom_fields" in staged.columns:
            inside = pl.col("custom_fields")
            whole = pl.when(inside != "").then(pl.concat_str(pl.lit("{"), inside, pl.lit("}"))).otherwise(inside)
            staged = staged.with_columns(whole.alias("custom_fields"))
        out = io.BytesIO()
        plain = staged.filter(~staged["is_odd"]).drop("is_odd")
        plain.write_csv(out, separator="\t", quote_style="never", include_header=False)
        for cells in frame.filter(staged["is_odd"]).iter_rows():
            out.write(self._rows.stage(cells[-1], list(cells[:-1]), is_suspect=False).encode())
        return out.getvalue()

    def _columns(self, frame: pl.DataFrame) -> tuple[list[pl.Expr], list[pl.Expr]]:
        """The columns of COPY, and what makes a row one for `rows`."""
        import polars as pl

        plan = self._plan
        used = sorted({positions[0] for positions in (*plan.fields.values(), *plan.custom.values())})
        text = pl.concat_str([pl.col(f"c{position}") for position in used], separator=_BETWEEN)
        columns, doubts = self._address(frame)
        doubts.append(text.str.contains(_ODD))
        for name, position, read in self._rows.fields:
            cell = pl.col(f"c{position}")
            if name in _TEXTS:
                doubts.append(cell.str.len_bytes() > TEXT_LIMITS[name])
            else:
                cell = self._read(frame[f"c{position}"], read)
                doubts.append(cell == _NOT_ACCEPTED)
            if name == "consent_status":
                doubts.append(self._is_without_source(cell))
            columns.append(cell.alias(name))
        if "custom_fields" in self._rows.columns:
            columns.append(self._custom(doubts).alias("custom_fields"))
        nothing = [pl.lit("").alias(name) for name in ("reject_column", "reject_code", "reject_value")]
        return [pl.col("line"), *columns, *nothing], doubts

    def _address(self, frame: pl.DataFrame) -> tuple[list[pl.Expr], list[pl.Expr]]:
        import polars as pl

        email = frame[f"c{self._plan.fields['email'][0]}"]
        parts = email.str.split_exact("@", 1).struct
        local, domain = parts.field("field_0"), parts.field("field_1")
        key, flags = email.str.to_lowercase(), self._domain_flags(domain)
        word = local.str.to_lowercase().str.split_exact("+", 1).struct.field("field_0")
        is_role = word.str.replace_all(r"[.\-_]", "").is_in(list(domains.ROLES))
        doubts = [
            ~email.str.contains(_PLAIN), email.str.len_bytes() > MAX_MAILABLE_OCTETS,
            local.str.len_bytes() > _MAX_LOCAL, flags == _NOT_A_DOMAIN,
        ]  # fmt: skip
        shown = pl.concat_str(pl.lit(local), pl.lit("@"), pl.lit(domain).str.to_lowercase())
        return [
            shown.alias("email"), pl.lit(key).alias("email_key"),
            pl.lit(flags + is_role.cast(pl.Int16) * 4).alias("flags"),
        ], [pl.lit(doubt) for doubt in doubts]  # fmt: skip

    def _domain_flags(self, found: pl.Series) -> pl.Series:
        import polars as pl

        names = found.unique().drop_nulls().to_list()
        if len(self._flags) > MOST_REMEMBERED:
            self._flags.clear()
        for name in names:
            if name not in self._flags:
                self._flags[name] = self._flags_of(name)
        flags = [self._flags[name] for name in names]
        return found.replace_strict(names, flags, default=_NOT_A_DOMAIN, return_dtype=pl.Int16)

    def _flags_of(self, name: str) -> int:
        key = domain_name(name) if name.isascii() else None
        if key is None:
            return _NOT_A_DOMAIN
        return 1 if self._known.is_disposable(key) else 2 if self._known.is_free_provider(key) else 0

    def _read(self, cells: pl.Series, read: Callable[[str], str]) -> pl.Expr:
        """The cells as `read` has them, each different one read once."""
        import polars as pl

        given = cells.unique().to_list()
        return pl.lit(cells.replace_strict(given, _each(given, read), return_dtype=pl.String))

    def _is_without_source(self, status: pl.Expr) -> pl.Expr:
        import polars as pl

        position = self._plan.fields.get("consent_source")
        if self._has_default_consent:
            return pl.lit(False)
        is_granted = status == str(ConsentStatus.GRANTED)
        return is_granted & (pl.col(f"c{position[0]}") == "") if position else is_granted

    def _custom(self, doubts: list[pl.Expr]) -> pl.Expr:
        """The custom fields of each row as JSON, without its braces."""
        import polars as pl

        whole = self._plan.fields.get("custom_fields")
        if whole:
            doubts.append(pl.col(f"c{whole[0]}") != "")
        entries = []
        for key, (position, *_) in self._plan.custom.items():
            cell, prefix = pl.col(f"c{position}"), (encode_basestring(key) + ": ").translate(ESCAPES)
            value = pl.concat_str(pl.lit(prefix + '"'), cell.str.replace_all('"', '\\\\"', literal=True), pl.lit('"'))
            blank = pl.lit(f"{prefix}null") if self._keeps_blanks else pl.lit(None, pl.String)
            entries.append(pl.when(cell == "").then(blank).otherwise(value))
        if not entries:
            return pl.lit("")
        inside = pl.concat_str(entries, separator=", ", ignore_nulls=True)
        doubts.append(inside.str.len_bytes() > MAX_CUSTOM_BYTES // 4)
        return inside


def _each(given: Sequence[str], read: Callable[[str], str]) -> list[str]:
    values = []
    for cell in given:
        try:
            values.append(read(cell).translate(ESCAPES) if cell else "")
        except (Foreign, Refused):
            values.append(_NOT_ACCEPTED)
    return values
