"""Group C: names in a request for a view are looked up and never written into SQL; reading can do nothing else."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.analytics import readers_views
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput
from tests.live_service import LiveService, as_role
from tests.security.test_c_filters import INJECTIONS

VIEWS = "/api/v1/analytics/views"


@pytest.mark.parametrize("view", [
    "contacts", "public.contacts", "users", "pg_class", "pg_user", "dim_contacts--", "dim_contacts;select 1",
    'dim_contacts" where 1=1 --', "DIM_CONTACTS", "analytics.dim_contacts", "dim_contacts ", "*", "a" * 64, "a" * 5000,
    "%00", "dim_contacts%00", "\u0131", *INJECTIONS,
])  # fmt: skip
def test_c10_a_view_is_one_of_the_catalogue(viewer: httpx.Client, view: str) -> None:
    given = view if "%00" in view else quote(view, safe="")
    answer = viewer.get(f"{VIEWS}/{given}")
    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("name", [
    "email", "1=1", "contact_id) or (1=1", "contact_id;drop table contacts", "contact_id--", '"contact_id"', "tags",
    "country", "Contact_id", "contact_id ", "contact_id::text", "__class__", "order by", *INJECTIONS,
])  # fmt: skip
def test_c11_a_filter_is_a_column_of_the_grain(viewer: httpx.Client, name: str) -> None:
    answer = viewer.get(f"{VIEWS}/dim_contacts", params={name: "1"})
    assert answer.status_code == 422, answer.text
    told = answer.json()["detail"][0]
    assert told["loc"] == ["query", name] and told["msg"].endswith("there are contact_id")


@pytest.mark.parametrize("value", ["", "1 or 1=1", "1;select pg_sleep(9)", "NaN", "9" * 40, "-1.5", "١", *INJECTIONS])
def test_c12_a_number_is_a_number(viewer: httpx.Client, value: str) -> None:
    answer = viewer.get(f"{VIEWS}/dim_contacts", params={"contact_id": value})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "contact_id"])


@pytest.mark.parametrize("value", INJECTIONS)
def test_c13_a_text_is_only_compared(viewer: httpx.Client, value: str) -> None:
    answer = viewer.get(f"{VIEWS}/lifecycle_funnel", params={"stage": value})
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(("name", "value"), [
    ("as_of", "2026-02-30"), ("as_of", "infinity"), ("as_of", "now"), ("from", "infinity"), ("from", "2026-1-1"),
    ("to", "0001-01-01"), ("to", "2026-01-01'"), ("limit", "1;--"), ("format", "xml"), ("cursor", "x"),
])  # fmt: skip
def test_c14_days_and_bounds_are_checked(viewer: httpx.Client, name: str, value: str) -> None:
    assert viewer.get(f"{VIEWS}/lifecycle_funnel", params={name: value}).status_code == 422


def test_c15_a_filter_is_given_once(viewer: httpx.Client) -> None:
    answer = viewer.get(f"{VIEWS}/lifecycle_funnel?stage=lead&stage=customer")
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "given_twice")


@pytest.mark.parametrize(("statement", "refusal"), [
    ("select count(*) from public.contacts", "permission denied"), ("select count(*) from users", "does not exist"),
    ("create table analytics.x (y int)", "permission denied|read-only"),
    ("insert into analytics.contact_cohorts (granularity) values ('day')", "permission denied|read-only"),
    ("select pg_sleep(30)", "takes longer than 0.3 seconds"),
])  # fmt: skip
def test_c16_reading_has_the_rights_of_an_analyst(
    fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch, statement: str, refusal: str
) -> None:
    monkeypatch.setattr(readers_views, "TIMEOUT_MS", 300)
    with as_role(fresh_engine, "mauto_api") as url:
        engine = connect(url)
        with pytest.raises((DBAPIError, InvalidInput), match=refusal), readers_views.reading_views(engine) as tx:
            tx.execute(text(statement))
        engine.dispose()


def test_c17_the_api_may_read_every_view(fresh_engine: Engine) -> None:
    with as_role(fresh_engine, "mauto_api") as url:
        engine = connect(url)
        with readers_views.reading_views(engine) as tx:
            assert tx.scalar(text("select current_user")) == "mauto_analyst"
            for relation in readers_views.listed(tx):
                found = readers_views.rows(tx, relation, filters={}, from_=None, to=None, limit=1, count_limit=1)
                assert found == ([], 0), relation.name
        engine.dispose()


def test_c18_nobody_reads_views_without_signing_in(nobody: httpx.Client, service: LiveService) -> None:
    assert [nobody.get(path).status_code for path in (VIEWS, f"{VIEWS}/dim_contacts")] == [401, 401]
    with service.client("viewer") as viewer:
        answer = viewer.get(f"{VIEWS}/dim_contacts", params={"limit": 1})
    assert answer.headers["Cache-Control"] == "no-store"
