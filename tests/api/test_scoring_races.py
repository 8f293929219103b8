"""Many at once about one contact or all rules: nothing is counted twice, lost, or left twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
from sqlalchemy import text

from tests.api.test_lifecycle import LIFECYCLE
from tests.api.test_scoring import SCORING, make_contact
from tests.api.test_scoring_rules import VERSIONS, make_rule
from tests.live_service import LiveService

MANY = 8


def at_once(service: LiveService, call: Callable[[httpx.Client], httpx.Response]) -> list[Any]:
    """The bodies of `MANY` calls by as many clients."""

    def one(_: int) -> Any:
        with service.client("editor") as client:
            answer = call(client)
        assert answer.is_success, answer.text
        return answer.json()

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(one, range(MANY)))


def moves(service: LiveService, contact_id: str) -> list[tuple[str, str]]:
    query = "select previous_stage, new_stage from stage_transitions where contact_id = :id order by transition_id"
    with service.engine.begin() as tx:
        return [(row[0], row[1]) for row in tx.execute(text(query), {"id": int(contact_id)})]


def test_points_given_at_once_all_count(service: LiveService, editor: httpx.Client) -> None:
    contact = make_contact(editor)
    body = {"contact_id": contact, "event_type": "fair", "points": 1.25}
    given = at_once(service, lambda client: client.post(f"{SCORING}/events", json=body))
    assert len({one["id"] for one in given}) == MANY
    assert editor.get(f"{SCORING}/contacts/{contact}").json()["engagement_score"] == MANY * 1.25
    assert len(editor.get(f"{SCORING}/contacts/{contact}/history").json()) == MANY
    path = moves(service, contact)
    assert path[0] == ("new", "lead") and all(one[1] == two[0] for one, two in pairwise(path))


def test_a_cap_holds_for_events_at_once(service: LiveService, editor: httpx.Client) -> None:
    contact, rule = make_contact(editor), make_rule(editor, points=5, max_per_contact=3)
    body = {"contact_id": contact, "event_type": rule["event_type"]}
    done = at_once(service, lambda client: client.post(f"{SCORING}/events/process", json=body))
    assert sum(one["processed"] for one in done) == 3
    assert editor.get(f"{SCORING}/contacts/{contact}").json()["engagement_score"] == 15


def test_a_contact_leaves_a_stage_once(service: LiveService, editor: httpx.Client) -> None:
    contact = make_contact(editor)
    at_once(service, lambda client: client.post(f"{SCORING}/contacts/{contact}/recalculate"))
    assert moves(service, contact) == [("new", "subscriber")]


def test_processing_at_once_moves_everybody_once(service: LiveService, editor: httpx.Client) -> None:
    # Whom other tests left behind would use up the limit.
    while editor.post(f"{LIFECYCLE}/process", params={"limit": 1000}).json()["transitions"]:
        pass
    people = [make_contact(editor, subscribed=False) for _ in range(20)]
    told = at_once(service, lambda client: client.post(f"{LIFECYCLE}/process", params={"limit": 1000}))
    moved = [move["contact_id"] for one in told for move in one["transitions"]]
    assert len(moved) == len(set(moved))
    assert set(people) <= set(moved)
    assert {tuple(moves(service, contact)) for contact in people} == {(("new", "churned"),)}


def test_rules_changed_at_once_leave_no_gap(service: LiveService, editor: httpx.Client) -> None:
    made = at_once(service, lambda client: client.post(
        f"{SCORING}/rules", json={"name": "at once", "event_type": "nobody_sends_this"}))  # fmt: skip
    versions = editor.get(VERSIONS, params={"limit": MANY}).json()
    first = versions[-1]["version"]
    assert [row["version"] for row in versions] == list(range(first + MANY - 1, first - 1, -1))
    sizes = [len(row["rules"]) for row in versions]
    assert sizes == list(range(sizes[-1] + MANY - 1, sizes[-1] - 1, -1))
    for rule in made:
        assert editor.delete(f"{SCORING}/rules/{rule['id']}").status_code == 204
