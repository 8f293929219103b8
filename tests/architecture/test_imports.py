"""Who may import whom (ARCHITECTURE.md): faces on top, domains inside, only downward, no cycles."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, imports, name_of, tracked, tree_of

#: Lower number = lower layer. A module imports its own package and lower layers only.
LAYERS = [
    {"errors", "settings", "log", "name_servers"},
    {"db"},
    {"events", "ledger", "outbox", "statistics"},
    {"auth", "contacts"},
    {"segments", "templates", "channels", "classification", "ingestion"},
    {"campaigns", "scoring"},
    {"workflows", "automations", "webhooks", "privacy"},
    {"dispatch", "feedback", "analytics", "pages", "maintenance", "recipes"},
    {"stack", "demo"},
    {"cli"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
#: Arrows inside one layer, each with its reason.
BESIDE = {
    ("settings", "errors"): "a setting that cannot be read is a Misconfigured",
    ("ledger", "events"): "a hand-over is a fact: recording it appends email_sent",
    ("ledger", "outbox"): "and is a fact for webhooks",
    ("events", "outbox"): "a recorded fact is offered to webhooks in the same transaction",
    ("events", "classification"): "a hit gets its verdict when it is recorded; the rules are pure functions",
    ("demo", "stack"): "the demo starts the stack",
    ("auth", "contacts"): "users and contacts are told apart by the same address key",
    ("automations", "workflows"): "rules and workflows share their actions",
    ("workflows", "webhooks"): "a step may call an address: its deliveries are theirs",
    ("automations", "webhooks"): "as a rule may",
    ("pages", "analytics"): "the dashboard shows the readers of the views",
}
BANNED = {
    "mautolib": {"airflow", "fastapi", "pydantic", "starlette", "api", "dags", "mauto_airflow"},
    "api": {"airflow", "dags", "mauto_airflow"},
    "dags": {"api", "sqlalchemy", "psycopg2", "pandas", "mautolib"},
    "plugins": {"api", "dags"},
}
_SQL = re.compile(r"\s*(select\b.+\bfrom|insert\s+into|update\b.+\bset|delete\s+from|with\b.+\bas)\s", re.I | re.S)
HEAVY = {"pandas", "scipy", "boto3", "numpy", "pyarrow"}


def offences(source: str, face: str, module: str) -> list[str]:
    """What `source`, living at `module` under `face`, imports against the rules."""
    found = []
    tree = ast.parse(source)
    for target in imports(tree):
        top = target.split(".")[0]
        if top in BANNED.get(face, set()):
            found.append(f"{module} imports {target}: {face} must not know {top}")
        if face == "mautolib" and top == "mautolib":
            found += _sideways(module, target)
    for target in imports(tree, top_level_only=True):
        if target.split(".")[0] in HEAVY and face != "benchmarks":
            found.append(f"{module} imports {target} at its top: import it inside the function that needs it")
    return found


def _sideways(module: str, target: str) -> list[str]:
    own, other = module.split(".")[1], [*target.split("."), ""][1]
    if other in ("", "__version__") or own == "__init__":
        return []
    if own not in LEVEL or other not in LEVEL:
        return [f"{module}: {own} or {other} has no layer"]
    found = []
    if own != other and LEVEL[other] >= LEVEL[own] and (own, other) not in BESIDE:
        found.append(f"{module} imports {target}: {other} is not below {own}")
    if own != other and target.split(".")[2:3] == ["store"]:
        found.append(f"{module} imports {target}: call a verb of {other}, not its store")
    return found


@pytest.mark.parametrize("path", tracked(), ids=name_of)
def test_imports_point_downward(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    assert offences(path.read_text(encoding="utf-8"), parts[0], ".".join(parts)) == []


@pytest.mark.parametrize(
    ("face", "module", "source"),
    [
        ("mautolib", "mautolib.contacts.store", "import fastapi"),
        ("mautolib", "mautolib.contacts.store", "from airflow.sdk import task"),
        ("mautolib", "mautolib.events.append", "from mautolib.campaigns import sending"),
        ("mautolib", "mautolib.campaigns.sending", "from mautolib.contacts.store import get"),
        ("dags", "dags.campaign_send", "from sqlalchemy import text"),
        ("api", "api.app", "from dags import campaign_send"),
        ("mautolib", "mautolib.scoring.model", "import pandas"),
    ],
)
def test_a_forbidden_import_is_seen(face: str, module: str, source: str) -> None:
    assert offences(source, face, module)


def test_there_is_no_cycle_between_packages() -> None:
    arrows: dict[str, set[str]] = {}
    for path in tracked():
        parts = path.relative_to(ROOT).parts
        if parts[0] != "mautolib" or len(parts) < 3:
            continue
        for target in imports(tree_of(path), top_level_only=True):
            other = target.split(".")
            if other[0] == "mautolib" and len(other) > 1 and other[1] != parts[1]:
                arrows.setdefault(parts[1], set()).add(other[1])
    while arrows:
        free = [package for package, targets in arrows.items() if not targets & arrows.keys()]
        assert free, f"these packages import each other in a circle: {sorted(arrows)}"
        for package in free:
            del arrows[package]


@pytest.mark.parametrize("folder", ["dags", "api"])
def test_the_faces_contain_no_sql(folder: str) -> None:
    offenders = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value):
                offenders.append(f"{name_of(path)}:{node.lineno}")
    assert offenders == []
