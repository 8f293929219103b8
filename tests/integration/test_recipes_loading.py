"""Loading a recipe: what it makes, that it makes it once, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import automations, recipes, workflows
from mautolib.errors import InvalidInput, NotFound
from mautolib.recipes.__main__ import main
from mautolib.recipes.book import FOLDER, resolved
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.model import TemplateChange
from mautolib.templates.starters import STARTERS
from mautolib.workflows import definition
from tests.architecture.source import ROOT

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def counts(tx: Connection) -> dict[str, int]:
    names = ("templates", "segments", "workflows", "workflow_versions", "automation_rules", "audit_log")
    return {name: tx.scalar(text(f"select count(*) from {name}")) or 0 for name in names}


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_is_made_once(tx: Connection, settings: Settings, name: str) -> None:
    recipe = recipes.recipe(name)
    made = recipes.load(tx, settings, recipe, now=NOW)
    assert {part.done for part in made} == {"made"}
    assert {part.active for part in made if part.kind in ("workflow", "automation rule")} == {False}
    before = counts(tx)
    assert before["audit_log"] == len(made)
    assert before["workflows"] == len(recipe.workflows) and before["automation_rules"] == len(recipe.rules)
    again = recipes.load(tx, settings, recipe, now=NOW)
    assert {part.done for part in again} == {"there already"}
    assert [part.number for part in again] == [part.number for part in made]
    assert counts(tx) == before
    for part in made:
        if part.kind == "workflow":
            assert '{"template"' not in json.dumps(workflows.get(tx, part.number).steps)


def test_loading_with_activate_switches_on_what_is_there(tx: Connection, settings: Settings) -> None:
    recipe = recipes.recipe("re-engagement")
    recipes.load(tx, settings, recipe, now=NOW)
    parts = recipes.load(tx, settings, recipe, activate=True, now=NOW)
    assert [(part.kind, part.done) for part in parts if part.active is not None] == [
        ("workflow", "switched on"), ("automation rule", "switched on")]  # fmt: skip
    assert workflows.search(tx)[0].active and automations.search(tx)[0].active
    actions = tx.scalars(text("select action from audit_log where status = 200 order by audit_id")).all()
    assert actions == ["workflow.activate", "automation_rule.update"]
    labels = tx.scalars(text("select distinct actor_type || ' ' || actor_label from audit_log")).all()
    assert labels == ["system recipes"]


def test_what_a_user_has_changed_stays(tx: Connection, settings: Settings) -> None:
    recipe = recipes.recipe("abandoned-cart")
    number = recipes.load(tx, settings, recipe, activate=True, now=NOW)[-1].number
    workflows.update(tx, number, {"trigger_config": {"after_minutes": 30}}, actor="user:1", now=NOW)
    template = catalogue.get_by_name(tx, "Cart reminder")
    assert template is not None
    catalogue.revise(tx, template.template_id, TemplateChange(subject="Ours"), now=NOW)
    workflows.deactivate(tx, number, actor="user:1", now=NOW)
    assert {part.done for part in recipes.load(tx, settings, recipe, now=NOW)} == {"there already"}
    found = workflows.get(tx, number)
    assert (found.trigger_config, found.active, found.version) == ({"after_minutes": 30}, False, 2)
    assert catalogue.get(tx, template.template_id).subject == "Ours"


def test_a_template_that_is_faulty_now_is_refused(tx: Connection, settings: Settings) -> None:
    recipe = recipes.recipe("abandoned-cart")
    recipes.load(tx, settings, recipe, now=NOW)
    template = catalogue.get_by_name(tx, "Cart reminder")
    assert template is not None
    catalogue.revise(tx, template.template_id, TemplateChange(html_body="<p>{{ contact.</p>"), now=NOW)
    with pytest.raises(InvalidInput, match="The template is faulty"):
        recipes.load(tx, settings, recipe, activate=True, now=NOW)


def test_the_command_lists_shows_and_loads(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Settings, "from_env", classmethod(lambda cls: settings))
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(recipes.NAMES)
    assert main(["show", "abandoned-cart"]) == 0
    assert json.loads(capsys.readouterr().out)["workflows"][0]["trigger_type"] == "cart_abandoned"
    assert main(["load", "abandoned-cart"]) == 0
    out = capsys.readouterr().out
    assert "made          workflow 1 'Abandoned cart', not active" in out and "--activate" in out
    assert main(["load", "abandoned-cart", "--activate"]) == 0
    assert "switched on   workflow 1 'Abandoned cart', active" in capsys.readouterr().out
    assert main(["load", "cart"]) == 1
    assert "no recipe 'cart'; there are welcome-series, abandoned-cart" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["load"])
    assert ended.value.code == 2


def test_a_database_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: Any) -> None:
    monkeypatch.setenv("MAUTO_DATABASE_URL", "postgresql://nobody:x@127.0.0.1:1/none")
    assert main(["load", "abandoned-cart"]) == 1
    assert "not done" in capsys.readouterr().err


def test_an_unknown_recipe_is_not_found() -> None:
    with pytest.raises(NotFound, match=r"There is no recipe '\.\./x'"):
        recipes.recipe("../x")


def test_every_file_is_a_recipe_and_every_recipe_is_explained() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(recipes.NAMES)
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "recipes").glob("*.md")}
    assert set(pages) == {*recipes.NAMES, "README"}
    for name in recipes.NAMES:
        recipe, page = recipes.recipe(name), pages[name]
        assert page.startswith(f"# {recipe.title}\n")
        assert f"({name}.md)" in pages["README"] and f"load {name}" in page
        for part in (*recipe.segments, *recipe.workflows, *recipe.rules):
            assert part["name"] in page, part["name"]
        for workflow in recipe.workflows:
            for wait in waits(workflow):
                assert wait in page, (name, wait)


def waits(workflow: dict[str, Any]) -> list[str]:
    """What a page has to say of the times in a workflow."""
    minutes = workflow["trigger_config"].get("after_minutes")
    found = [] if minutes is None else [f"{minutes} minutes"]
    ids = {("template", key): 1 for key in STARTERS} | {("segment", key): 1 for key in ("silent", "customers")}
    for node in definition.read(resolved(workflow["steps"], ids)).nodes.values():
        for key in ("hours", "timeout_hours"):
            if node.fields.has(key):
                found.append(f"{node.fields.any(key)} hours")
        if node.fields.has("until"):
            found.append(node.fields.any("until")["time"])
    return found
