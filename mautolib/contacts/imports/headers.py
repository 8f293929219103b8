"""Columns to fields: known headers in several languages, a caller's mapping, and the e-mail column found by content.

Every header nobody knows becomes a custom field, except one that looks like consent: what a person agreed to is
never guessed, so such a file stops until the column is mapped or ignored on purpose. Pure functions over the header
and the first rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mautolib.contacts.address import is_address, unwrap
from mautolib.contacts.imports.model import EXPORT_COLUMNS, FIELDS
from mautolib.contacts.validation import MAX_CUSTOM_FIELDS, single_line_problem
from mautolib.errors import InvalidInput

__all__ = ["NO_EMAIL", "Plan", "SAMPLE_ROWS", "find_email_column", "plan_columns", "suggest_columns"]

SAMPLE_ROWS = 100
MAX_COLUMNS = 500
NO_EMAIL = "Could not detect an email column. Please ensure a column named 'email' exists."

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "email": ("e-mail", "mail", "电子邮件", "邮箱"),
    "first_name": ("firstname", "first name", "名"),
    "last_name": ("lastname", "last name", "姓"),
    "phone": ("telephone", "tel", "电话", "手机"),
    "country": ("国家",),
    "language": ("lang", "语言"),
}
_KNOWN = {name: name for name in FIELDS} | {alias: name for name, more in _ALIASES.items() for alias in more}
#: What a header that asks about consent may say, once a space stands before each capital letter.
_CONSENT = re.compile(
    r"consent|subscri|newsletter|(?<![a-z])opt(ed)?[ _-]*(in|out)(?![a-z])|accepts?[ _-].*marketing|gdpr|dsgvo|rgpd|"
    r"marketing[ _-].*(status|permission|opt|ok)|"
    r"(?<![a-z])(do[ _-]?not|don'?t|can(not)?|may)[ _-](be[ _-])?(e-?mail|contact)|"
    r"einwilligung|abonn|同意|订阅|訂閱|退订", re.IGNORECASE
)  # fmt: skip
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which column is what.

    Args:
        fields: field -> positions of its columns; the first one with a non-blank cell wins.
        custom: key -> position of the column that becomes a custom field.
        headers: all headers as the file has them.
        is_export: these are just the columns of an export, so that a blank language means none.
    """

    fields: Mapping[str, tuple[int, ...]]
    custom: Mapping[str, tuple[int, ...]]
    headers: tuple[str, ...]
    is_export: bool = False

    def mapping(self) -> dict[str, str | None]:
        """header -> field, as a preview shows it; None: ignored."""
        found: dict[str, str | None] = dict.fromkeys(self.headers)
        for name, positions in self.fields.items():
            found.update((self.headers[position], name) for position in positions)
        for key, positions in self.custom.items():
            found.update((self.headers[position], f"custom_fields.{key}") for position in positions)
        return found


def plan_columns(header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]]) -> Plan:
    """Decide what each column is.

    Args:
        header: the cells of line 1, trimmed.
        mapping: the caller's own choice.
        sample: the first rows, to find an e-mail column without a telling header.

    Raises:
        InvalidInput: no e-mail column, an unknown header in the mapping, too many columns, a column that looks
            like consent and is mapped to nothing, or a header that cannot be a custom field.
    """
    targets, chosen = _targets(header, mapping, sample)
    if "email" not in targets:
        raise InvalidInput(NO_EMAIL, code="no_email_column", line=1)
    fields: dict[str, tuple[int, ...]] = {}
    custom: dict[str, tuple[int, ...]] = {}
    for position, target in enumerate(targets):
        if target is None:
            continue
        key = target.removeprefix("custom_fields.")
        if key == target:
            fields[target] = (*fields.get(target, ()), position)
        else:
            _check_custom(header[position], key, is_chosen=position in chosen)
            custom[key] = (*custom.get(key, ()), position)
    if len(custom) > MAX_CUSTOM_FIELDS:
        raise InvalidInput(f"{len(custom)} columns would become custom fields; at most {MAX_CUSTOM_FIELDS} may: map "
                           "the others to null", path=("options", "mapping"), line=1)  # fmt: skip
    is_export = tuple(header) == EXPORT_COLUMNS and not mapping
    return Plan(fields=fields, custom=custom, headers=tuple(header), is_export=is_export)


def suggest_columns(
    header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]]
) -> dict[str, str | None]:
    """header -> field as an import would take it; None: ignored, or to be decided because it looks like consent.

    Raises:
        InvalidInput: an unknown header in the mapping, or too many columns.
    """
    targets, chosen = _targets(header, mapping, sample)
    found: dict[str, str | None] = dict.fromkeys(header)
    for position, target in enumerate(targets):
        if target is not None and (position in chosen or target in FIELDS or not _looks_like_consent(header[position])):
            found[header[position]] = target
    return found


def _targets(
    header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]]
) -> tuple[list[str | None], dict[int, str | None]]:
    """What each column becomes, and the part of it that the caller chose."""
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(f"Line 1 has {len(header)} columns; at most {MAX_COLUMNS} are read", line=1)
    chosen = _chosen(header, mapping)
    targets = [chosen.get(position, _target(name, position)) for position, name in enumerate(header)]
    if "email" not in targets:
        position = find_email_column(sample, [n for n, _ in enumerate(header) if n not in chosen])
        if position is not None:
            targets[position] = "email"
    return targets, chosen


def find_email_column(sample: Sequence[Sequence[str]], positions: Sequence[int]) -> int | None:
    """The column most of whose cells are addresses; None when none has a majority of them."""
    best, best_share = None, 0.5
    for position in positions:
        cells = [row[position].strip() for row in sample if position < len(row)]
        cells = [cell for cell in cells if cell]
        share = sum(is_address(unwrap(cell)) for cell in cells) / len(cells) if cells else 0.0
        if share > best_share:
            best, best_share = position, share
    return best


def _chosen(header: Sequence[str], mapping: Mapping[str, str | None]) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for name, target in mapping.items():
        exact = [position for position, one in enumerate(header) if one == name.strip()]
        loose = [position for position, one in enumerate(header) if one.casefold() == name.strip().casefold()]
        if not exact and not loose:
            shown = name if len(name) <= 60 else name[:60] + "..."
            raise InvalidInput(f"The mapping names a column {shown!r} that the file does not have",
                               path=("options", "mapping"), line=1)  # fmt: skip
        found.update(dict.fromkeys(exact or loose, target))
    return found


def _target(header: str, position: int) -> str:
    name = header.lower()
    if name in _KNOWN:
        return _KNOWN[name]
    if name.startswith("custom_fields.") and header[len("custom_fields."):].strip():
        return "custom_fields." + header[len("custom_fields."):].strip()
    return f"custom_fields.{header or f'column_{position + 1}'}"


def _check_custom(header: str, key: str, *, is_chosen: bool) -> None:
    if not is_chosen and _looks_like_consent(header):
        raise InvalidInput(f"The column {header!r} looks like consent: map it to subscribed or consent_status, or "
                           "ignore it with null", path=("options", "mapping"), line=1)  # fmt: skip
    problem = single_line_problem(key, 100)
    if problem:
        raise InvalidInput(f"The header {header[:60]!r} cannot become a custom field: it {problem}", line=1)


def _looks_like_consent(header: str) -> bool:
    return _CONSENT.search(_CAMEL.sub(" ", header)) is not None
