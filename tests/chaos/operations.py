"""The API under load while its database is restarted as by a power cut: only 503s, well again within 5 s, nothing lost.

`make chaos-ops` plays three restarts on a durable PostgreSQL and an API process of its own; the last line is the
verdict as JSON. A short version is in the default tests.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
from sqlalchemy import text

from mautolib.db.localpg import _free_port
from mautolib.events.spool import spool_folder
from mautolib.settings import Settings, variable
from tests.chaos.api_load import API, CLIENTS, SECRET, Account, Client, Setup
from tests.chaos.ground import Ground, ground
from tests.integration.mailing import add_contacts
from tests.live_service import ADMIN, PASSWORD, make_users

#: The promise: so long after the database takes connections, everything works again.
WELL_AGAIN_SECONDS: Final = 5.0
#: And so long a caller waits at most for a 503.
REFUSED_WITHIN_SECONDS: Final = 2.0
PEOPLE: Final = 100


def play(place: Ground, *, restarts: int, between_seconds: float) -> dict[str, Any]:
    """Load, restarts, and the account of both; returns the verdict."""
    settings = dataclasses.replace(place.settings, api_port=_free_port())
    make_users(place.engine)
    with place.engine.begin() as tx:
        people = add_contacts(tx, PEOPLE)
    with serving(settings) as url:
        account, is_over = Account(), threading.Event()
        setup = set_up(url, settings, people)
        clients = [
            Client(work, 10 * kind + one, setup, account, is_over)
            for kind, (work, number) in enumerate(CLIENTS) for one in range(number)
        ]  # fmt: skip
        began = time.monotonic()
        for client in clients:
            client.start()
        outages = []
        for number in range(restarts):
            _wait(between_seconds, account, f"before restart {number + 1} of {restarts}")
            away = time.monotonic()
            place.restart_database()
            outages.append((away, time.monotonic()))
        _wait(max(between_seconds, WELL_AGAIN_SECONDS + 1), account, "after the last restart")
        is_over.set()
        for client in clients:
            client.join(120)
            if client.is_alive():
                account.wrong.append(f"{client.name} does not end")
        seconds = time.monotonic() - began
        _until_replayed(settings)
    return {
        "restarts": restarts, "seconds": round(seconds, 1), "calls": len(account.answers),
        "statuses": account.statuses(), "away_seconds": [round(back - away, 2) for away, back in outages],
        **_times(account, outages), "acknowledged": _acknowledged(account), "lost": _lost(place, account),
        "wrong": account.wrong[:20],
    }  # fmt: skip


def is_clean(verdict: dict[str, Any]) -> bool:
    """Whether every promise was kept."""
    return (
        not verdict["wrong"] and not verdict["lost"] and len(verdict["well_again_seconds"]) == verdict["restarts"]
        and max(verdict["well_again_seconds"], default=0.0) <= WELL_AGAIN_SECONDS
        and verdict["slowest_503_seconds"] <= REFUSED_WITHIN_SECONDS
    )  # fmt: skip


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The API as a process of its own, as it runs everywhere; gives its URL."""
    url = f"http://127.0.0.1:{settings.api_port}"
    log = settings.home.parent / "api.log"
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment(settings), stdout=file, stderr=file)
    try:
        gives_up = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < gives_up, log.read_text()[-2000:]
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a process have these settings."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("MAUTO_")}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if value != item.default and value is not None:
            given[variable(item.name)] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return given


def set_up(url: str, settings: Settings, people: list[int]) -> Setup:
    """Sign in, and make what the clients work on."""
    with httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False) as client:
        signed_in = client.post(f"{API}/auth/login", json={"email": ADMIN, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {signed_in['access_token']}"
        rule = {"field": "email", "operator": "contains", "value": "person"}
        segment = client.post(f"{API}/segments/", json={"name": "All", "rules": [rule]})
        door = client.post(f"{API}/inbound-sources/", json={"name": "forms", "kind": "generic", "secret": SECRET})
        assert (segment.status_code, door.status_code) == (201, 201), segment.text + door.text
    return Setup(
        url=url, token=signed_in["access_token"], segment_id=segment.json()["id"], door=door.json()["token"],
        people=people, settings=settings,
    )  # fmt: skip


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/ready", trust_env=False, verify=False).status_code == 200
    return False


def _wait(seconds: float, account: Account, where: str) -> None:
    time.sleep(seconds)
    refused = sum(1 for answer in account.answers if answer.status == 503)
    print(f"{where}: {len(account.answers)} calls, {refused} refused with 503", file=sys.stderr, flush=True)


def _until_replayed(settings: Settings) -> None:
    gives_up = time.monotonic() + 60
    while any(path.stat().st_size for path in spool_folder(settings).glob("*.ndjson")):
        assert time.monotonic() < gives_up, "the spool is not replayed"
        time.sleep(0.2)


def _times(account: Account, outages: list[tuple[float, float]]) -> dict[str, Any]:
    """How long after each outage the last refusal came, and every kind of call had succeeded again."""
    well, of_it = [], []
    kinds = {answer.kind for answer in account.answers}
    for number, (_, back) in enumerate(outages):
        until = outages[number + 1][0] if number + 1 < len(outages) else float("inf")
        later = [one for one in account.answers if back <= one.ended < until]
        refused = [one.ended - back for one in later if one.status in (0, 503)]
        done = [one for one in later if 200 <= one.status < 400]
        first = max(min((one.ended - back for one in done if one.kind == kind), default=999.0) for kind in kinds)
        well.append(round(max([*refused, first]), 2))
        of_it.append({"last_refusal": round(max(refused, default=0.0), 2), "first_success": round(first, 2)})
    refusals = [one.ended - one.began for one in account.answers if one.status == 503]
    return {"well_again_seconds": well, "of_it": of_it, "slowest_503_seconds": round(max(refusals, default=0.0), 2)}


def _acknowledged(account: Account) -> dict[str, int]:
    kinds = ("contacts", "campaigns", "events", "inbound", "opens", "clicks", "gone")
    return {kind: len(getattr(account, kind)) for kind in kinds}


def _lost(place: Ground, account: Account) -> list[str]:
    """What was acknowledged and is not there, or is there more than once."""
    with place.engine.connect() as tx:

        def pairs(query: str) -> dict[Any, Any]:
            return {row[0]: row[1] for row in tx.execute(text(query))}

        contacts = pairs("select email, cast(contact_id as text) from contacts where email like 'new%'")
        made = pairs("select resource_id, count(*) from audit_log where action = 'contact.create' group by 1")
        names = pairs("select cast(contact_id as text), last_name from contacts where email like 'new%'")
        rows = tx.execute(text("select name, cast(campaign_id as text) from campaigns"))
        campaigns = [(row[0], row[1]) for row in rows]
        events = pairs("select external_id, count(*) from events where external_id ~ '^[ei][0-9]' group by 1")
        opens = pairs("select message_id, count(*) from hits where kind = 'open' group by 1")
        clicks = pairs("select message_id, count(*) from hits where kind = 'click' group by 1")
        still_subscribed = set(tx.scalars(
            text("select contact_id from contacts where subscribed and contact_id = any(:ids)"),
            {"ids": list(account.gone)},
        ))  # fmt: skip
    found = [f"contact {address}" for address, one in account.contacts.items() if contacts.get(address) != one]
    found += [f"contact {one} made {made.get(one)} times" for one in account.contacts.values() if made.get(one) != 1]
    found += [
        f"name of {one}: {names.get(one)}, acknowledged {least}" for one, (least, most) in account.names.items()
        if not least <= int(names.get(one) or 0) <= most
    ]  # fmt: skip
    if sorted(campaigns) != sorted(account.campaigns.items()):
        found.append(f"campaigns: {len(campaigns)} made, {len(account.campaigns)} acknowledged")
    found += [f"event {one}" for one in account.events | account.inbound if events.get(one) != 1]
    found += [f"open of {one}: {opens.get(one)}" for one in account.opens if opens.get(one) != 1]
    found += [f"click of {one}: {clicks.get(one)}" for one in account.clicks if clicks.get(one) != 1]
    return (found + [f"unsubscribe of {one}" for one in still_subscribed])[:50]


def main() -> int:
    """Play the long version."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.operations", description=__doc__)
    parser.add_argument("--restarts", type=int, default=3, help="immediate restarts of the database (3)")
    parser.add_argument("--between-seconds", type=float, default=12.0, help="load before and after each (12)")
    given = parser.parse_args()
    with ground() as place:
        verdict = play(place, restarts=given.restarts, between_seconds=given.between_seconds)
    verdict["is_clean"] = is_clean(verdict)
    sys.stdout.write(json.dumps(verdict) + "\n")
    return 0 if verdict["is_clean"] else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
