"""Real bounce mails with labels: the class of each recipient, and the addresses found."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mautolib.classification.bounce_mails import BounceMail, read
from mautolib.classification.bounces import HARD, BounceClass, bounce_class

_CLASSES = {"feedback": "complaint", "vacation": "auto_reply", "delivered": "delivered"}
#: Labels that say: the mailbox is full, or the sender or the mail is not wanted.
_NEVER_HARD = {"mailboxfull", "blocked", "badreputation", "spamdetected", "policyviolation", "authfailure",
               "requireptr", "virusdetected", "norelaying", "toomanyconn", "securityerror", "contenterror"}  # fmt: skip


@pytest.fixture(scope="session")
def bounces(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bounces")
    with tarfile.open(data / "bounces_dev.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def labels(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines()]


def classes(mail: BounceMail) -> list[str]:
    """The classes told, by recipient; what follows from a block is as soft as the rest."""
    if mail.notice is not None:
        kind = mail.notice.get("notificationType", "")
        return [{"Complaint": "complaint", "Delivery": "delivered"}.get(kind, "hard")]
    found = [bounce_class(told.reason) for told in mail.recipients]
    return ["soft" if one is BounceClass.BLOCKED else str(one) for one in found] or ["none"]


def test_the_right_class_for_95_percent(bounces: Path) -> None:
    table: Counter[tuple[str, str]] = Counter()
    wrongly_hard = []
    for label in labels(bounces / "sisimai"):
        found = classes(read((bounces / "sisimai" / "eml" / label["file"]).read_bytes()))
        for place, wanted in enumerate(label["expected"]):
            given = found[min(place, len(found) - 1)]
            table[_CLASSES.get(wanted["reason"], "hard" if wanted["hard"] else "soft"), given] += 1
            if given == "hard" and wanted["reason"] in _NEVER_HARD:
                wrongly_hard.append((label["file"], wanted["reason"]))
    for (wanted_class, given), count in sorted(table.items()):
        print(f"{wanted_class:>10} read as {given:<10} {count}")
    right = sum(count for (wanted_class, given), count in table.items() if wanted_class == given)
    print(f"right: {right} of {table.total()} = {100 * right / table.total():.2f} %")
    assert table.total() == 301 and right >= 0.95 * table.total()
    assert wrongly_hard == []


def test_the_addresses_are_found(bounces: Path) -> None:
    wanted_count = found_count = 0
    for label in labels(bounces / "flufl"):
        mail = read((bounces / "flufl" / "txt" / label["file"]).read_bytes())
        wanted = {address.lower() for one in label["expected"] for address in one["addresses"]}
        wanted_count += len(wanted)
        found_count += len(wanted & {told.address.lower() for told in mail.recipients})
        if any(one["temporary"] for one in label["expected"]):
            assert not HARD & {told.reason for told in mail.recipients}, label["file"]
    print(f"addresses: {found_count} of {wanted_count}")
    assert found_count >= 0.95 * wanted_count
