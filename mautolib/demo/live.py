"""The live part of the demo: each step starts the real thing through a public door and waits for what it does.

Called by `python -m mautolib.demo`. A step that finds its work done says so and does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from mautolib.db.tables import campaigns, contact_scores, contacts, enrollments, hits, messages, orders
from mautolib.demo import history, readers
from mautolib.demo.contact_file import Truth
from mautolib.demo.faces import Faces, wait_until
from mautolib.demo.people import Person
from mautolib.demo.screen import Screen
from mautolib.errors import Conflict
from mautolib.stack.plan import Plan

CAMPAIGN = "Autumn letter"
#: Of the A/B test, the control first: which of them a mail has is what its readers go by.
SUBJECTS = {
    "Plain": readers.PLAIN,
    "With the first name": "{{ contact.first_name|default('Hello', true) }}, the kiln is warm again",
}
UTM = {"source": "newsletter", "medium": "email"}
NEWCOMERS = 25


@dataclass(kw_only=True)
class Show:
    """The steps, in the order of the main job, and the figures they leave behind."""

    faces: Faces
    engine: Engine
    screen: Screen
    mail_folder: Path
    found: dict[str, str] = field(default_factory=dict)
    _campaign: int = 0
    _test: int = 0

    def import_contacts(self, path: Path, truth: Truth) -> None:
        """Upload the file; `contact_import` takes it. Every row must be accounted for."""
        self.screen.head(f"Import: {truth.rows:,} rows as shops have them, through POST /contacts/import")
        began = time.monotonic()
        number = self.faces.upload(path)
        state: dict[str, Any] = {}

        def done() -> bool:
            state.update(self.faces.get(f"/imports/{number}"))
            return state["status"] in ("completed", "failed", "cancelled")

        def tick() -> None:
            self.screen.bar(state["created"] + state["updated"] + state["skipped"], truth.rows, "rows")

        wait_until("the import", done, seconds=300, tick=tick)
        if state["status"] != "completed":
            raise Conflict(f"the import ended as {state['status']}: {state['error']}")
        if (state["total_rows"], state["rejected"]) != (truth.rows, truth.invalid):
            raise Conflict(f"the file has {truth.rows} rows, {truth.invalid} of them bad; the import says {state}")
        self.screen.line(f"{state['created']:,} created, {state['skipped'] - state['rejected']:,} known or repeated, "
                         f"{state['rejected']:,} rejected with line and reason, {time.monotonic() - began:.1f} s")
        self.found["Imported"] = f"{state['created']:,} of {truth.rows:,} rows"
        self.found["Rejected"] = f"{state['rejected']:,} (GET /api/v1/imports/{number}/errors.csv)"

    def score(self) -> None:
        """Trigger `score_recalculation` as the button does."""
        self.screen.head("Score: DAG score_recalculation")
        seconds = self._run_dag("score_recalculation")
        with self.engine.connect() as connection:
            scored = connection.scalar(select(func.count()).select_from(contact_scores))
        self.screen.line(f"{scored:,} contacts scored and staged, {seconds:.1f} s")
        self.found["Scored"] = f"{scored:,}"

    def mailing(self, template_id: int) -> None:
        """A campaign from its A/B test to its last reader."""
        self.campaign(template_id)
        self.readers()
        self.decide()
        self.readers()

    def campaign(self, template_id: int) -> None:
        """Create a campaign with an A/B test of two subjects and send it; `campaign_send` mails the test's part."""
        self.screen.head("Campaign: POST /campaigns/, /ab-tests/ and /send; DAG campaign_send")
        with self.engine.connect() as connection:
            known = connection.scalar(select(campaigns.c.campaign_id).where(campaigns.c.name == CAMPAIGN))
        if known is None:
            body = {"name": CAMPAIGN, "subject": readers.PLAIN, "template_id": str(template_id), "utm": UTM}
            known = int(self.faces.post("/campaigns/", body).json()["id"])
        self._campaign = known
        tests = self.faces.get("/ab-tests/", campaign_id=known)
        test = tests[0] if tests else self.faces.post("/ab-tests/", _test_of(known)).json()
        self._test = int(test["id"])
        if test["status"] == "draft":
            self.faces.post(f"/ab-tests/{self._test}/start")
        began = time.monotonic()
        if self.faces.get(f"/campaigns/{known}")["status"] == "draft":
            self.faces.post(f"/campaigns/{known}/send")
        self._send("the test's part of the campaign", "test")
        tried = self._ledger("test")[1]
        self.screen.line(f"{tried:,} mailed to find the better subject, {time.monotonic() - began:.1f} s; "
                         f"claimed {self._seconds_to_claim():.1f} s after the request")  # fmt: skip

    def readers(self) -> None:
        """Open, click and unsubscribe through the links in the mail; whoever has read theirs is left alone."""
        self.screen.head("Readers: real requests to the tracking links found in the sink's mail")
        with self.engine.connect() as connection:
            done = set(connection.scalars(
                select(contacts.c.email).distinct().join(hits, hits.c.contact_id == contacts.c.contact_id)
            ))  # fmt: skip
        began = time.monotonic()
        answered = readers.follow([each for each in readers.visits(self.mail_folder) if each.address not in done])
        if not answered:
            self.screen.line("they have read their mail already")
            return
        self.screen.line(f"{answered['open']:,} opened, {answered['click']:,} clicked, "
                         f"{answered['unsubscribe']:,} unsubscribed, {time.monotonic() - began:.1f} s")  # fmt: skip

    def decide(self) -> None:
        """Let the figures name the better subject; everybody else gets it."""
        self.screen.head("A/B test: POST /ab-tests/{id}/select-winner; DAG campaign_send mails the rest")
        found = self.faces.get(f"/ab-tests/{self._test}/results")
        control, other = found["variants"]
        if found["status"] == "running":
            # A handful of contacts prove nothing: then it is the control, by hand.
            chosen = "" if found["winner_variant_id"] else f"?variant_id={control['variant_id']}"
            self.faces.post(f"/ab-tests/{self._test}/select-winner{chosen}")
        shown = f"{other['open_rate']:.1f} % opened with a name in the subject, {control['open_rate']:.1f} % without"
        self.screen.line(f"{shown}: {found['decision']}")
        self.found["A/B test"] = f"{shown}: {found['decision']}"
        began = time.monotonic()
        self._send("the rest of the campaign", "rest")
        state = self.faces.get(f"/campaigns/{self._campaign}")
        self.screen.line(f"{state['total_sent']:,} sent, {state['total_skipped']:,} skipped with a reason, "
                         f"{state['total_unknown']:,} in doubt, {time.monotonic() - began:.1f} s")  # fmt: skip
        self.found["Sent"] = f"{state['total_sent']:,} of {state['total_recipients']:,} recipients"

    def buyers(self, everybody: Iterable[Person]) -> None:
        """Some of those who clicked order, as the shop would tell it."""
        self.screen.head("Buyers: POST /events/ with the orders of some who clicked")
        with self.engine.connect() as connection:
            clicked = set(connection.scalars(
                select(contacts.c.email).distinct().join(hits, hits.c.contact_id == contacts.c.contact_id)
                .where(hits.c.kind == "click")
            ))  # fmt: skip
            known = connection.scalar(
                select(func.count()).select_from(orders)
                .where(orders.c.source == history.SOURCE, orders.c.order_id.like("C%"))
            )  # fmt: skip
        if known:
            self.screen.line("they have ordered already")
            return
        told = list(history.sales((someone for someone in everybody if someone.email in clicked), datetime.now(UTC)))
        for first in range(0, len(told), 100):
            self.faces.post("/events/", told[first:first + 100])
        self.screen.line(f"{len(told):,} orders after a click")

    def welcome(self, now: datetime) -> None:
        """New sign-ups through the API, who confirm; `workflow_advance` enrols them and `campaign_send` mails them."""
        self.screen.head("Workflow: new sign-ups enter the welcome series; DAGs workflow_advance and campaign_send")
        began = time.monotonic()
        for number in range(NEWCOMERS):
            self._sign_up(f"newcomer{number}@signup.example")
        wait_until("the question whether it was them", lambda: self._sent("confirmation") >= NEWCOMERS, seconds=180,
                   tick=lambda: self.screen.bar(self._sent("confirmation"), NEWCOMERS, "asked"))  # fmt: skip
        self.screen.line(f"{readers.confirm(self.mail_folder)} pressed the button in their mail")
        wait_until("the welcome mail", lambda: self._welcomed() >= NEWCOMERS, seconds=180,
                   tick=lambda: self.screen.bar(self._welcomed(), NEWCOMERS, "welcomed"))  # fmt: skip
        with self.engine.connect() as connection:
            waiting = connection.scalar(
                select(func.count()).select_from(enrollments).where(enrollments.c.status == "waiting")
            )
        seconds = time.monotonic() - began
        self.screen.line(f"{NEWCOMERS} welcomed, {waiting} wait for their second mail, {seconds:.1f} s")
        self.found["Welcomed by workflow"] = f"{NEWCOMERS:,}"

    def cohorts(self) -> None:
        """Trigger `cohort_analytics`."""
        self.screen.head("Cohorts: DAG cohort_analytics")
        seconds = self._run_dag("cohort_analytics")
        with self.engine.connect() as connection:
            rows = connection.exec_driver_sql("select count(*) from analytics.contact_cohorts").scalar()
        self.screen.line(f"{rows:,} rows in analytics.contact_cohorts, {seconds:.1f} s")
        self.found["Cohort rows"] = f"{rows:,}"

    def figures(self) -> Iterable[tuple[str, str]]:
        """The closing table."""
        with self.engine.connect() as connection:
            people = connection.scalar(select(func.count()).select_from(contacts))
            row = connection.exec_driver_sql(
                "select * from analytics.campaign_performance order by campaign_id limit 1"
            ).one()
        if row.orders:
            money = f"{row.revenue:,.2f} {row.reporting_currency}"
            self.found["Revenue of the campaign"] = f"{money} of {row.orders:,} orders"
        self.found["Opened (people)"] = f"{row.unique_opens:,} ({row.open_rate:.1f} %)"
        self.found["Clicked (people)"] = f"{row.unique_clicks:,} ({row.click_rate:.1f} %)"
        self.found["Unsubscribed"] = f"{row.unsubscribed:,}"
        self.found["Contacts now"] = f"{people:,}"
        self.found["Mail in the sink"] = f"{self.faces.mails():,}"
        return self.found.items()

    def _run_dag(self, dag_id: str) -> float:
        began = time.monotonic()
        run_id = self.faces.trigger(dag_id)
        state = [""]

        def done() -> bool:
            state[0] = self.faces.run_state(dag_id, run_id)
            return state[0] in ("success", "failed")

        def tick() -> None:
            self.screen.bar(0, 1, f"run of {dag_id} ({state[0]})")

        wait_until(f"DAG {dag_id}", done, seconds=300, tick=tick)
        if state[0] == "failed":
            raise Conflict(f"DAG {dag_id} failed; its log is in the Airflow UI")
        return time.monotonic() - began

    def _send(self, what: str, part: str) -> None:
        """Wait until no mail of a part of the campaign waits, showing progress."""
        state: dict[str, Any] = {}

        def done() -> bool:
            state.update(self.faces.get(f"/campaigns/{self._campaign}"))
            open_rows, total = self._ledger(part)
            is_over = state["status"] == "sent" if part == "rest" else total > 0 and not open_rows
            return is_over or state["status"] not in ("draft", "sending")

        def tick() -> None:
            open_rows, total = self._ledger(part)
            self.screen.bar(total - open_rows, total, "messages")

        wait_until(what, done, seconds=600, tick=tick)
        if state["status"] not in ("sending", "sent"):
            raise Conflict(f"the campaign is {state['status']}: {state['status_reason']}")

    def _ledger(self, part: str) -> tuple[int, int]:
        """Messages of a part of the campaign: those that wait or are in flight, and all that are not skipped."""
        is_open = messages.c.status.in_(("queued", "sending"))
        planned = messages.join(campaigns, campaigns.c.campaign_id == messages.c.campaign_id)
        query = select(func.count().filter(is_open), func.count()).select_from(planned).where(
            messages.c.campaign_id == self._campaign, messages.c.ab_part == part, messages.c.status != "skipped",
            campaigns.c.planned_at.is_not(None),
        )  # fmt: skip
        with self.engine.connect() as connection:
            open_rows, total = connection.execute(query).one()
        return int(open_rows), int(total)

    def _seconds_to_claim(self) -> float:
        taken = campaigns.c.started_at - campaigns.c.requested_at
        query = select(taken).where(campaigns.c.campaign_id == self._campaign)
        with self.engine.connect() as connection:
            return float(connection.scalars(query).one().total_seconds())

    def _sign_up(self, address: str) -> None:
        """What a form with double opt-in does; whoever is there already is only asked if they have not confirmed."""
        body = {"email": address, "first_name": "Robin", "subscribed": False}
        self.faces.post("/contacts/", body, accept=(409,))
        (someone,) = self.faces.get("/contacts/", email=address)
        self.faces.post(f"/contacts/{someone['id']}/confirmation", {"wording_version": "demo"}, accept=(409,))

    def _welcomed(self) -> int:
        return self._sent("workflow")

    def _sent(self, kind: str) -> int:
        query = select(func.count()).where(messages.c.kind == kind, messages.c.sent_at.is_not(None))
        with self.engine.connect() as connection:
            return int(connection.scalar(query) or 0)


def _test_of(campaign_id: int) -> dict[str, Any]:
    """An A/B test of the two subjects on four of ten recipients, decided by hand."""
    return {
        "campaign_id": str(campaign_id), "name": "A name in the subject", "test_percentage": 40,
        "auto_select_winner": False,
        "variants": [{"name": name, "subject": subject} for name, subject in SUBJECTS.items()],
    }  # fmt: skip


def addresses(plan: Plan) -> list[tuple[str, str]]:
    """Where everything is, and how to sign in."""
    return [
        ("Airflow", plan.airflow_url),
        ("Overview", f"{plan.api_url}/dashboard"),
        ("REST API", f"{plan.api_url}/docs"),
        ("Mail sink", plan.mail_page_url),
        ("SQL", "make psql   (analyst, schema analytics)"),
        ("Sign in", f"{plan.settings.admin_email}, password in {plan.home.secrets_file}"),
    ]
