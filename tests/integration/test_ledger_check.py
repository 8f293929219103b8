"""The ledger check finds every kind of lie; each is planted once and must be found by its own question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import finishing
from mautolib.ledger import check
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from tests.integration.mailing import NOW, launched, null, rows, run_pump


@pytest.fixture
def finished(fresh_engine: Engine, settings: Settings) -> dict[str, int]:
    """A campaign of five that is done: three sent, one bounced, one in doubt; returns its log."""
    launched(fresh_engine, settings, 5)
    bounced = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 gone")
    doubt = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT)
    run_pump(fresh_engine, settings, null({1: bounced, 2: doubt}))
    finishing.finish(fresh_engine, NOW)
    with fresh_engine.begin() as tx:
        tx.execute(text("update campaigns set settled_at = :now"), {"now": NOW})
    found = rows(fresh_engine, "select rfc_message_id from messages where status in ('sent', 'unknown')")
    return {row.rfc_message_id: 1 for row in found}


def questions(engine: Engine, log: dict[str, int] | None = None) -> set[str]:
    with engine.connect() as tx:
        return {finding.question[0] for finding in check.check(tx, log)}


def test_an_honest_ledger_is_clean(fresh_engine: Engine, finished: dict[str, int]) -> None:
    assert questions(fresh_engine, finished) == set()
    without_doubt = {k: v for k, v in finished.items() if k not in {
        row.rfc_message_id for row in rows(fresh_engine, "select rfc_message_id from messages where status = 'unknown'")
    }}  # fmt: skip
    assert questions(fresh_engine, without_doubt) == set(), "a doubt may be in the log or not"


@pytest.mark.parametrize(
    ("lie", "question"),
    [
        ("insert into messages (contact_id, kind, campaign_id, content_id, dedupe_key, status, reason, due_at,"
         " next_try_at, give_up_at) select contact_id, kind, campaign_id, content_id, dedupe_key, 'skipped', 'expired',"
         " due_at, due_at, due_at from messages limit 1", "1"),
        ("delete from message_keys where message_id = (select min(message_id) from messages)", "1"),
        ("update messages set rfc_message_id = (select min(rfc_message_id) from messages)", "1"),
        ("update messages set status = 'queued', sent_at = null where status = 'unknown'", "2"),
        ("update messages set status = 'sent', sent_at = now() where status = 'unknown'", "6"),
        ("update messages set status = 'failed', sent_at = null where status = 'sent'", "6"),
        ("insert into message_attempts (contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome) select"
         " contact_id, message_id, 2, 99, now(), 'deferred' from messages where status = 'sent'", "6"),
        ("delete from message_attempts where outcome = 'bounced'", "6"),
        ("delete from events", "6"),
        ("update campaign_totals set sent = sent + 1", "7"),
        ("delete from campaign_totals", "7"),
    ],
)  # fmt: skip
def test_a_lie_in_the_database_is_found(
    fresh_engine: Engine, finished: dict[str, int], lie: str, question: str
) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text(lie))
    assert question in questions(fresh_engine)


def test_the_log_of_the_other_side_is_asked(fresh_engine: Engine, finished: dict[str, int]) -> None:
    (sent, *_) = rows(fresh_engine, "select rfc_message_id as id from messages where status = 'sent'")
    (bounced,) = rows(fresh_engine, "select rfc_message_id as id from messages where status = 'bounced'")
    assert questions(fresh_engine, {k: v for k, v in finished.items() if k != sent.id}) == {"3"}
    assert questions(fresh_engine, finished | {bounced.id: 1}) == {"4"}
    assert questions(fresh_engine, finished | {sent.id: 2}) == {"5"}


def test_the_command_says_what_it_found(
    fresh_engine: Engine, finished: dict[str, int], fresh_database_url: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MAUTO_DATABASE_URL", fresh_database_url)
    log = tmp_path / "accepted.jsonl"
    lines = [json.dumps({"message_id": f"<{message_id}>"}) for message_id in finished]
    log.write_text("\n".join(lines) + '\n{"message_id": "<half', encoding="utf-8")
    assert check.main(["--sink-log", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "ledger clean (with the log of a sink)\n"
    log.write_text("\n".join([*lines, lines[0]]) + "\n", encoding="utf-8")
    assert check.main(["--sink-log", str(tmp_path)]) == 1
    assert "5. marketing mail at most once: message" in capsys.readouterr().out
    assert check.main(["--sink-log", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setenv("MAUTO_DATABASE_URL", "")
    assert check.main([]) == 2
