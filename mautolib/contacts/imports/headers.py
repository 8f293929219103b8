"""Columns to fields: known headers in several languages, presets of platforms, a caller's mapping, and the e-mail
column found by content.

Every header nobody knows becomes a custom field, except one that looks like consent: what a person agreed to is
never guessed, so such a file stops until the column is mapped or ignored on purpose. Pure functions over the header
and the first rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mautolib.contacts.address import is_address, unwrap
from mautolib.contacts.imports.model import EXPORT_COLUMNS, FIELDS, PresetChoice
from mautolib.contacts.imports.presets import Platform, Read, platform_of
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
    r"consent|subscri|unsub|newsletter|(?<![a-z])opt(ed)?[ _-]*(in|out)(?![a-z])|mail[ _-]*opt[ _-]*(in|out)|"
    r"accepts?[ _-].*marketing|gdpr|dsgvo|rgpd|permission|suppress|(black|block)[ _-]*list|(?<![a-z])dnc(?![a-z])|"
    r"marketing[ _-].*(status|opt|ok|allowed|permitted|erlaubt)|werbe|werbung|"
    r"(?<![a-z])(do[ _-]?not|don'?t|can(not)?|may|no)[ _-]*(be[ _-]?)?(e-?mail|contact|mailing)|"
    r"einwilligung|abonn|abmeld|d[eé]sinscri|suscri|(?<![a-z])(dis)?iscri[tz]|подпис|рассыл|"
    r"同意|订阅|訂閱|退订|配信|メルマガ|購読|구독|수신", re.IGNORECASE
)  # fmt: skip
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONSENT_FIELDS = frozenset({"subscribed", "consent_status"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which column is what.

    Args:
        fields: field -> positions of its columns; the first one with a non-blank cell wins.
        custom: key -> position of the column that becomes a custom field.
        headers: all headers as the file has them, then for each derived cell one of its columns.
        derived: for each cell that is added to a row: which cells it is made of (None: a blank one), and how.
        preset: the platform whose export it is.
        blank_is_no: a column says who is subscribed, so that nobody is by default.
        is_export: these are just the columns of an export, so that a blank language means none.
    """

    fields: Mapping[str, tuple[int, ...]]
    custom: Mapping[str, tuple[int, ...]]
    headers: tuple[str, ...]
    is_export: bool = False
    derived: tuple[tuple[tuple[int | None, ...], Read], ...] = ()
    preset: PresetChoice | None = None
    blank_is_no: bool = False

    def mapping(self) -> dict[str, str | None]:
        """header -> field; None: ignored."""
        targets: list[str | None] = [None] * len(self.headers)
        named = {f"custom_fields.{key}": at for key, at in self.custom.items()}
        for name, positions in (*self.fields.items(), *named.items()):
            for position in positions:
                targets[position] = name
        return _shown(self.headers, targets, self.derived)

    @property
    def width(self) -> int:
        """How many cells a row of the file has."""
        return len(self.headers) - len(self.derived)

    def complete(self, cells: list[str]) -> list[str]:
        """A row of the file with its derived cells."""
        made = [read([cells[at].strip() if at is not None else "" for at in sources]) for sources, read in self.derived]
        return [*cells[: self.width], *made]


def plan_columns(
    header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]],
    preset: PresetChoice = PresetChoice.AUTO,
) -> Plan:
    """Decide what each column is.

    Args:
        header: the cells of line 1, trimmed.
        mapping: the caller's own choice.
        sample: the first rows, to find an e-mail column without a telling header.
        preset: whose export it is.

    Raises:
        InvalidInput: no e-mail column, an unknown header in the mapping, too many columns, a column that looks
            like consent and is mapped to nothing, a header that cannot be a custom field, or a preset that does not
            fit.
    """  # fmt: skip
    found = _decide(header, mapping, sample, preset)
    if "email" not in found.targets:
        raise InvalidInput(NO_EMAIL, code="no_email_column", line=1)
    if found.undecided:
        raise InvalidInput(found.undecided, path=("options", "preset"), line=1)
    fields: dict[str, tuple[int, ...]] = {}
    custom: dict[str, tuple[int, ...]] = {}
    for position, target in enumerate(found.targets):
        if target is None:
            continue
        key = target.removeprefix("custom_fields.")
        if key == target:
            fields[target] = (*fields.get(target, ()), position)
        else:
            _check_custom(found.headers[position], key, is_chosen=position in found.sure)
            custom[key] = (*custom.get(key, ()), position)
    if len(custom) > MAX_CUSTOM_FIELDS:
        raise InvalidInput(f"{len(custom)} columns would become custom fields; at most {MAX_CUSTOM_FIELDS} may: map "
                           "the others to null", path=("options", "mapping"), line=1)  # fmt: skip
    return Plan(
        fields=fields, custom=custom, headers=found.headers, derived=found.derived, blank_is_no=found.blank_is_no,
        preset=found.preset, is_export=tuple(header) == EXPORT_COLUMNS and not mapping,
    )  # fmt: skip


def suggest_columns(
    header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]],
    preset: PresetChoice = PresetChoice.AUTO,
) -> tuple[dict[str, str | None], PresetChoice | None]:
    """header -> field as an import would take it, None: ignored, or to be decided because it looks like consent; and
    the preset that applies.

    Raises:
        InvalidInput: an unknown header in the mapping, too many columns, or a preset that does not fit.
    """  # fmt: skip
    found = _decide(header, mapping, sample, preset)
    targets = [
        target if position in found.sure or target in FIELDS or not _looks_like_consent(name) else None
        for position, (name, target) in enumerate(zip(found.headers, found.targets, strict=True))
    ]
    return _shown(found.headers, targets, found.derived), found.preset


def _shown(
    headers: Sequence[str], targets: Sequence[str | None], derived: Sequence[tuple[tuple[int | None, ...], Read]]
) -> dict[str, str | None]:
    """What each header becomes, in the order of the file: by itself, or else the first field that is made of it."""
    width = len(headers) - len(derived)
    found: dict[str, str | None] = dict.fromkeys(headers[:width])
    made = [(at, target) for (sources, _), target in zip(derived, targets[width:], strict=True) for at in sources]
    for at, target in (*enumerate(targets[:width]), *made):
        if at is not None:
            found[headers[at]] = found[headers[at]] or target
    return found


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What every column becomes, derived cells behind those of the file; `sure` are the caller's and the preset's."""

    headers: tuple[str, ...]
    targets: tuple[str | None, ...]
    sure: frozenset[int]
    derived: tuple[tuple[tuple[int | None, ...], Read], ...] = ()
    preset: PresetChoice | None = None
    blank_is_no: bool = False
    undecided: str = ""


def _decide(
    header: Sequence[str], mapping: Mapping[str, str | None], sample: Sequence[Sequence[str]], preset: PresetChoice
) -> _Decided:
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(f"Line 1 has {len(header)} columns; at most {MAX_COLUMNS} are read", line=1)
    platform = platform_of(header, preset)
    chosen = _chosen(header, mapping)
    targets: list[str | None] = [_target(name, position) for position, name in enumerate(header)]
    sure = dict(chosen)
    if platform is not None:
        known = platform.targets()
        sure = {at: known[name.lower()] for at, name in enumerate(header) if name.lower() in known} | sure
    for position, target in sure.items():
        targets[position] = target
    if "email" not in targets:
        found = find_email_column(sample, [position for position in range(len(header)) if position not in sure])
        if found is not None:
            targets[found] = "email"
    if platform is None:
        return _Decided(headers=tuple(header), targets=tuple(targets), sure=frozenset(sure))
    return _with_derived(platform, header, targets, chosen, frozenset(sure), is_found=preset is PresetChoice.AUTO)


def _with_derived(
    platform: Platform, header: Sequence[str], targets: list[str | None], chosen: Mapping[int, str | None],
    sure: frozenset[int], *, is_found: bool,
) -> _Decided:  # fmt: skip
    # A column that the caller maps is the caller's: nothing else is made of it.
    at = {name.lower(): position for position, name in reversed(list(enumerate(header))) if position not in chosen}
    headers, derived = list(header), []
    for one in platform.derived:
        sources = tuple(at.get(name) for name in one.sources)
        present = [position for position in sources if position is not None]
        if present:
            headers.append(header[present[0]])
            targets.append(one.target)
            derived.append((sources, one.read))
    says_who = bool(platform.consent & at.keys())
    is_told = any(target in _CONSENT_FIELDS or _looks_like_consent(header[at]) for at, target in chosen.items())
    return _Decided(
        headers=tuple(headers), targets=tuple(targets), sure=sure | set(range(len(header), len(headers))),
        derived=tuple(derived), preset=platform.name, blank_is_no=says_who,
        undecided=platform.undecided if is_found and not says_who and not is_told else "",
    )  # fmt: skip


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
    """Position -> the caller's choice. What is written just like a header wins over what is in another case."""
    sure: dict[int, str | None] = {}
    likely: dict[int, str | None] = {}
    missing: list[str] = []
    # A stored mapping has another order than the one that was given: it must not matter.
    for name, target in sorted(mapping.items()):
        exact = [position for position, one in enumerate(header) if one == name.strip()]
        loose = [position for position, one in enumerate(header) if one.casefold() == name.strip().casefold()]
        if not loose:
            missing.append(repr(name if len(name) <= 60 else name[:60] + "..."))
        (sure if exact else likely).update(dict.fromkeys(exact or loose, target))
    if missing:
        shown = f"a column {missing[0]}" if len(missing) == 1 else f"columns {', '.join(missing[:10])}"
        raise InvalidInput(f"The mapping names {shown} that the file does not have",
                           path=("options", "mapping"), line=1)  # fmt: skip
    return likely | sure


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
