"""Columns to fields and rows to COPY lines: what is taken, what is tidied, what is refused and why."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.contacts import domains
from mautolib.contacts.countries import country_code
from mautolib.contacts.imports.headers import plan_columns, suggest_columns
from mautolib.contacts.imports.model import EXPORT_COLUMNS, ImportOptions, RejectCode, UpdatePolicy
from mautolib.contacts.imports.rows import RowStager
from mautolib.contacts.validation import single_line_problem
from mautolib.errors import InvalidInput

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_UNESCAPES = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def staged(header: Sequence[str], cells: list[str] | str, **options: Any) -> dict[str, str]:
    """The columns a row is staged with (blank ones left out), unescaped."""
    parsed = ImportOptions.parse(options)
    plan = plan_columns(header, parsed.mapping, [cells] if isinstance(cells, list) else [])
    stager = RowStager(plan, parsed, domains.lists(), unclean=re.compile("[\x00\ud800-\udfff]"), now=NOW)
    line = stager.stage(7, cells, is_suspect=True)
    assert line.endswith("\n")
    parts = [re.sub(r"\\.", lambda found: _UNESCAPES[found[0]], part) for part in line[:-1].split("\t")]
    assert len(parts) == len(stager.columns)
    row = {name: part for name, part in zip(stager.columns, parts, strict=True) if part}
    if "email_key" in row:
        assert row.get("email") != row["email_key"], "said twice"
        row.setdefault("email", row["email_key"])
    return row


def refused(header: Sequence[str], cells: list[str] | str, **options: Any) -> tuple[str, str, str]:
    row = staged(header, cells, **options)
    assert set(row) <= {"line", "email", "reject_column", "reject_code", "reject_value"}, row
    return row.get("reject_column", ""), row["reject_code"], row.get("reject_value", "")


def test_a_row_is_tidied() -> None:
    row = staged(
        ["E-Mail", "Vorname", "First Name", "Telefon", "country", "tags", "Size"],
        [" mailto:Anna@SHOP.example ", "A", "\u00a0Anna\t", "1\t2", "Deutschland", r"VIP|a\|b||vip", 'x"\\y\nz'],
    )
    custom = json.loads(row.pop("custom_fields"))
    assert custom == {"Vorname": "A", "Telefon": "1\t2", "Size": 'x"\\y\nz'}
    assert row == {
        "line": "7", "email": "Anna@shop.example", "email_key": "anna@shop.example", "flags": "0",
        "first_name": "Anna", "country": "DE", "tags": '["VIP", "a|b"]',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "email", "flags"),
    [
        ("Name <A@B.example>", "A@b.example", "0"), ("a@Mailinator.com", "a@mailinator.com", "1"),
        ("a@gmail.com", "a@gmail.com", "2"), ("In.Fo@gmail.com", "In.Fo@gmail.com", "6"),
        ("admin+x@mailinator.com", "admin+x@mailinator.com", "5"), ("jörg@büro.example", "jörg@büro.example", "0"),
        ("'+a@b.example", "+a@b.example", "0"), ("'a@b.example", "'a@b.example", "0"),
    ],
)  # fmt: skip
def test_addresses(typed: str, email: str, flags: str) -> None:
    for cells in ([typed], [typed]):
        row = staged(["email"], cells)
        assert (row["email"], row["flags"]) == (email, flags)


@pytest.mark.parametrize(
    "typed",
    ["", " ", "nobody", "a..b@c.example", "a@b@c.example", '"a b"@c.example', "a@1.2.3.4", "a@[1.2.3.4]",
     "a@c.example,b@d.example", "<a@x.example>b@y.example", "a@c.example\nb", "x" * 65 + "@c.example",
     "abcd@" + ".".join(["b" * 60] * 4) + ".example", "é" * 40 + "@c.example"],
)  # fmt: skip
def test_what_is_no_mailable_address_is_refused(typed: str) -> None:
    assert refused(["email", "x"], [typed, "1"]) == ("email", "invalid_email", typed.strip()[:200])


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("first_name", "x" * 101, "too_long"), ("last_name", "a\nb", "invalid_value"), ("phone", "1" * 31, "too_long"),
        ("language", "x" * 11, "too_long"), ("timezone", "Mars", "invalid_value"),
        ("currency", "euro", "invalid_value"),
        ("subscribed", "maybe", "invalid_value"), ("created_at", "31.12.2025", "invalid_value"),
        ("created_at", "2027-01-01", "invalid_value"), ("created_at", "1969-12-31", "invalid_value"),
        ("consent_status", "yes", "invalid_value"), ("consent_status", "granted", "invalid_value"),
        ("consent_source", "x" * 101, "too_long"), ("tags", "x" * 101, "too_long"), ("tags", "a\nb", "invalid_value"),
        ("custom_fields", "{", "invalid_value"), ("custom_fields", "[1]", "invalid_value"),
        ("custom_fields", '{"a": NaN}', "invalid_value"), ("custom_fields", r'{"a": "\u0000"}', "invalid_value"),
        ("custom_fields", r'{"a": "\ud800"}', "invalid_value"), ("custom_fields", "[" * 100_000, "invalid_value"),
        ("Note", "x" * 17_000, "too_long"), ("country", "a\nb", "invalid_value"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_acceptable_is_named(field: str, value: str, code: str) -> None:
    column, found, shown = refused(["email", field], ["a@b.example", value])
    assert (column, found) == ("custom_fields" if field == "Note" else field, code)
    assert len(shown) <= 200


def test_values_are_read_as_meant() -> None:
    header = ["email", "currency", "subscribed", "created_at", "consent_status", "consent_source", "timezone"]
    row = staged(header, ["a@b.example", "eur", "NO", "2025-01-02 03:04", "Granted", "fair", "Europe/Berlin"])
    assert {name: row[name] for name in header[1:]} == {
        "currency": "EUR", "subscribed": "f", "created_at": "2025-01-02T03:04:00+00:00", "consent_status": "granted",
        "consent_source": "fair", "timezone": "Europe/Berlin",
    }  # fmt: skip
    assert staged(["email", "consent_status"], ["a@b.example", "granted"], consent_source="s")["consent_status"]
    zoned = staged(["email", "created_at"], ["a@b.example", "2025-01-02T03:04:05+02:00"])
    assert zoned["created_at"] == "2025-01-02T01:04:05+00:00"
    # PostgreSQL reads no offset of 16 hours or more.
    zoned = staged(["email", "created_at"], ["a@b.example", "2025-01-02T03:04:05+20:00"])
    assert zoned["created_at"] == "2025-01-01T07:04:05+00:00"
    assert refused(["email", "created_at"], ["a@b.example", "9999-12-31T23:00:00-20:00"])[1] == "invalid_value"


@pytest.mark.parametrize(
    ("cell", "value"),
    [("'=1+1", "=1+1"), ("''=1", "'=1"), ("'-x", "-x"), ("'@x", "@x"), ("'+49 30", "+49 30"), ("'tis", "'tis"),
     ("'\tx", "\tx"), ("=1", "=1"), ("'", "'")],
)  # fmt: skip
def test_exactly_one_formula_guard_is_taken_off(cell: str, value: str) -> None:
    assert json.loads(staged(["email", "Note"], ["a@b.example", cell])["custom_fields"]) == {"Note": value}


def test_the_first_cell_that_is_not_blank_wins() -> None:
    row = staged(["email", "mail", "firstname", "first name", "Size", "size"], ["", "a@b.example", " ", "A", "", "M"])
    assert (row["email"], row["first_name"], row["custom_fields"]) == ("a@b.example", "A", '{"size": "M"}')


@pytest.mark.parametrize(
    ("cells", "flag"),
    [(["yes", "no", ""], "f"), (["no", "yes", "yes"], "f"), (["", "", "No"], "f"), (["", "1", ""], "t"),
     (["yes", "yes", "0"], "f"), (["yes", "", " false "], "f")],
)  # fmt: skip
def test_of_several_columns_about_being_subscribed_a_no_counts(cells: list[str], flag: str) -> None:
    mapping = {"Newsletter": "subscribed", "Opt-in": "subscribed"}
    row = staged(["email", "subscribed", "Newsletter", "Opt-in"], ["a@b.example", *cells], mapping=mapping)
    assert row["subscribed"] == flag


def test_custom_fields_merge_with_columns() -> None:
    row = staged(["email", "custom_fields", "Size"], ["a@b.example", '{"Size": "S", "n": 1.50}', "L"])
    assert json.loads(row["custom_fields"]) == {"Size": "L", "n": 1.5}
    blank = staged(["email", "Size"], ["a@b.example", ""], update_policy="overwrite")
    assert json.loads(blank["custom_fields"]) == {"Size": None}
    assert "custom_fields" not in staged(["email", "Size"], ["a@b.example", ""])


def test_a_country_nobody_knows_is_kept_beside() -> None:
    row = staged(["email", "country"], ["a@b.example", "Channel Islands"])
    assert (row.get("country"), row["custom_fields"]) == (None, '{"country": "Channel Islands"}')
    codes = [country_code(name) for name in ("United States", "united  KINGDOM", "España", "中国", "EIRE", "Atlantis")]
    assert codes == ["US", "GB", "ES", "CN", "IE", None]
    for typed, kept in (("usa", "usa"), ("de", "de"), ("276", "276"), ("中国", "CN"), ("ドイツ", "DE"), ("德国", "DE"),
                        ("Čad", "TD"), ("UK", "GB"), ("uae", "AE"), ("Côte d'Ivoire", "CI"), ("Côte d’Ivoire", "CI"),
                        ("??", "??")):  # fmt: skip
        assert staged(["email", "country"], ["a@b.example", typed])["country"] == kept


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["a@b.example"], ("", "ragged_row", "a@b.example")),
        (["a@b.example", "x", "y"], ("", "ragged_row", "a@b.example,x,y")),
        ('a@b.example,"x', ("", "unbalanced_quote", 'a@b.example,"x')),
        (["a@b.example", "x\0y"], ("Note", "nul_byte", "x\ufffdy")),
        (["a@b.example", "Jos\udce9"], ("Note", "bad_encoding", "Jos\ufffd")),
    ],
)
def test_a_broken_row_is_refused_with_its_reason(cells: list[str] | str, problem: tuple[str, str, str]) -> None:
    assert refused(["email", "Note"], cells) == problem


def test_surplus_blank_cells_do_no_harm() -> None:
    assert staged(["email", "Note"], ["a@b.example", "", "", " "])["email"] == "a@b.example"


def test_headers_are_known_in_any_case_and_language() -> None:
    plan = plan_columns(["电子邮件", "名", "LASTNAME", "Tel", "custom_fields.shoe size", "", "Score", "ID"], {}, [])
    assert plan.mapping() == {
        "电子邮件": "email", "名": "first_name", "LASTNAME": "last_name", "Tel": "phone",
        "custom_fields.shoe size": "custom_fields.shoe size", "": "custom_fields.column_6",
        "Score": "custom_fields.Score", "ID": "custom_fields.ID",
    }  # fmt: skip


def test_a_mapping_wins_over_known_headers() -> None:
    mapping = {"email": None, "Contact": "email", "NAME": "first_name", "Country": "custom_fields.land"}
    plan = plan_columns(["email", "Contact", "Name", "Country"], mapping, [])
    assert (plan.fields, plan.custom) == ({"email": (1,), "first_name": (2,)}, {"land": (3,)})


def test_without_a_telling_header_the_address_is_found_by_content() -> None:
    sample = [["x", "Anna <a@b.example>", "1"], ["y", "", "2"], ["z", "c@d.example", "n@o"]]
    assert plan_columns(["a", "b", "c"], {}, sample).fields == {"email": (1,)}
    with pytest.raises(InvalidInput, match=r"^Could not detect an email column\.") as failure:
        plan_columns(["a", "b", "c"], {}, [["x", "y", "z"]])
    assert failure.value.code == "no_email_column"


@pytest.mark.parametrize(
    ("header", "mapping", "message"),
    [
        (["email", "x"], {"Y": "phone"}, "does not have"), (["email", "Opted-in"], {}, "looks like consent"),
        (["email", "unsubscribed"], {}, "looks like consent"), (["email", "Accepts Marketing"], {}, "consent"),
        (["email", "x" * 101], {}, "cannot become a custom field"), (["email", "a\nb"], {}, "cannot become"),
        (["email", *map(str, range(101))], {}, "at most 100"), (["email", *map(str, range(501))], {}, "502 columns"),
    ],
)  # fmt: skip
def test_a_header_that_is_not_acceptable_stops_the_file(header: list[str], mapping: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        plan_columns(header, mapping, [])


def test_the_order_of_a_mapping_does_not_matter() -> None:
    header = ["email", "A", "a", "B"]
    for names in (["a", "A", "b"], ["b", "A", "a"]):
        mapping = {name: {"a": "phone", "A": "first_name", "b": "country"}[name] for name in names}
        assert plan_columns(header, mapping, []).fields == {
            "email": (0,), "first_name": (1,), "phone": (2,), "country": (3,)}  # fmt: skip
        with pytest.raises(InvalidInput, match=r"names columns 'a', 'b' that the file does not have"):
            plan_columns(["email"], {name: mapping[name] for name in names if name != "A"}, [])


def test_consent_may_be_ignored_or_kept_on_purpose() -> None:
    header = ["email", "Opted in", "GDPR"]
    plan = plan_columns(header, {"Opted in": None, "GDPR": "custom_fields.gdpr"}, [])
    assert plan.mapping() == {"email": "email", "Opted in": None, "GDPR": "custom_fields.gdpr"}
    assert plan_columns(["email", "Marketing channel", "Optional"], {}, []).custom.keys() == {
        "Marketing channel", "Optional"}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("update_policy", "replace"), ("update_existing", "yes"), ("mapping", []), ("mapping", {"a": "id"}),
        ("mapping", {"a": '"; drop table contacts'}), ("mapping", {"a": "custom_fields."}), ("mapping", {"a": 1}),
        ("mapping", {"a": "custom_fields.x\0"}), ("tag_ids", ["x"]), ("tag_ids", [-1]), ("subscribed_default", 1),
        ("consent_source", ""), ("consent_source", "a\nb"), ("consent_at", "2026-01-01"), ("consent_at", 5),
        ("delimiter", ""), ("delimiter", ",,"), ("delimiter", '"'), ("delimiter", "\n"), ("encoding", "rot13"),
        ("encoding", "idna"), ("encoding", "unicode_escape"), ("encoding", "x\0"), ("encoding", "utf-7"),
        ("dry_run", "no"), ("colour", "red"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_acceptable_is_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as failure:
        ImportOptions.parse({option: value})
    assert failure.value.path == ("options", option)


def test_options_survive_being_stored() -> None:
    given = {
        "update_existing": True, "mapping": {"A": "email", "B": None}, "tag_ids": ["3", 4, 3], "delimiter": "tab",
        "encoding": "Windows-1252", "consent_source": " fair ", "consent_at": "2026-01-01T00:00:00Z", "dry_run": True,
    }  # fmt: skip
    options = ImportOptions.parse(given)
    assert (options.update_policy, options.tag_ids, options.delimiter) == (UpdatePolicy.MERGE, (3, 4), "\t")
    assert (options.encoding, options.consent_source) == ("cp1252", "fair")
    assert ImportOptions.parse(json.loads(json.dumps(options.as_json()))) == options
    assert ImportOptions.parse({"update_existing": True, "update_policy": "skip"}).update_policy is UpdatePolicy.SKIP


def test_each_code_has_a_reason() -> None:
    from mautolib.contacts.imports.model import REASONS

    assert set(REASONS) == set(RejectCode)
    assert REASONS[RejectCode.INVALID_EMAIL] == "Invalid email"


@pytest.mark.parametrize(
    "header",
    ["consent", "Subscribed?", "unsubscribed", "Newsletter", "email_opt_in", "EmailOptIn", "Opted-out", "optin",
     "Accepts Email Marketing", "marketing_status", "GDPR", "DSGVO-Einwilligung", "Do not email", "can_be_contacted",
     "May contact", "同意", "订阅状态", "Abonné", "unsub_date", "emailoptout", "EMAIL_BLACKLISTED", "Block list", "DNC",
     "Email permission status", "Suppressed", "No Email", "no-mailing", "Marketing allowed", "Werbung erlaubt",
     "Werbesperre", "Abmeldedatum", "désinscrit", "Suscrito", "Iscritto", "disiscrizione", "подписка", "配信停止",
     "メルマガ", "구독"],
)  # fmt: skip
def test_what_looks_like_consent_stops_the_file(header: str) -> None:
    with pytest.raises(InvalidInput, match="looks like consent") as failure:
        plan_columns(["email", header], {}, [])
    assert failure.value.path == ("options", "mapping")
    for target in (None, "subscribed", "custom_fields.kept"):
        plan_columns(["email", header], {header: target}, [])
    assert suggest_columns(["email", header], {}, [])[0] == {"email": "email", header: None}
    assert suggest_columns(["email", header], {header: "subscribed"}, [])[0][header] == "subscribed"


@pytest.mark.parametrize(
    "header",
    ["Optional", "Option", "American Email", "Scan contact", "Market", "Adopted in", "Hopin", "Descrizione",
     "Inscription", "Dances", "Casino contact", "Mayor", "Blocks", "Listing"]
)
def test_what_only_sounds_like_it_is_a_custom_field(header: str) -> None:
    assert plan_columns(["email", header], {}, []).custom == {header: (1,)}


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("email", "email"), ("E-MAIL", "email"), (" mail ", "email"), ("电子邮件", "email"), ("邮箱", "email"),
        ("firstname", "first_name"), ("First Name", "first_name"), ("名", "first_name"), ("LastName", "last_name"),
        ("last name", "last_name"), ("姓", "last_name"), ("telephone", "phone"), ("tel", "phone"), ("电话", "phone"),
        ("手机", "phone"), ("国家", "country"), ("lang", "language"), ("语言", "language"), ("Timezone", "timezone"),
        ("CURRENCY", "currency"), ("subscribed", "subscribed"), ("tags", "tags"), ("created_at", "created_at"),
        ("consent_status", "consent_status"), ("consent_source", "consent_source"), ("consent_at", "consent_at"),
        ("custom_fields", "custom_fields"), ("custom_fields.shoe size", "custom_fields.shoe size"),
        ("Anything", "custom_fields.Anything"),
    ],
)  # fmt: skip
def test_each_known_header(header: str, field: str) -> None:
    names = [header.strip()] if field == "email" else [header.strip(), "email"]
    assert plan_columns(names, {}, []).mapping()[header.strip()] == field


def test_an_export_is_read_back_as_it_is_written() -> None:
    cells = ["a" * 60 + "@" + ".".join(["b" * 60] * 4) + ".example", *[""] * 13, "{}"]
    plan = plan_columns(list(EXPORT_COLUMNS), {}, [])
    assert plan.is_export
    assert staged(EXPORT_COLUMNS, cells)["email"] == cells[0]
    for header, mapping in ((EXPORT_COLUMNS[::-1], {}), (EXPORT_COLUMNS[:-1], {}), (EXPORT_COLUMNS, {"phone": None})):
        assert not plan_columns(header, mapping, []).is_export
    assert refused(EXPORT_COLUMNS[:-1], cells[:-1])[1] == "invalid_email"


def test_a_consent_may_be_dated_ahead_a_contact_may_not() -> None:
    row = staged(["email", "consent_at", "created_at"], ["a@b.example", "2199-12-31T23:59:59.999999Z", "2026-03-01"])
    assert row["consent_at"] == "2199-12-31T23:59:59.999999+00:00"
    for moment in ("2200-01-01", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        assert refused(["email", "consent_at"], ["a@b.example", moment])[1] == "invalid_value"


def test_a_refused_row_keeps_its_address() -> None:
    assert staged(["n", "email", "mail"], ["1", "", "'=x@@y"])["email"] == "=x@@y"
    assert staged(["email", "currency"], ["a@b.example", "xxx"])["email"] == "a@b.example"
    assert len(staged(["email"], ["x" * 1000])["email"]) == 320
    assert "email" not in staged(["n", "email"], ["only"])
    assert "email" not in staged(["n", "email"], '"only')


@given(st.lists(st.text(min_size=1, max_size=9).map(str.strip).filter(
    lambda name: name and single_line_problem(name, 100) is None), max_size=5, unique_by=str.lower))  # fmt: skip
def test_tags_survive_their_escapes(names: list[str]) -> None:
    cell = "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in names)
    row = staged(["email", "tags"], ["a@b.example", cell if not re.match("'+[=+@\t\r-]", cell) else f"'{cell}"])
    assert json.loads(row.get("tags", "[]")) == names
