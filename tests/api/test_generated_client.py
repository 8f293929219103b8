"""A client generated from the document: made without a warning, complete, and able to do a day's work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from tests.api.contract import COMMITTED, served
from tests.live_service import ADMIN, PASSWORD, LiveService

PACKAGE = "mauto_client"
#: The generator knows few media types; these bodies are plain bytes to it.
_CONFIG = """
literal_enums: true
post_hooks: []
content_type_overrides:
  text/csv: application/octet-stream
  application/gzip: application/octet-stream
  image/gif: application/octet-stream
"""


@pytest.fixture(scope="module")
def client_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package generated from the committed document."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yml").write_text(_CONFIG)
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--path", str(COMMITTED),
        "--output-path", str(folder / PACKAGE), "--meta", "none", "--config", str(folder / "config.yml"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warning" not in said.lower(), said
    sys.path.insert(0, str(folder))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def part(name: str) -> Any:
    """A module of the generated package."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_every_operation_is_a_function_of_the_client(client_package: ModuleType) -> None:
    openapi = json.loads(COMMITTED.read_text())
    folder = Path(client_package.__file__ or "").parent / "api"
    files = [file for file in folder.glob("*/*.py") if file.stem != "__init__"]
    for file in files:
        assert part(f"api.{file.parent.name}.{file.stem}")
    made = {file.stem for file in files}
    assert made == {operation["operationId"].rstrip("_") for operation in served(openapi).values()}


def test_the_client_works(client_package: ModuleType, service: LiveService) -> None:
    models = part("models")
    with client_package.Client(base_url=service.url) as stranger:
        signed = part("api.sign_in.login").sync(client=stranger, body=models.Login(email=ADMIN, password=PASSWORD))
    with client_package.AuthenticatedClient(base_url=service.url, token=signed.access_token) as client:
        me = part("api.sign_in.me").sync(client=client)
        assert (me.email, me.role) == (ADMIN, "admin")
        _work(client, models)
        assert part("api.sign_in.logout").sync_detailed(client=client, body=models.Logout()).status_code == 204
        assert part("api.sign_in.me").sync(client=client).status == 401


def _work(client: Any, models: Any) -> None:
    email = f"{uuid4().hex}@shop.example"
    body = models.ContactCreate(email=email, first_name="Ana")
    key = uuid4().hex
    create = part("api.contacts.create_contact")
    made = create.sync(client=client, body=body, idempotency_key=key)
    assert (made.email, made.first_name, made.subscribed) == (email, "Ana", True)
    again = create.sync_detailed(client=client, body=body, idempotency_key=key)
    assert (again.parsed.id, again.headers["Idempotency-Replayed"]) == (made.id, "true")
    refused = create.sync(client=client, body=body)
    assert (refused.status, refused.code) == (409, "duplicate")

    assert [row.id for row in part("api.contacts.list_contacts").sync(client=client, email=email, limit=5)] == [made.id]
    assert part("api.contacts.count_contacts").sync(client=client, email=email).count == 1
    get = part("api.contacts.get_contact")
    shown = get.sync_detailed(made.id, client=client)
    assert shown.parsed.to_dict() == made.to_dict()
    patch = models.ContactPatch(first_name="Ana Maria")
    update = part("api.contacts.update_contact")
    tag = shown.headers["ETag"]
    changed = update.sync_detailed(made.id, client=client, body=patch, if_match=tag)
    assert changed.status_code == 200, changed.content
    assert changed.parsed.first_name == "Ana Maria" and changed.headers["ETag"] != tag
    assert update.sync(made.id, client=client, body=patch, if_match=tag).code == "precondition_failed"
    delete = part("api.contacts.delete_contact")
    assert delete.sync_detailed(made.id, client=client).status_code == 204
    assert get.sync(made.id, client=client).code == "not_found"
