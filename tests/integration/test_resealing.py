"""Keys of the ring change: stored secrets of webhooks move to the newest one, and only then may the older ones go."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from typer.testing import CliRunner

from mautolib import webhooks
from mautolib.cli.app import app
from mautolib.errors import Conflict
from mautolib.settings import Settings
from mautolib.webhooks import resealing, sources
from tests.chaos.operations import environment
from tests.integration.webhook_making import NOON, SECRET, add_endpoint

NEW = "b7e151628aed2a6abf7158809cf4f3c7"


def secrets_of(tx: Connection, settings: Settings) -> list[str]:
    query = """select secret_encrypted from webhook_endpoints union all
        select previous_secret_encrypted from webhook_endpoints where previous_secret_encrypted is not null union all
        select secret_encrypted from inbound_sources"""
    return sorted(webhooks.open_secret(settings, sealed) for sealed in tx.scalars(text(query)))


def test_what_an_older_key_sealed_is_sealed_anew_and_the_older_key_may_go(tx: Connection, settings: Settings) -> None:
    for table in ("webhook_endpoints", "inbound_sources"):
        tx.execute(text(f"delete from {table}"))
    endpoint = add_endpoint(tx, settings, "https://shop.example/hook")
    webhooks.rotate_secret(tx, settings, endpoint, secret="the second one", now=NOON)
    sources.create(tx, settings, sources.NewSource(name="tea", secret="of the shop", mapping={}), now=NOON)
    both, without = replace(settings, secret_keys=(NEW, *settings.secret_keys)), replace(settings, secret_keys=(NEW,))
    add_endpoint(tx, both, "https://new.example/hook", secret="made since")
    known = secrets_of(tx, both)

    assert resealing.stored(tx, both, now=NOON) == resealing.Stored(newest=1, older=3, lost=0)
    assert resealing.stored(tx, without, now=NOON) == resealing.Stored(newest=1, older=0, lost=3)
    # The previous secret signs for a day, and is missed no longer.
    assert resealing.stored(tx, without, now=NOON + timedelta(days=2)).lost == 2
    assert resealing.reseal(tx, without, now=NOON) == 0, "what cannot be opened stays as it is"
    assert resealing.reseal(tx, both, now=NOON) == 3
    assert resealing.reseal(tx, both, now=NOON) == 0
    assert resealing.stored(tx, without, now=NOON) == resealing.Stored(newest=4, older=0, lost=0)
    assert secrets_of(tx, without) == known == sorted([SECRET, "the second one", "of the shop", "made since"])
    with pytest.raises(Conflict, match="no longer in use"):
        secrets_of(tx, settings)


def test_the_operator_sees_what_would_be_lost_and_seals_it_anew(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mauto(*words: str, keys: tuple[str, ...], code: int = 0) -> str:
        for name, value in environment(replace(settings, secret_keys=keys)).items():
            if name.startswith("MAUTO_"):
                monkeypatch.setenv(name, value)
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, done.output
        return done.output

    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/hook")
    old = settings.secret_keys
    def rows(said: str) -> list[int]:
        return [row["secrets"] for row in json.loads(said)]

    assert rows(mauto("secrets", "status", "--json", keys=(NEW, *old), code=1)) == [0, 1, 0]
    assert rows(mauto("secrets", "status", "--json", keys=(NEW,), code=1)) == [0, 0, 1]
    assert "1 need a key that is not in MAUTO_SECRET_KEYS" in mauto("doctor", keys=(NEW,), code=1)
    assert "1 need an older key" in mauto("doctor", keys=(NEW, *old), code=1)
    assert mauto("secrets", "reseal", keys=(NEW, *old)) == "1 secrets are sealed with the newest key\n"
    assert rows(mauto("secrets", "status", "--json", keys=(NEW,))) == [1, 0, 0]
    with fresh_engine.connect() as tx:
        assert secrets_of(tx, replace(settings, secret_keys=(NEW,))) == [SECRET]
        logged = tx.execute(text("select action, changes ->> 'count' as count from audit_log")).one()
        assert (logged.action, logged.count) == ("secrets.reseal", "1")


