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
from typing import IO, TYPE_CHECKING, Any, Final, cast

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
#: A key whose local part is a role, as `domains.is_role` has it.
_ROLE = "^(?:" + "|".join(r"[.\-_]*".join(("", *role, "")) for role in sorted(domains.ROLES)) + ")[+@]"
_MAX_LOCAL = 64
#: Between the cells of a row, all of them as one text; no block has it in a cell.
_BETWEEN = "\x1f"
#: A character that may have to be trimmed, escaped or refused (beyond ASCII only letters everybody knows are not; line
#: breaks are looked at by themselves), a blank at the edge of a cell, or an apostrophe that may guard a formula.
_ODD = (
    "[^\n -~\x1f\u00c0-\u02ff\u0391-\u03a1\u03b1-\u03c9\u0400-\u047f"
    "\u3041-\u3096\u30a1-\u30fa\u4000-\u9fff\uac00-\ud7a3]"
    + r"|\\|(?:^|B)[\n ']|[\n ](?:$|B)".replace("B", _BETWEEN)
)
_TEXTS: Final = frozenset({"first_name", "last_name", "phone", "consent_source"})
_NOT_A_DOMAIN, _NOT_ACCEPTED = -1, "\0"
#: Domains that are looked up at once; a larger table costs each block more than it saves.
_MOST_AT_HAND = 1 << 14


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
        self._at_hand: tuple[pl.Series, pl.Series] | None = None
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
        staged = self._staged(frame.with_columns(line=pl.Series(block.lines), is_odd=self._odd(frame, block)), block)
        out = _Pieces()
        plain = staged.filter(~staged["is_odd"]).drop("is_odd")
        plain.write_csv(cast(IO[bytes], out), separator="\t", quote_style="never", include_header=False)
        for line, *cells in frame.select(pl.Series("line", block.lines), *names).filter(staged["is_odd"]).iter_rows():
            out.pieces.append(self._rows.stage(line, cells, is_suspect=False).encode())
        return b"".join(out.pieces)

    def _odd(self, frame: pl.DataFrame, block: Block) -> pl.Series:
        """Which rows have a cell that is not plain; only those with anything unusual are looked at."""
        import polars as pl

        odd = pl.Series(block.unusual)
        if not block.unusual.any():
            return odd
        used = sorted({positions[0] for positions in (*self._plan.fields.values(), *self._plan.custom.values())})
        text = pl.concat_str([pl.col(f"c{position}") for position in used], separator=_BETWEEN)
        return odd.scatter(odd.arg_true(), frame.filter(odd).select(text.str.contains(_ODD)).to_series())

    def _staged(self, frame: pl.DataFrame, block: Block) -> pl.DataFrame:
        """The columns of COPY, and which rows are for `rows`."""
        import polars as pl

        columns, doubts = self._address(frame)
        for name, position, read in self._rows.fields:
            cell = pl.col(f"c{position}")
            if name in _TEXTS:
                doubts.append(cell.str.len_bytes() > TEXT_LIMITS[name])
                if position in block.broken:
                    doubts.append(cell.str.contains("\n", literal=True))
            else:
                cell = self._read(frame[f"c{position}"], read, doubts)
            if name == "consent_status":
                doubts.append(self._is_without_source(cell))
            columns.append(cell.alias(name))
        if "custom_fields" in self._rows.columns:
            inside = self._custom(frame, block, doubts)
            columns.append(inside.alias("custom_fields"))
        nothing = [pl.lit("").alias(name) for name in ("reject_column", "reject_code", "reject_value")]
        staged = frame.select("line", *columns, *nothing, is_odd=pl.any_horizontal("is_odd", *doubts))
        if "custom_fields" not in staged.columns:
            return staged
        is_large = staged["custom_fields"].str.len_bytes() > MAX_CUSTOM_BYTES // 4
        return staged.with_columns(is_odd=pl.col("is_odd") | is_large)

    def _address(self, frame: pl.DataFrame) -> tuple[list[pl.Expr], list[pl.Expr]]:
        import polars as pl

        email, at = pl.col(f"c{self._plan.fields['email'][0]}"), pl.col("at")
        parts = frame.select(
            email=email, email_key=email.str.to_lowercase(), at=email.str.find("@", literal=True)
        ).with_columns(domain=pl.col("email").str.slice(at + 1))  # fmt: skip
        flags = self._domain_flags(parts["domain"])
        found = parts.select(
            self._shown(parts), "email_key",
            flags=flags + pl.col("email_key").str.contains(_ROLE).cast(pl.Int16) * 4,
            is_doubtful=~pl.col("email").str.contains(_PLAIN) | (at > _MAX_LOCAL) | (flags == _NOT_A_DOMAIN)
            | (pl.col("email").str.len_bytes() > MAX_MAILABLE_OCTETS),
        )  # fmt: skip
        return [pl.lit(found[name]) for name in ("email", "email_key", "flags")], [pl.lit(found["is_doubtful"])]

    def _shown(self, parts: pl.DataFrame) -> pl.Series:
        """The addresses with their domains in lower case; blank where that is the key."""
        import polars as pl

        blank = pl.repeat("", parts.height, dtype=pl.String, eager=True).alias("email")
        rows = (parts["email"] != parts["email_key"]).arg_true()
        if not rows.len():
            return blank
        shown = pl.concat_str(pl.col("email").str.slice(0, pl.col("at") + 1), pl.col("domain").str.to_lowercase())
        typed = pl.when(shown == pl.col("email_key")).then(pl.lit("")).otherwise(shown)
        return blank.scatter(rows, parts[rows].select(typed).to_series())

    def _domain_flags(self, found: pl.Series) -> pl.Series:
        """The flags of each domain, `_NOT_A_DOMAIN` for what is none."""
        import polars as pl

        flags = pl.repeat(None, found.len(), dtype=pl.Int16, eager=True)
        if self._at_hand:
            flags = found.replace_strict(*self._at_hand, default=None, return_dtype=pl.Int16)
        if flags.null_count():
            names = found.filter(flags.is_null()).unique().drop_nulls()
            known = pl.Series([self._flag(name) for name in names.to_list()], dtype=pl.Int16)
            if self._at_hand and names.len() + self._at_hand[0].len() <= _MOST_AT_HAND:
                names, known = self._at_hand[0].append(names), self._at_hand[1].append(known)
            self._at_hand = names, known
            flags = flags.fill_null(found.replace_strict(names, known, default=_NOT_A_DOMAIN, return_dtype=pl.Int16))
        return flags

    def _flag(self, name: str) -> int:
        known = self._flags.get(name)
        if known is None:
            known = self._flags_of(name)
            if len(self._flags) >= MOST_REMEMBERED:
                self._flags.clear()
            self._flags[name] = known
        return known

    def _flags_of(self, name: str) -> int:
        key = domain_name(name) if name.isascii() else None
        if key is None:
            return _NOT_A_DOMAIN
        return 1 if self._known.is_disposable(key) else 2 if self._known.is_free_provider(key) else 0

    def _read(self, cells: pl.Series, read: Callable[[str], str], doubts: list[pl.Expr]) -> pl.Expr:
        """The cells as `read` has them, each different one read once."""
        import polars as pl

        given = cells.unique()
        values = pl.Series(_each(given.to_list(), read), dtype=pl.String)
        if (values == given).all():
            return pl.col(cells.name)
        found = pl.lit(cells.replace_strict(given, values, return_dtype=pl.String))
        if (values == _NOT_ACCEPTED).any():
            doubts.append(found == _NOT_ACCEPTED)
        return found

    def _is_without_source(self, status: pl.Expr) -> pl.Expr:
        import polars as pl

        position = self._plan.fields.get("consent_source")
        if self._has_default_consent:
            return pl.lit(False)
        is_granted = status == str(ConsentStatus.GRANTED)
        return is_granted & (pl.col(f"c{position[0]}") == "") if position else is_granted

    def _custom(self, frame: pl.DataFrame, block: Block, doubts: list[pl.Expr]) -> pl.Expr:
        """The custom fields of each row as JSON; nothing where all are blank."""
        import polars as pl

        whole = self._plan.fields.get("custom_fields")
        if whole:
            doubts.append(pl.col(f"c{whole[0]}") != "")
        sizes = frame.select(pl.col(f"c{position}").str.len_bytes() for position, *_ in self._plan.custom.values())
        parts: list[pl.Expr] = []
        #: Whether there is an entry already: in no row, in all, or in some.
        before: bool | pl.Expr = False
        for (key, (position, *_)), size in zip(self._plan.custom.items(), sizes, strict=True):
            name = (encode_basestring(key) + ": ").translate(ESCAPES)
            cell, is_given = pl.col(f"c{position}"), pl.col(f"c{position}") != ""
            if position in block.quoting:
                cell = cell.str.replace_all('"', '\\\\"', literal=True)
            if position in block.broken:
                cell = cell.str.replace_all("\n", "\\\\n", literal=True)
            if size.min():
                parts += [_either(before, f', {name}"', f'{{{name}"'), cell, pl.lit('"')]
                before = True
            elif self._keeps_blanks:
                begins = pl.when(is_given).then(pl.lit(f'{name}"')).otherwise(pl.lit(f"{name}null"))
                parts += [_either(before, ", ", "{"), begins, cell, _either(is_given, '"', "")]
                before = True
            elif size.max():
                begins = pl.when(is_given).then(_either(before, f', {name}"', f'{{{name}"')).otherwise(pl.lit(""))
                parts += [begins, cell, _either(is_given, '"', "")]
                before = before if before is True else before | is_given
        return pl.concat_str([*parts, _either(before, "}", "")])


class _Pieces(io.RawIOBase):
    """A file that keeps what is written as it comes; twice as fast for polars as one that is a single stretch."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def _either(condition: bool | pl.Expr, yes: str, no: str) -> pl.Expr:
    import polars as pl

    if isinstance(condition, bool):
        return pl.lit(yes if condition else no)
    return pl.when(condition).then(pl.lit(yes)).otherwise(pl.lit(no))


def _each(given: Sequence[str], read: Callable[[str], str]) -> list[str]:
    values = []
    for cell in given:
        try:
            values.append(read(cell).translate(ESCAPES) if cell else "")
        except (Foreign, Refused):
            values.append(_NOT_ACCEPTED)
    return values
