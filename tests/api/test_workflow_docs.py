"""The examples of docs/workflows.md, sent to the API and triggered."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import httpx
import pytest

from mautolib.workflows.model import TriggerType
from mautolib.workflows.steps import ACTIONS, STEPS
from tests.architecture.source import ROOT

TEXT = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_an_example_is_accepted_and_runs(editor: httpx.Client, example: dict[str, Any]) -> None:
    body = {"name": f"t {uuid.uuid4()}", "subject": "Hello", "html_body": "<p>Hello</p>"}
    template = editor.post("/api/v1/templates/", json=body).json()["id"]
    body = json.loads(json.dumps(example).replace('"template_id": "3"', f'"template_id": "{template}"'))
    answer = editor.post("/api/v1/workflows/", json=body)
    assert answer.status_code == 201, answer.text
    assert {name: answer.json()[name] for name in body} == body
    path = f"/api/v1/workflows/{answer.json()['id']}"
    assert editor.patch(f"{path}/activate").json()["active"] is True
    contact = editor.post("/api/v1/contacts/", json={"email": f"docs-{uuid.uuid4().hex}@shop.example"}).json()["id"]
    done = editor.post(f"{path}/trigger", json={"contact_id": contact}).json()
    assert (done["status"], done["results"][-1].get("queued")) == ("waiting", True)
    # Nobody else is to enter in other tests of this database.
    assert editor.delete(path).status_code == 204


def test_every_trigger_step_and_action_is_explained() -> None:
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
    for name in (*TriggerType, *STEPS, *ACTIONS):
        assert f"`{name}`" in table, name
