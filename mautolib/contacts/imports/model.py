"""The nouns of an import: its states, its options as a caller may give them, and why a row is not taken.

`ImportOptions.parse` is the only reader of options, whatever door they come through (API, form, library); it names
every unknown or unacceptable one. Pure data.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from mautolib.contacts.validation import single_line_problem
from mautolib.errors import InvalidInput

__all__ = ["EXPORT_COLUMNS", "FIELDS", "Import", "ImportOptions", "ImportStatus", "REASONS", "Reject", "RejectCode",
           "PresetChoice", "TRANSITIONS", "UpdatePolicy"]  # fmt: skip


class ImportStatus(StrEnum):
    """The state of an import."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Every arrow; a worker that died leaves `running`, which another one takes over as it is.
TRANSITIONS: Final[Mapping[ImportStatus, frozenset[ImportStatus]]] = {
    ImportStatus.QUEUED: frozenset({ImportStatus.RUNNING, ImportStatus.CANCELLED}),
    ImportStatus.RUNNING: frozenset(
        {ImportStatus.QUEUED, ImportStatus.COMPLETED, ImportStatus.FAILED, ImportStatus.CANCELLING}
    ),
    ImportStatus.CANCELLING: frozenset({ImportStatus.CANCELLED}),
    ImportStatus.COMPLETED: frozenset(),
    ImportStatus.FAILED: frozenset(),
    ImportStatus.CANCELLED: frozenset(),
}


class UpdatePolicy(StrEnum):
    """What a row does to a contact that is known already."""

    SKIP = "skip"
    FILL_EMPTY = "fill_empty"
    MERGE = "merge"
    OVERWRITE = "overwrite"


class PresetChoice(StrEnum):
    """Whose export a file is read as; `auto` finds it where the header leaves no doubt."""

    AUTO = "auto"
    NONE = "none"
    SHOPIFY = "shopify"
    WOOCOMMERCE = "woocommerce"
    MAILCHIMP = "mailchimp"
    KLAVIYO = "klaviyo"


class RejectCode(StrEnum):
    """Why a row was not taken."""

    INVALID_EMAIL = "invalid_email"
    TOO_LONG = "too_long"
    INVALID_VALUE = "invalid_value"
    BAD_ENCODING = "bad_encoding"
    RAGGED_ROW = "ragged_row"
    UNBALANCED_QUOTE = "unbalanced_quote"
    NUL_BYTE = "nul_byte"


#: What a code is shown as.
REASONS: Final[Mapping[RejectCode, str]] = {
    RejectCode.INVALID_EMAIL: "Invalid email",
    RejectCode.TOO_LONG: "Value is too long",
    RejectCode.INVALID_VALUE: "Value is not acceptable for this field",
    RejectCode.BAD_ENCODING: "Characters do not fit the encoding of the file; name the right one with `encoding`",
    RejectCode.RAGGED_ROW: "Row has more or fewer cells than the header",
    RejectCode.UNBALANCED_QUOTE: "Quote is not closed",
    RejectCode.NUL_BYTE: "Row contains a NUL character",
}

#: What a column may be mapped to, beside `custom_fields.<key>` and null.
FIELDS: Final = (
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed", "tags",
    "created_at", "consent_status", "consent_source", "consent_at", "custom_fields",
)  # fmt: skip
#: The columns of an export, in this order.
EXPORT_COLUMNS: Final = (
    "email", "first_name", "last_name", "phone", "country", "language", "subscribed", "created_at", "timezone",
    "currency", "tags", "consent_status", "consent_source", "consent_at", "custom_fields",
)  # fmt: skip
_DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}
#: Encodings that are text and contain ASCII; not the transformations Python also calls codecs.
_ENCODING = re.compile(
    r"utf-8|utf-8-sig|utf-16|utf-16-[lb]e|ascii|cp(125[0-8]|437|85\d|86\d|866|874|932|936|949|950)|iso8859-\d{1,2}|"
    r"koi8-[ru]|mac-\w+|gbk|gb2312|gb18030|big5|big5hkscs|shift_jis|euc_jp|euc_kr|iso2022_jp|tis-620|johab"
)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How to read a file and what it may do.

    Args:
        mapping: header -> field, `custom_fields.<key>`, or None to ignore the column; wins over known headers.
        preset: the platform whose export it is; once the file was read, the one that was found.
        tag_ids: added to created and updated contacts.
        subscribed_default: for rows without a `subscribed` cell.
        consent_source: with it, new subscribed contacts are granted (at `consent_at`, else when they are imported).
        delimiter: one character; None finds it.
        encoding: `auto` is UTF-8, UTF-16 with a BOM, and Windows-1252 where much of the file can be nothing else.
        dry_run: validate and count only.
    """

    update_policy: UpdatePolicy = UpdatePolicy.SKIP
    mapping: Mapping[str, str | None] = field(default_factory=dict)
    preset: PresetChoice = PresetChoice.AUTO
    tag_ids: tuple[int, ...] = ()
    subscribed_default: bool = True
    consent_source: str | None = None
    consent_at: datetime | None = None
    delimiter: str | None = None
    encoding: str = "auto"
    dry_run: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> ImportOptions:
        """Read options as JSON has them; `update_existing` is understood (true means merge).

        Raises:
            InvalidInput: names the option, with path `("options", <name>)`.
        """
        values: dict[str, Any] = {}
        existing = given.get("update_existing")
        if existing is not None:
            _require(isinstance(existing, bool), "update_existing", "takes true or false")
            values["update_policy"] = UpdatePolicy.MERGE if existing else UpdatePolicy.SKIP
        for name, value in given.items():
            if name == "update_existing" or value is None:
                continue
            reader = _READERS.get(name)
            _require(reader is not None, name, f"is no option of an import; options are {', '.join(_READERS)}")
            values[name] = reader(name, value) if reader else None
        options = cls(**values)
        _require(options.consent_at is None or options.consent_source is not None, "consent_at", "needs consent_source")
        return options

    def as_json(self) -> dict[str, Any]:
        """All options as stored with the import."""
        return {
            **asdict(self), "update_policy": str(self.update_policy), "tag_ids": [str(one) for one in self.tag_ids],
            "mapping": dict(self.mapping), "preset": str(self.preset),
            "consent_at": self.consent_at.isoformat() if self.consent_at else None,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import and its counts; `total_rows` = `created` + `updated` + `skipped`, `skipped` contains `rejected`."""

    import_id: int
    status: ImportStatus
    filename: str | None
    format: str
    options: Mapping[str, Any]
    storage_uri: str | None
    total_rows: int | None
    created: int
    updated: int
    skipped: int
    rejected: int
    suppressed: int
    error: str | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Reject:
    """One row that was not taken; `line` is the physical line it begins on (the header is line 1).

    `email` is what stood in the e-mail column; known only while the import is at work.
    """

    line: int
    column: str
    code: RejectCode
    reason: str
    value: str
    email: str = ""


def _require(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise InvalidInput(f"{name} {message}", path=("options", name))


def _policy(name: str, value: Any) -> UpdatePolicy:
    _require(value in list(UpdatePolicy), name, f"takes one of {', '.join(UpdatePolicy)}")
    return UpdatePolicy(value)


def _preset(name: str, value: Any) -> PresetChoice:
    _require(value in list(PresetChoice), name, f"takes one of {', '.join(PresetChoice)}")
    return PresetChoice(value)


def _mapping(name: str, value: Any) -> dict[str, str | None]:
    _require(isinstance(value, Mapping), name, "is an object of header to field")
    for header, target in value.items():
        _require(isinstance(header, str), name, "is an object of header to field")
        _require(target is None or (isinstance(target, str) and is_target(target)), name,
                 f"maps to something that is no field; fields are {', '.join(FIELDS)}, custom_fields.<key> "
                 "and null (ignore)")  # fmt: skip
    return dict(value)


def is_target(target: str) -> bool:
    """Whether a column may be mapped to `target`."""
    if target in FIELDS:
        return True
    key = target.removeprefix("custom_fields.")
    return key != target and bool(key.strip()) and single_line_problem(key, 100) is None


def _ids(name: str, value: Any) -> tuple[int, ...]:
    parts = value if isinstance(value, list | tuple) else [value]
    texts = [str(part) for part in parts]
    _require(all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts), name, "is a list of ids")
    return tuple(dict.fromkeys(int(text) for text in texts))


def _flag(name: str, value: Any) -> bool:
    _require(isinstance(value, bool), name, "takes true or false")
    return bool(value)


def _source(name: str, value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    _require(bool(text) and single_line_problem(text, 100) is None, name, "is one line of 1 to 100 characters")
    return text


def _moment(name: str, given: Any) -> datetime:
    value = given
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(given, str) and isinstance(value, datetime) and "T" in given.upper() and value.tzinfo is None:
        raise InvalidInput(f"{name} needs Z or an offset, as in 2026-03-01T12:00:00Z", code="timezone_required",
                           path=("options", name))  # fmt: skip
    aware = isinstance(value, datetime) and value.tzinfo is not None and 1970 <= value.year <= 2199
    _require(aware, name, "is a moment with a time zone, such as 2026-03-01T12:00:00Z")
    # In UTC: PostgreSQL reads no offset of 16 hours or more.
    moment: datetime = value.astimezone(UTC)
    return moment


def _delimiter(name: str, value: Any) -> str:
    text = _DELIMITERS.get(value, value) if isinstance(value, str) else ""
    _require(len(text) == 1 and text not in '"\r\n\0 ' and text.isprintable() | (text == "\t"), name,
             "is one character (or comma, semicolon, tab, pipe)")  # fmt: skip
    return text


def _encoding(name: str, value: Any) -> str:
    if isinstance(value, str) and value.lower() == "auto":
        return "auto"
    try:
        found = codecs.lookup(value).name if isinstance(value, str) and "\0" not in value else ""
    except LookupError:
        found = ""
    _require(_ENCODING.fullmatch(found) is not None, name, "is not an encoding of text, such as utf-8 or windows-1252")
    return found


_READERS: Final[Mapping[str, Any]] = {
    "update_policy": _policy, "mapping": _mapping, "preset": _preset, "tag_ids": _ids, "subscribed_default": _flag,
    "consent_source": _source, "consent_at": _moment, "delimiter": _delimiter, "encoding": _encoding,
    "dry_run": _flag,
}  # fmt: skip
