"""The four policies against a model of a few lines: rows are applied one after the other to contacts in a dict.

Random files with repeated addresses over random contacts; compared are all contacts, their tags, the events and every
count of the import, read in both ways (by rows and by blocks), and a dry run before each says the same.
"""

from __future__ import annotations

import csv
import io
import random
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import text

from mautolib.contacts import consent
from mautolib.contacts.imports import reading
from mautolib.contacts.model import SuppressionReason
from tests.integration.test_imports import LATER, NOW, Bed, bed, counts, create, own_engine

__all__ = ["bed", "own_engine"]

TEXTS = {"first_name": ("Anna", "Ben", "Zoë"), "last_name": ("Li", "O'Hara"), "phone": ("+49 1", "0815"),
         "country": ("DE", "FR"), "language": ("de", "en", "fr"), "timezone": ("UTC", "Europe/Berlin"),
         "currency": ("EUR", "USD")}  # fmt: skip
CUSTOM = ("A", "B")
REALLY_NO = ("unsubscribe", "complaint", "compliance")


@dataclass(kw_only=True)
class Person:
    """A contact as the model has it."""

    texts: dict[str, str]
    custom: dict[str, Any]
    subscribed: bool = True
    consent: str = "unknown"
    tags: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Outcome:
    """What an import does, by the words of the documentation."""

    people: dict[str, Person]
    created: int = 0
    updated: int = 0
    events: dict[str, int] = field(default_factory=dict)

    def tell(self, name: str, times: int = 1) -> None:
        if times:
            self.events[name] = self.events.get(name, 0) + times


def applied(person: Person, row: dict[str, str], policy: str) -> Person:
    """A contact after one row."""
    after = deepcopy(person)
    for name in TEXTS.keys() & row.keys():
        blank = "en" if name == "language" else ""
        if policy == "overwrite":
            after.texts[name] = row[name] or blank
        elif row[name] and (policy == "merge" or not person.texts[name]):
            after.texts[name] = row[name]
    for key in [key for key in CUSTOM if key in row]:
        if row[key] and not (policy == "fill_empty" and key in person.custom):
            after.custom[key] = row[key]
        elif policy == "overwrite" and not row[key]:
            after.custom.pop(key, None)
    if policy in ("merge", "overwrite") and row.get("subscribed") == "no" and person.subscribed:
        after.subscribed, after.consent = False, "withdrawn"
    return after


def made(row: dict[str, str]) -> Person:
    """A new contact, as its first row says; that nobody names a language is known at the end."""
    custom = {key: row[key] for key in CUSTOM if row.get(key)}
    return Person(texts={name: row.get(name, "") for name in TEXTS}, custom=custom)


def modelled(
    before: dict[str, Person], rows: list[dict[str, str]], policy: str, suppressed: dict[str, str],
    options: dict[str, Any],
) -> Outcome:  # fmt: skip
    done = Outcome(people=deepcopy(before))
    files: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        files.setdefault(row["email"].lower(), []).append(row)
    for email, own in files.items():
        is_new = email not in before
        tags = {tag for row in own for tag in row.get("tags", "").split("|") if tag}
        if is_new:
            person = first = made(own[0])
            for row in own[1:] if policy != "skip" else ():
                person = applied(person, row, policy)
            said = {"yes": True, "no": False}.get(own[0].get("subscribed", ""), options["subscribed_default"])
            opted_out = policy in ("merge", "overwrite") and any(row.get("subscribed") == "no" for row in own)
            person.subscribed = said and not opted_out and suppressed.get(email) not in REALLY_NO
            person.consent = "granted" if person.subscribed and "consent_source" in options else "unknown"
            done.created += 1
            done.tell("contact_created")
            is_changed = (person.texts, person.custom) != (first.texts, first.custom)
            is_changed |= opted_out and own[0].get("subscribed") != "no"
            person.texts["language"] = person.texts["language"] or "en"
            done.updated += (len(own) - 1) * is_changed
        elif policy == "skip":
            continue
        else:
            person = before[email]
            for row in own:
                person = applied(person, row, policy)
            if person != before[email]:
                done.updated += len(own)
                done.tell("contact_updated")
                done.tell("unsubscribed", before[email].subscribed and not person.subscribed)
        done.tell("tag_added", len(tags - person.tags))
        person = deepcopy(person)
        person.tags |= tags
        done.people[email] = person
    return done


def stored(bed: Bed) -> dict[str, Person]:
    names = ", ".join(TEXTS)
    with bed.engine.begin() as tx:
        rows = tx.execute(text(
            f"select email_key, custom_fields, subscribed, consent_status, {names}, array(select tags.name from "
            "contact_tags inner join tags using (tag_id) where contact_tags.contact_id = contacts.contact_id) as tags "
            "from contacts"
        ))  # fmt: skip
        return {
            row.email_key: Person(
                texts={name: getattr(row, name) for name in TEXTS}, custom=row.custom_fields,
                subscribed=row.subscribed, consent=row.consent_status, tags=set(row.tags),
            )
            for row in rows
        }  # fmt: skip


def some_rows(draw: random.Random, count: int, people: int) -> tuple[list[str], list[dict[str, str]]]:
    columns = [name for name in (*TEXTS, *CUSTOM, "subscribed", "tags") if draw.random() < 0.7]
    values = {**TEXTS, "A": ("1", "2", "{}"), "B": ('"x"', "a\nb"), "subscribed": ("yes", "no"),
              "tags": ("vip", "new", "vip|b2b")}  # fmt: skip
    rows = []
    for _ in range(count):
        number = draw.randrange(people)
        email = draw.choice((f"p{number}@shop.example", f"P{number}@SHOP.example"))
        cells = {name: draw.choice(("", *values[name])) for name in columns}
        rows.append({"email": email, **cells})
    return ["email", *columns], rows


def some_people(bed: Bed, draw: random.Random, people: int) -> dict[str, str]:
    """Contacts for two of five addresses, suppressions for some of all; returns the suppressions."""
    suppressed = {}
    with bed.engine.begin() as tx:
        tags = dict(tx.execute(text("insert into tags (name) values ('vip'), ('old') returning name, tag_id")).all())
    for number in range(people):
        email = f"p{number}@shop.example"
        if draw.random() < 0.4:
            texts = {name: draw.choice(("", *values)) for name, values in TEXTS.items()}
            custom = {key: draw.choice(("1", {"deep": [1]}, None, "")) for key in (*CUSTOM, "C") if draw.random() < 0.5}
            create(bed, email, **texts, custom_fields=custom, subscribed=draw.random() < 0.7,
                   tag_ids=[one for one in tags.values() if draw.random() < 0.3])  # fmt: skip
        if draw.random() < 0.1:
            suppressed[email] = draw.choice((*REALLY_NO, "bounce", "manual"))
    with bed.engine.begin() as tx:
        for email, reason in suppressed.items():
            consent.suppress(tx, email, SuppressionReason(reason), actor="test", now=NOW)
    return suppressed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["skip", "fill_empty", "merge", "overwrite"])
def test_a_policy_does_what_the_model_says(
    bed: Bed, policy: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(f"{policy} {seed}")
    people = 60
    suppressed = some_people(bed, draw, people)
    header, rows = some_rows(draw, 130, people)
    if seed % 2:
        monkeypatch.setattr(reading, "_BLOCKS_FROM", 0)
        monkeypatch.setattr(reading, "_SAMPLE", 64)
    options: dict[str, Any] = {"subscribed_default": draw.random() < 0.7}
    if draw.random() < 0.5:
        options["consent_source"] = "fair"
    before = stored(bed)
    wanted = modelled(before, rows, policy, suppressed, options)
    file = io.StringIO()
    writer = csv.DictWriter(file, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    trial = bed.take(file.getvalue(), update_policy=policy, dry_run=True, now=LATER, **options)
    assert stored(bed) == before
    last = bed.scalars("select coalesce(max(event_id), 0) from events")[0]
    done = bed.take(file.getvalue(), update_policy=policy, now=LATER, **options)
    assert done.status == "completed", done.error
    found = stored(bed)
    differing = {key: (found.get(key), one) for key, one in wanted.people.items() if found.get(key) != one}
    assert (differing, found.keys()) == ({}, wanted.people.keys())
    assert counts(done) == counts(trial) == (
        len(rows), wanted.created, wanted.updated, len(rows) - wanted.created - wanted.updated, 0,
        sum(row["email"].lower() in suppressed for row in rows),
    )  # fmt: skip
    told = dict(zip(
        bed.scalars(f"select event_type from events where event_id > {last} group by event_type order by 1"),
        bed.scalars(f"select count(*) from events where event_id > {last} group by event_type order by event_type"),
        strict=True,
    ))  # fmt: skip
    assert told == wanted.events
    again = bed.take(file.getvalue(), update_policy=policy, now=LATER, **options)
    # fill_empty finds nothing to fill and the others the same last word, unless a file contradicts itself.
    assert again.created == 0
    if policy in ("skip", "fill_empty"):
        assert (again.updated, stored(bed)) == (0, found)
