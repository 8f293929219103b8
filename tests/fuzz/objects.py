"""What every operation needs to succeed: fresh things to name in its path, and a body that is accepted.

Everything is made over HTTP, where the API can make it. A new kind of path id gets one line in `_MAKERS`; an operation
that needs its thing in a certain state, one in `_STATES`; one that ends what it is called with, its own caller. Used by
`tests/fuzz/api.py` and `tests/api/test_every_operation.py`.
"""

from __future__ import annotations

import copy
import hmac
import io
import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
from sqlalchemy import text

from mautolib.auth import users
from mautolib.auth.roles import Role
from mautolib.events.links import LinkSigner, MessageLinks, Owner
from tests import sns
from tests.live_service import HOOK, PASSWORD, LiveService

PREFIX = "/api/v1"
JSON, FORM, CSV, MULTIPART = "application/json", "application/x-www-form-urlencoded", "text/csv", "multipart/form-data"
INBOUND_SECRET = "what the shop and we know"
_DESTINATION = "https://shop.example/spring"
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(kw_only=True)
class Ready:
    """One request that will succeed: everything but who calls."""

    method: str
    path: str
    values: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    #: Headers that prove the very body, where nobody is signed in.
    sign: Callable[[bytes], dict[str, str]] | None = None

    def send(self, client: httpx.Client, **changes: Any) -> httpx.Response:
        """Send it, with some parts changed; given headers are added."""
        parts = {"params": self.params, "content": self.content, **changes}
        if self.json is not None and "content" not in changes and self.content is None:
            parts.setdefault("json", self.json)
        path = parts.pop("path", self.path)
        headers = {**self.headers, **parts.pop("headers", {})}
        if self.sign is not None:
            if parts.get("content") is None and "json" in parts:
                parts["content"] = json.dumps(parts.pop("json")).encode()
                headers = {"Content-Type": JSON, **headers}
            headers = {**self.sign(parts.get("content") or b""), **headers}
        parts = {name: value for name, value in parts.items() if value not in (None, {})}
        return client.request(self.method, path, headers=headers, **parts)


class Objects:
    """Makes what operations need, in one running service."""

    def __init__(self, service: LiveService, document: dict[str, Any]) -> None:
        self.service, self.document = service, document
        # Shorter than the server keeps an idle connection, so that none is used that it is just closing.
        self.admin = service.client("admin", limits=httpx.Limits(keepalive_expiry=2))
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(4)
        self._kept: dict[str, str] = {}
        self._delivery = ""

    def close(self) -> None:
        """Let go of the connection."""
        self.admin.close()

    # ---- requests

    def ready(self, method: str, template: str, *, fresh: bool = True) -> Ready:
        """A request that succeeds.

        Args:
            fresh: things of its own in the path; else those of an earlier call, for reading.
        """
        operation = self.document["paths"][template][method.lower()]
        values, params = self.path_values(method, template, fresh=fresh)
        path = _PARAMETER.sub(lambda found: quote(values[found.group(1)], safe=""), template)
        request = Ready(method=method, path=path, values=values, params={**params, **self._query(operation)})
        own = _OWN_CALLERS.get(operation["operationId"])
        if own is not None:
            own(self, request)
        elif "requestBody" in operation:
            self._fill(request, operation)
        return request

    def path_values(self, method: str, template: str, *, fresh: bool) -> tuple[dict[str, str], dict[str, str]]:
        """Values of the parameters of a path, and of those of its query that belong to them (tracking)."""
        if template.startswith(f"{PREFIX}/track/"):
            return self._link(template)
        found = {}
        for match in _PARAMETER.finditer(template):
            place = template[: match.end()]
            inside = _INSIDE.get(place)
            if inside is not None:
                inside = _INSIDE_STATES.get((method, template), inside)
                found[match.group(1)] = inside(self, found["id"])
                continue
            make = _STATES.get((method, template)) if place.endswith("{id}") else None
            kept = f"{place} {make}"
            if fresh or kept not in self._kept:
                maker = make or _MAKERS.get(place)
                assert maker is not None, f"say in {__file__} how to make what stands in {place}"
                self._kept[kept] = maker(self)
            found[match.group(1)] = self._kept[kept]
        return found, {}

    def _query(self, operation: dict[str, Any]) -> dict[str, Any]:
        required = [p for p in operation.get("parameters", ()) if p["in"] == "query" and p.get("required")]
        known = {"contact_id": self.contact, "email": self.email}
        return {
            p["name"]: known[p["name"]]() if p["name"] in known else p["schema"].get("examples", ["x"])[0]
            for p in required if p["name"] != "url"
        }  # fmt: skip

    def _fill(self, request: Ready, operation: dict[str, Any]) -> None:
        content = operation["requestBody"]["content"]
        if JSON in content:
            request.json = self.personal(content[JSON]["example"])
        elif MULTIPART in content:
            file = io.BytesIO(f"email,first_name\n{self.email()},Ana\n".encode())
            made = httpx.Request("POST", "http://x", files={"file": ("shop.csv", file, CSV)})
            request.content, request.headers = made.read(), {"Content-Type": made.headers["Content-Type"]}
        else:
            raise AssertionError(f"no way to make a body of {list(content)}")

    def personal(self, value: Any, name: str = "") -> Any:
        """A documented example with names of its own and things that exist."""
        if name == "mapping":
            return value  # paths to values, not values
        if isinstance(value, dict):
            return {key: self.personal(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.personal(item, name) for item in value]
        made = _FIELDS.get(name)
        return copy.copy(value) if made is None or value is None else made(self, value)

    def grow(self, template: str, request: Ready) -> None:
        """Have one more row in the list that `request` reads."""
        maker = _GROWING.get(template)
        if maker is not None:
            maker(self, next(iter(request.values.values()), ""))
        else:
            _MAKERS[f"{template.rstrip('/')}/{{id}}"](self)

    def served_makers(self) -> list[str]:
        """The places of paths that are served, each of which `make` can fill."""
        paths = self.document["paths"]
        return [place for place in _MAKERS if any(path == place or path.startswith(f"{place}/") for path in paths)]

    def make(self, place: str) -> str:
        """A fresh thing for one place of a path."""
        return _MAKERS[place](self)

    # ---- things

    def number(self) -> str:
        """A number nothing else in this service has."""
        return f"{self._run}{next(self._numbers)}"

    def email(self) -> str:
        """An address of its own."""
        return f"fuzz-{self.number()}@shop.example"

    def _post(self, path: str, **parts: Any) -> httpx.Response:
        answer = self.admin.post(f"{PREFIX}{path}", **parts)
        assert answer.is_success, f"POST {path}: {answer.status_code} {answer.text[:500]}"
        return answer

    def _made(self, path: str, json: Any) -> str:
        return str(self._post(path, json=json).json()["id"])

    def contact(self) -> str:
        """A subscribed contact."""
        return self._made("/contacts/", {"email": self.email(), "first_name": "Ana", "country": "PT"})

    def tag(self) -> str:
        """A tag."""
        return self._made("/tags/", {"name": f"tag {self.number()}"})

    def template(self) -> str:
        """A template that is valid."""
        body = {"name": f"template {self.number()}", "subject": "Hello", "html_body": "<p>Hello</p>"}
        return self._made("/templates/", body)

    def segment(self) -> str:
        """A segment."""
        rules = [{"field": "country", "operator": "eq", "value": "PT"}]
        return self._made("/segments/", {"name": f"segment {self.number()}", "rules": rules})

    def campaign(self) -> str:
        """A draft that can be sent."""
        body = {"name": f"campaign {self.number()}", "subject": "Hello", "html_body": "<p>Hello</p>"}
        return self._made("/campaigns/", body)

    def sending_campaign(self) -> str:
        """A campaign on its way."""
        made = self.campaign()
        self._post(f"/campaigns/{made}/send")
        return made

    def paused_campaign(self) -> str:
        """A campaign that was stopped on its way."""
        made = self.sending_campaign()
        self._post(f"/campaigns/{made}/pause")
        return made

    def schedule(self) -> str:
        """A recurring schedule of a draft of its own that waits for its first run."""
        rule = {"interval": "daily"}
        body = {"campaign_id": self.campaign(), "send_at": "2030-01-07T08:00:00Z", "recurrence_rule": rule}
        return self._made("/schedules/", {**body, "schedule_type": "recurring"})

    def paused_schedule(self) -> str:
        """A schedule that was paused."""
        made = self.schedule()
        self._post(f"/schedules/{made}/pause")
        return made

    def ab_test(self) -> str:
        """A draft of an A/B test of a campaign of its own."""
        variants = [{"name": "A", "subject": "Hello"}, {"name": "B", "subject": "Good morning"}]
        return self._made("/ab-tests/", {"campaign_id": self.campaign(), "name": "test", "variants": variants})

    def workflow(self) -> str:
        """A workflow that waits at its first step; somebody is inside."""
        steps = [{"type": "delay", "hours": 24}, {"type": "exit"}]
        made = self._made("/workflows/", {"name": f"workflow {self.number()}", "steps": steps})
        self.enrollment(made)
        return made

    def enrollment(self, workflow_id: str) -> str:
        """Somebody who waits in a workflow."""
        body = {"contact_id": self.contact()}
        return str(self._post(f"/workflows/{workflow_id}/trigger", json=body).json()["enrollment_id"])

    def paused_enrollment(self, workflow_id: str) -> str:
        """Somebody who was paused in a workflow."""
        made = self.enrollment(workflow_id)
        self._post(f"/workflows/{workflow_id}/enrollments/{made}/pause")
        return made

    def automation_rule(self) -> str:
        """A rule that ran once."""
        trigger = f"fuzz {self.number()}"
        body = {"name": "rule", "trigger_type": trigger, "conditions": [{"field": "ok", "value": True}]}
        made = self._made("/automation-rules/", body)
        self._post("/automation-rules/fire", json={"trigger_type": trigger, "data": {"ok": True}})
        return made

    def message(self) -> str:
        """A transactional message that waits."""
        return self._made("/messages/", {"email": self.email(), "subject": "Hello", "html_body": "<p>Hello</p>"})

    def scoring_rule(self) -> str:
        """A scoring rule for events nobody sends."""
        return self._made("/scoring/rules", {"name": f"rule {self.number()}", "event_type": f"type {self.number()}"})

    def scored_contact(self) -> str:
        """A contact with a score, a snapshot and points given by hand."""
        made = self.contact()
        self._post("/scoring/events", json={"contact_id": made, "event_type": "fair_visit", "points": 5})
        return made

    def recomputation(self) -> str:
        """A recomputation of one day nobody has begun."""
        body = {"from": "2020-01-01", "to": "2020-01-01"}
        return str(self._post("/scoring/recomputations", json=body).json()["recomputation_id"])

    def queued_import(self) -> str:
        """A file nobody has read yet."""
        file = f"email\n{self.email()}\n".encode()
        answer = self._post("/contacts/import", content=file, headers={"Content-Type": CSV})
        return str(answer.json()["import_id"])

    def event(self) -> str:
        """A custom event of a contact."""
        body = {"type": "webinar_joined", "contact_id": self.contact(), "external_id": self.number()}
        return str(self._post("/events/", json=body).json()["results"][0]["event_id"])

    def order(self) -> str:
        """An order, as the API names it."""
        contact, order_id = self.contact(), f"O-{self.number()}"
        properties = {
            "order_id": order_id, "currency": "USD", "total": "30.00",
            "lines": [{"sku": "MUG-1", "name": "Mug", "quantity": 2, "unit_price": "15.00"}],
        }  # fmt: skip
        self._post("/events/", json={"type": "order_placed", "contact_id": contact, "properties": properties})
        (found,) = self.admin.get(f"{PREFIX}/orders/", params={"contact_id": contact}).json()
        return str(found["id"])

    def erasure(self) -> str:
        """The erasure of somebody."""
        answer = self.admin.delete(f"{PREFIX}/contacts/{self.contact()}", params={"erase": True})
        assert answer.status_code == 204, answer.text
        return str(answer.headers["Location"].rpartition("/")[2])

    def suppressed_address(self) -> str:
        """An address that must not be mailed."""
        email = self.email()
        self._post("/suppression", json={"email": email, "reason": "manual"})
        return email

    def webhook(self) -> str:
        """An endpoint nobody listens at, of an event that no other operation tells."""
        return self._made("/webhooks/", {"url": HOOK, "events": ["ab_test.winner_selected"]})

    def delivered_webhook(self) -> str:
        """An endpoint with a delivery that is dead; `delivery` names it."""
        made = self.webhook()
        self._delivery = _delivery(self, made)
        return made

    def delivery(self) -> str:
        """The delivery of the endpoint made last."""
        if not self._delivery:
            self.delivered_webhook()
        return self._delivery

    def inbound_source(self) -> str:
        """A source of events."""
        return self._made("/inbound-sources/", {"name": f"source {self.number()}"})

    def inbound_token(self) -> str:
        """The address of a source that signs with `INBOUND_SECRET`."""
        body = {"name": f"source {self.number()}", "secret": INBOUND_SECRET}
        return str(self._post("/inbound-sources/", json=body).json()["token"])

    def user(self) -> str:
        """A viewer."""
        return self._made("/users/", {"email": self.email(), "password": PASSWORD, "name": "Vi"})

    def api_key(self) -> str:
        """An API key."""
        return self._made("/api-keys/", {"name": f"key {self.number()}"})

    def own_user(self) -> tuple[str, dict[str, Any]]:
        """Address and tokens of a user nobody else is."""
        email = self.email()
        with self.service.engine.begin() as tx:
            # Whoever tries wrong passwords here counts for everybody: all come from one address.
            tx.execute(text("delete from sign_in_failures"))
            new = users.NewUser(email=email, password=PASSWORD, name="Own", role=Role.ADMIN)
            users.create(tx, new, now=datetime.now(UTC))
        return email, self.service.sign_in(email)

    def _link(self, template: str) -> tuple[dict[str, str], dict[str, str]]:
        """The parts of a genuine link of a message to a fresh contact."""
        contact, what = self.contact(), template.split("/")[4]
        now = datetime.now(UTC) - timedelta(hours=2)
        links = MessageLinks(
            LinkSigner.from_settings(self.service.settings), Owner.of(campaign_id=int(self._shared_campaign())),
            int(contact), int(contact), now,
        )  # fmt: skip
        url = urlsplit(links.click(_DESTINATION) if what == "click" else getattr(links, what)())
        names, parts = _PARAMETER.findall(template), url.path.split("/")[5:]
        return dict(zip(names, parts, strict=True)), dict(parse_qsl(url.query))

    def _shared_campaign(self) -> str:
        if "links" not in self._kept:
            self._kept["links"] = self.campaign()
        return self._kept["links"]


def _sign_in(objects: Objects, request: Ready) -> None:
    request.json = {"email": objects.own_user()[0], "password": PASSWORD}


def _renew(objects: Objects, request: Ready) -> None:
    request.json = {"refresh_token": objects.own_user()[1]["refresh_token"]}


def _as_own_user(objects: Objects, request: Ready) -> None:
    request.headers = {"Authorization": f"Bearer {objects.own_user()[1]['access_token']}"}
    request.json = {"all_sessions": False}


def _change_password(objects: Objects, request: Ready) -> None:
    _as_own_user(objects, request)
    request.json = {"current_password": PASSWORD, "new_password": f"{PASSWORD} again"}


def _one_click(objects: Objects, request: Ready) -> None:
    request.content, request.headers = b"List-Unsubscribe=One-Click", {"Content-Type": FORM}


def _notice(objects: Objects, request: Ready) -> None:
    sns.trust(objects.service.engine)
    request.json = sns.message(json.dumps({"notificationType": "Delivery"}), message_id=objects.number())


def _signed_event(objects: Objects, request: Ready) -> None:
    body = {"type": "form_submitted", "external_id": objects.number(), "email": objects.email()}
    request.json = {**body, "properties": {"form": "newsletter"}}
    request.sign = lambda body: {
        "X-Signature-256": "sha256=" + hmac.new(INBOUND_SECRET.encode(), body, "sha256").hexdigest()
    }


#: What stands at a place of a path.
_MAKERS: dict[str, Callable[[Objects], str]] = {
    f"{PREFIX}{place}": maker
    for place, maker in {
        "/contacts/{id}": Objects.contact,
        "/contacts/{id}/tags/{tag_id}": Objects.tag,
        "/tags/{id}": Objects.tag,
        "/segments/{id}": Objects.segment,
        "/scoring/rules/{id}": Objects.scoring_rule,
        "/scoring/contacts/{id}": Objects.scored_contact,
        "/scoring/recomputations/{id}": Objects.recomputation,
        "/lifecycle/contacts/{id}": Objects.scored_contact,
        "/segments/{id}/contacts/{contact_id}": Objects.contact,
        "/templates/{id}": Objects.template,
        "/campaigns/{id}": Objects.campaign,
        "/messages/{id}": Objects.message,
        "/schedules/{id}": Objects.schedule,
        "/ab-tests/{id}": Objects.ab_test,
        "/workflows/{id}": Objects.workflow,
        "/automation-rules/{id}": Objects.automation_rule,
        "/imports/{id}": Objects.queued_import,
        "/events/{id}": Objects.event,
        "/orders/{id}": Objects.order,
        "/erasures/{id}": Objects.erasure,
        "/suppression/{email}": Objects.suppressed_address,
        "/users/{id}": Objects.user,
        "/api-keys/{id}": Objects.api_key,
        "/webhooks/{id}": Objects.webhook,
        "/webhooks/{id}/deliveries/{delivery_id}": Objects.delivery,
        "/webhooks/inbound/{token}": Objects.inbound_token,
        "/inbound-sources/{id}": Objects.inbound_source,
        "/analytics/campaigns/{id}": Objects.campaign,
        "/analytics/views/{view}": lambda _: "dim_contacts",
    }.items()
}
def _as_of_now(_: Objects, request: Ready) -> None:
    request.params["as_of"] = datetime.now(UTC).isoformat()


def _variant(objects: Objects, request: Ready) -> None:
    request.json = {"variant_id": _first_variant(objects, request), "event_type": "opened"}


def _winner(objects: Objects, request: Ready) -> None:
    request.params["variant_id"] = _first_variant(objects, request)


def _first_variant(objects: Objects, request: Ready) -> str:
    test = objects.admin.get(f"{PREFIX}/ab-tests/{request.values['id']}").json()
    return str(test["variants"][0]["id"])


#: What an operation wants to find.
_STATES: dict[tuple[str, str], Callable[[Objects], str]] = {
    ("POST", f"{PREFIX}/campaigns/{{id}}/pause"): Objects.sending_campaign,
    ("POST", f"{PREFIX}/campaigns/{{id}}/resume"): Objects.paused_campaign,
    ("POST", f"{PREFIX}/campaigns/{{id}}/cancel"): Objects.sending_campaign,
    ("POST", f"{PREFIX}/campaigns/{{id}}/retry"): Objects.sending_campaign,
    ("POST", f"{PREFIX}/schedules/{{id}}/resume"): Objects.paused_schedule,
    ("GET", f"{PREFIX}/webhooks/{{id}}/deliveries/{{delivery_id}}"): Objects.delivered_webhook,
    ("POST", f"{PREFIX}/webhooks/{{id}}/deliveries/{{delivery_id}}/retry"): Objects.delivered_webhook,
}
#: What stands at a place of a path inside the thing before it, whose id is given.
_INSIDE: dict[str, Callable[[Objects, str], str]] = {
    f"{PREFIX}/workflows/{{id}}/enrollments/{{enrollment_id}}": Objects.enrollment,
}
#: The same where an operation wants to find it in a certain state.
_INSIDE_STATES: dict[tuple[str, str], Callable[[Objects, str], str]] = {
    ("POST", f"{PREFIX}/workflows/{{id}}/enrollments/{{enrollment_id}}/resume"): Objects.paused_enrollment,
}
#: Operations that end, or depend on, what they are called with.
_OWN_CALLERS: dict[str, Callable[[Objects, Ready], None]] = {
    "login": _sign_in, "refresh": _renew, "logout": _as_own_user, "change_password": _change_password,
    "explain_contact_score": _as_of_now, "track_unsubscribe": _one_click, "receive_ses_notice": _notice,
    "receive_inbound": _signed_event, "record_ab_test_event": _variant, "select_ab_test_winner": _winner,
}  # fmt: skip
#: Fields of an example that are one's own, or name something that exists.
_FIELDS: dict[str, Callable[[Objects, Any], Any]] = {
    "email": lambda objects, value: objects.email(),
    "emails": lambda objects, value: objects.email(),
    "name": lambda objects, value: f"{value} {objects.number()}",
    "external_id": lambda objects, value: objects.number(),
    "order_id": lambda objects, value: objects.number(),
    "cart_id": lambda objects, value: objects.number(),
    "addresses": lambda objects, value: objects.email(),
    "contact_id": lambda objects, value: objects.contact(),
    "tag_ids": lambda objects, value: objects.tag(),
    "template_id": lambda objects, value: objects.template(),
    "segment_id": lambda objects, value: objects.segment(),
    "segment_a": lambda objects, value: objects.segment(),
    "segment_b": lambda objects, value: objects.segment(),
    "campaign_id": lambda objects, value: objects.campaign(),
    "campaign_ids": lambda objects, value: objects.campaign(),
    "exclude_campaign_ids": lambda objects, value: objects.campaign(),
}


def _version(objects: Objects, template_id: str) -> None:
    objects.admin.patch(f"{PREFIX}/templates/{template_id}", json={"subject": f"Hello {objects.number()}"})


def _rate(objects: Objects, _: str) -> None:
    day = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=secrets.randbelow(9000))
    rate = {"rate_date": str(day.date()), "base": "EUR", "quote": "USD", "rate": "1.1", "source": "test"}
    objects.admin.post(f"{PREFIX}/fx-rates/", json={"rates": [rate]})


def _consent(objects: Objects, contact_id: str) -> None:
    path = f"{PREFIX}/contacts/{contact_id}"
    subscribed = objects.admin.get(path).json()["subscribed"]
    objects.admin.patch(path, json={"subscribed": not subscribed})


def _event(objects: Objects, contact_id: str) -> None:
    objects.admin.post(f"{PREFIX}/events/", json={"type": "webinar_joined", "contact_id": contact_id})


def _delivery(objects: Objects, endpoint_id: str) -> str:
    from tests.builders import make_delivery

    with objects.service.engine.begin() as tx:
        return str(make_delivery(tx, int(endpoint_id)))


def _message(objects: Objects, contact_id: str) -> None:
    from tests.builders import make_message

    with objects.service.engine.begin() as tx:
        make_message(tx, int(contact_id))


def _campaign_message(objects: Objects, campaign_id: str) -> None:
    from tests.builders import make_message

    with objects.service.engine.begin() as tx:
        make_message(tx, int(objects.contact()), campaign_id=int(campaign_id))


def _scored(objects: Objects, contact_id: str) -> None:
    body = {"contact_id": contact_id, "event_type": "fair_visit", "points": 1}
    objects.admin.post(f"{PREFIX}/scoring/events", json=body)


def _member(objects: Objects, segment_id: str) -> None:
    objects.admin.post(f"{PREFIX}/segments/{segment_id}/contacts/{objects.contact()}")


def _workflow_version(objects: Objects, workflow_id: str) -> None:
    steps = [{"type": "delay", "hours": 24}, {"type": "exit", "reason": objects.number()}]
    objects.admin.patch(f"{PREFIX}/workflows/{workflow_id}", json={"steps": steps})


def _rule_log(objects: Objects, rule_id: str) -> None:
    with objects.service.engine.begin() as tx:
        tx.execute(text("insert into automation_logs (rule_id, trigger_type, status) values (:id, 'fuzz', 'success')"),
                   {"id": rule_id})  # fmt: skip


#: How lists get one more row that are not a collection of things of their own.
_GROWING: dict[str, Callable[[Objects, str], Any]] = {
    f"{PREFIX}{place}": maker
    for place, maker in {
        "/templates/{id}/versions": _version,
        "/fx-rates/": _rate,
        "/contacts/{id}/consents": _consent,
        "/contacts/{id}/events": _event,
        "/webhooks/{id}/deliveries": _delivery,
        "/contacts/{id}/messages": _message,
        "/campaigns/{id}/messages": _campaign_message,
        "/segments/{id}/contacts": _member,
        "/workflows/{id}/versions": _workflow_version,
        "/workflows/{id}/logs": Objects.enrollment,
        "/workflows/{id}/enrollments": Objects.enrollment,
        "/automation-rules/{id}/logs": _rule_log,
        "/scoring/contacts/{id}/history": _scored,
        "/scoring/contacts/{id}/snapshots": _scored,
        "/scoring/rules": lambda objects, _: objects.scoring_rule(),
        "/scoring/rules/versions": lambda objects, _: objects.scoring_rule(),
        "/scoring/leaderboard": lambda objects, _: objects.scored_contact(),
        "/suppression": lambda objects, _: objects.suppressed_address(),
        "/audit-log/": lambda objects, _: objects.contact(),
        "/analytics/views/{view}": lambda objects, _: objects.contact(),
    }.items()
}
