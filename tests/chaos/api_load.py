"""Real load on the API: each client is a thread that does one kind of work and remembers what was acknowledged.

A client that is refused with 503 asks again, with the same Idempotency-Key, until it is acknowledged; any other
refusal is a fault. What was acknowledged is compared with the database by tests/chaos/operations.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import httpx

from mautolib.events.links import LinkSigner, Owner
from mautolib.settings import Settings
from tests.shop_webhooks import sign_generic
from tests.tracked import BROWSER

API: Final = "/api/v1"
SECRET: Final = "what the shop signs with"
TARGET: Final = "https://shop.example/sale"
BATCH: Final = 20
#: How long a client goes on asking for what it began, once the others have ended.
PATIENCE_SECONDS: Final = 60.0


class Answered(NamedTuple):
    """One answer; times by the monotonic clock, status 0 when the connection broke."""

    kind: str
    status: int
    began: float
    ended: float


@dataclass
class Account:
    """What all clients saw. Lists and counters are only appended to, each by one call of the interpreter."""

    answers: list[Answered] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    contacts: dict[str, str] = field(default_factory=dict)
    #: By contact: the last name that was acknowledged, and the last that was asked for.
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    campaigns: dict[str, str] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    inbound: set[str] = field(default_factory=set)
    opens: set[int] = field(default_factory=set)
    clicks: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def statuses(self) -> dict[str, dict[str, int]]:
        """How often each kind of call was answered with which status."""
        found: dict[str, Counter[str]] = {}
        for answer in self.answers:
            found.setdefault(answer.kind, Counter())[str(answer.status)] += 1
        return {kind: dict(sorted(counted.items())) for kind, counted in sorted(found.items())}


@dataclass(kw_only=True)
class Setup:
    """What the clients work on.

    Args:
        door: the token of an inbound source whose secret is `SECRET`.
        people: contacts for the links in mail.
    """

    url: str
    token: str
    segment_id: str
    door: str
    people: list[int]
    settings: Settings


class Client(threading.Thread):
    """One client; `is_over` ends it after the work it has begun."""

    def __init__(self, work: Callable[[Client], Iterator[None]], number: int, setup: Setup, account: Account,
                 is_over: threading.Event) -> None:  # fmt: skip
        super().__init__(name=f"{work.__name__}-{number}", daemon=True)
        self.setup, self.account, self.is_over = setup, account, is_over
        self.number = number
        self._work = work
        self._http = httpx.Client(base_url=setup.url, timeout=20, trust_env=False, verify=False)

    def run(self) -> None:
        """Work until it is over."""
        try:
            for _ in self._work(self):
                if self.is_over.is_set():
                    break
        except Exception as error:  # noqa: BLE001 - the game must know of it
            self.account.wrong.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self._http.close()

    def ask(self, kind: str, method: str, path: str, *, key: str | None = None, public: bool = False,
            **options: Any) -> httpx.Response | None:  # fmt: skip
        """One call; None when the connection broke."""
        headers = dict(options.pop("headers", {}))
        if not public:
            headers["Authorization"] = f"Bearer {self.setup.token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        began = time.monotonic()
        try:
            answer = self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            self.account.answers.append(Answered(kind, 0, began, time.monotonic()))
            self.account.wrong.append(f"{kind}: {type(error).__name__}")
            return None
        self.account.answers.append(Answered(kind, answer.status_code, began, time.monotonic()))
        return answer

    def until_done(self, kind: str, method: str, path: str, *, wanted: int, **options: Any) -> httpx.Response:
        """Ask until it is acknowledged.

        Raises:
            AssertionError: something else than `wanted` or 503, or 503 for too long.
        """
        gives_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.ask(kind, method, path, **options)
            if answer is not None and answer.status_code == wanted:
                return answer
            refusal = "the connection broke" if answer is None else f"{answer.status_code} {answer.text[:200]}"
            if answer is not None:
                assert answer.status_code == 503, f"{method} {path}: {refusal}"
                assert int(answer.headers["Retry-After"]) > 0, "a 503 says when to come back"
            assert time.monotonic() < gives_up, f"{method} {path}: still {refusal}"
            time.sleep(0.1)


def contacts(client: Client) -> Iterator[None]:
    """New contacts, and a name that counts up."""
    for number in count():
        address = f"new{client.number}-{number}@mail.example"
        made = client.until_done("contacts", "POST", f"{API}/contacts/", wanted=201, json={"email": address},
                                 key=f"contact-{address}")  # fmt: skip
        found = made.json()["id"]
        client.account.contacts[address] = found
        known = 0
        for name in (1, 2):
            client.account.names[found] = (known, name)
            answer = client.ask("patch", "PATCH", f"{API}/contacts/{found}", json={"last_name": str(name)})
            if answer is not None and answer.status_code == 200:
                known = name
                client.account.names[found] = (known, name)
            elif answer is not None and answer.status_code != 503:
                client.account.wrong.append(f"patch: {answer.status_code} {answer.text[:200]}")
        yield


def campaigns(client: Client) -> Iterator[None]:
    """New campaigns: nothing but the key keeps them from being made twice."""
    for number in count():
        name = f"campaign {client.number} {number}"
        made = client.until_done("campaigns", "POST", f"{API}/campaigns/", wanted=201, key=name,
                                 json={"name": name, "subject": "Tea"})  # fmt: skip
        client.account.campaigns[name] = made.json()["id"]
        yield


def events(client: Client) -> Iterator[None]:
    """Batches; a repetition under its key gets the first answer, in which all are new."""
    for number in count():
        ids = [f"e{client.number}-{number}-{item}" for item in range(BATCH)]
        body = [{"type": "page_viewed", "external_id": one, "email": f"visitor{one[-1]}@mail.example"} for one in ids]
        taken = client.until_done("events", "POST", f"{API}/events/", wanted=202, json=body, key=f"batch-{ids[0]}")
        if (said := taken.json())["accepted"] != BATCH:
            client.account.wrong.append(f"events: {said['accepted']} accepted, {said['duplicates']} duplicates")
        client.account.events.update(ids)
        yield


def inbound(client: Client) -> Iterator[None]:
    """Webhooks of a shop, which sends again what was not taken."""
    for number in count():
        name = f"i{client.number}-{number}"
        event = {"type": "form_submitted", "external_id": name, "email": f"lead{number % 50}@mail.example",
                 "occurred_at": "2026-05-01T09:00:00Z", "properties": {"form": "newsletter"}}  # fmt: skip
        body = json.dumps(event).encode()
        headers = {**sign_generic(body, SECRET), "Content-Type": "application/json"}
        client.until_done("inbound", "POST", f"{API}/webhooks/inbound/{client.setup.door}", wanted=202, content=body,
                          headers=headers, public=True)  # fmt: skip
        client.account.inbound.add(name)
        yield


def links(client: Client) -> Iterator[None]:
    """Opens, clicks and unsubscribe requests: answered whatever the database does."""
    signer, people = LinkSigner.from_settings(client.setup.settings), client.setup.people
    agent = {"User-Agent": BROWSER}
    made_at = datetime.now(UTC) - timedelta(hours=1)
    for number in count(1):
        person, message = people[number % len(people)], client.number * 1_000_000 + number
        one = signer.for_message(
            owner=Owner.of(campaign_id=1), contact_id=person, message_id=message, made_at=made_at
        )  # fmt: skip
        _answered(client, "open", "GET", one.open(), agent, 200)
        client.account.opens.add(message)
        click = _answered(client, "click", "GET", one.click(TARGET), agent, 302)
        if click is not None and click.headers.get("location") != TARGET:
            client.account.wrong.append(f"click: leads to {click.headers.get('location')}")
        client.account.clicks.add(message)
        if number % 20 == 0:
            leaver = people[(number // 20) % len(people)]
            leaving = signer.for_message(
                owner=Owner.of(campaign_id=1), contact_id=leaver, message_id=message, made_at=made_at
            )  # fmt: skip
            _answered(client, "unsubscribe", "POST", leaving.unsubscribe(), agent, 200,
                      data={"List-Unsubscribe": "One-Click"})  # fmt: skip
            client.account.gone.add(leaver)
        yield


def reads(client: Client) -> Iterator[None]:
    """What a dashboard asks for."""
    while True:
        segment = f"{API}/segments/{client.setup.segment_id}"
        for path in (f"{segment}/contacts", f"{API}/contacts/?limit=50", f"{segment}/count", "/ready"):
            answer = client.ask("reads", "GET", path)
            if answer is not None and answer.status_code not in (200, 503):
                client.account.wrong.append(f"GET {path}: {answer.status_code} {answer.text[:200]}")
        yield


def _answered(
    client: Client, kind: str, method: str, url: str, headers: dict[str, str], wanted: int, **options: Any
) -> httpx.Response | None:
    path = url.removeprefix(client.setup.settings.public_base_url)
    answer = client.ask(kind, method, path, headers=headers, public=True, **options)
    if answer is not None and answer.status_code != wanted:
        client.account.wrong.append(f"{kind}: {answer.status_code}")
    return answer


#: Each kind of work, by how many clients.
CLIENTS: Final = ((contacts, 2), (campaigns, 1), (events, 2), (inbound, 1), (links, 2), (reads, 2))
