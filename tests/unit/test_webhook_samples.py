"""The signature checks of docs/webhooks.md, run as they stand there, against what this service really signs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mautolib.outbox import FactName
from mautolib.webhooks.signing import standard_signature

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain secret", "schlüssel ✓ ключ", "whsec")
BODIES = (b'{"id":"msg_1","data":{}}', '{"name":"Núñez 🍵 名"}'.encode(), b'{"a":"' + b"x" * 20_000 + b'"}', b"")


def cases() -> list[dict[str, Any]]:
    """What a receiver may be asked, and what it has to answer."""
    now, found = int(time.time()), []

    def add(
        expected: bool, secret: str, body: bytes, *, sent: bytes | None = None, at: int = now, **changes: str
    ) -> None:
        changes = {name.replace("_", "-"): value for name, value in changes.items()}
        signature = standard_signature((secret,), "msg_1", at, body)
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature, **changes}
        text = (body if sent is None else sent).decode()
        found.append({"secret": secret, "headers": headers, "body": text, "expected": expected})

    for secret in SECRETS:
        for body in BODIES:
            add(True, secret, body)
            add(False, secret, body, sent=body + b" ")
    first, body = SECRETS[0], BODIES[0]
    both = standard_signature((SECRETS[1], first), "msg_1", now, body)
    add(True, first, body, webhook_signature=both)
    add(True, first, body, at=now - 290)
    add(False, first, body, at=now - 330)
    add(False, first, body, at=now + 330)
    add(False, first, body, webhook_id="msg_2")
    for forged in ("", "v1,", both.split(" ")[0], "v2," + both.split(",")[2]):
        add(False, first, body, webhook_signature=forged)
    return found


def sample(language: str) -> str:
    """The code block of one language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    return str(found)


@cache
def node() -> str | None:
    """The Node of the machine, or the one that playwright brings."""
    if found := shutil.which("node"):
        return found
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        return None
    return str(compute_driver_executable()[0])


def answers(command: list[str], program: str, given: list[dict[str, Any]]) -> list[bool]:
    done = subprocess.run(
        [*command, program], input=json.dumps(given), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


_PYTHON = """
import json, sys
print(json.dumps([is_genuine(one["secret"], one["headers"], one["body"].encode()) for one in json.load(sys.stdin)]))
"""
_NODE = """
const given = JSON.parse(require("node:fs").readFileSync(0));
console.log(JSON.stringify(given.map((one) => isGenuine(one.secret, one.headers, Buffer.from(one.body)))));
"""
_PHP = """
$given = json_decode(stream_get_contents(STDIN), true);
echo json_encode(array_map(fn($one) => is_genuine($one['secret'], $one['headers'], $one['body']), $given));
"""


@pytest.mark.parametrize("language", ["python", "javascript", "php"])
def test_the_sample_believes_us_and_nobody_else(language: str) -> None:
    given = cases()
    if language == "python":
        command, program = [sys.executable, "-c"], sample(language) + _PYTHON
    elif language == "javascript":
        if node() is None:
            pytest.skip("no Node on this machine")
        command, program = [str(node()), "-e"], sample(language) + _NODE
    else:
        php = shutil.which("php")
        if php is None:
            pytest.skip("no PHP on this machine")
        command, program = [php, "-r"], sample(language).removeprefix("<?php\n") + _PHP
    assert answers(command, program, given) == [one["expected"] for one in given]


def test_the_document_names_every_event() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert set(FactName) <= set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text))
    for block in re.findall(r"^```json\n(.*?)^```", text, re.M | re.S):
        json.loads(block)
