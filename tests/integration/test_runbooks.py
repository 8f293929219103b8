"""The shell blocks of docs/operations.md are run as they stand, or it is said here why they are not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import finishing, sending
from mautolib.db.engine import connect
from mautolib.db.localpg import temporary_cluster
from mautolib.ledger import check
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.chaos.operations import environment
from tests.integration.mailing import launched

ROOT = Path(__file__).parents[2]
RUN = "run"
#: What becomes of the blocks under each heading, in their order.
BLOCKS = {
    "Your own PostgreSQL": ("settings for a server elsewhere", "settings for a server elsewhere"),
    "Alerts": ("settings of channels; `mauto alert test` is in test_cli.py",),
    "Backup and restore": (RUN, RUN),
    "Rotate secrets": ("test_rotation.py",) * 4,
    "The mail provider": ("test_provider_runbooks.py",) * 3,
    "Upgrade": (
        "fetches a newer version; `mauto upgrade` itself is in test_operator.py",
        "`make upgrade-check`", "`make upgrade-check`", "test_rotation.py",
    ),
    "Containers": ("needs a container engine",),
    "Stop, reset, uninstall": ("ends the stack of this checkout; test_stack_life.py does it to one of its own",),
}


def found() -> dict[str, list[str]]:
    """The shell blocks under each heading."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    sections = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:]
    blocks = {
        heading: re.findall(r"^```sh\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
        for heading, body in zip(sections[::2], sections[1::2], strict=True)
    }
    return {heading: of_it for heading, of_it in blocks.items() if of_it}


def test_every_block_is_run_or_says_why_not() -> None:
    assert {heading: len(of_it) for heading, of_it in found().items()} == {
        heading: len(of_it) for heading, of_it in BLOCKS.items()
    }  # fmt: skip


def run(block: str, given: Settings, folder: Path, *, codes: Sequence[int] = ()) -> str:
    """What a block says, line by line, in a shell where `mauto` is installed.

    Args:
        codes: the exit codes of its commands, in order; beyond them 0.
    """
    said, left = "", list(codes)
    variables = {**environment(given), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    for line in block.splitlines():
        script = f'mauto() {{ "{sys.executable}" -m mautolib.cli "$@"; }}\n{line}'
        done = subprocess.run(["bash", "-c", script], cwd=folder, env=variables, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == (left.pop(0) if left else 0), f"{line}\n{done.stdout}{done.stderr}"
        said += done.stdout
    return said


@pytest.mark.slow
def test_a_backup_comes_back_on_a_new_server_and_nothing_is_sent_again(
    fresh_engine: Engine, fresh_database_url: str, settings: Settings, tmp_path: Path
) -> None:
    """The backup runbook, the loss of the server, the restore runbook on another one."""
    backing_up, restoring = found()["Backup and restore"]
    home = tmp_path / ".mauto"
    (home / "storage").mkdir(parents=True)
    (home / "secrets.env").write_text("MAUTO_SECRET_KEYS=x\n", encoding="utf-8")
    with MailSink(tmp_path / "sink") as sink, temporary_cluster() as other:
        other.create_database("mauto")
        given = replace(settings, database_url=fresh_database_url, smtp_port=sink.smtp_port, home=home)
        launched(fresh_engine, given, 5, now=datetime.now(UTC))
        said = run(backing_up, given, tmp_path)
        assert "restored 5 contacts; 0 findings of the ledger check" in said
        assert (tmp_path / "backup" / "secrets.env").is_file() and (tmp_path / "backup" / "storage").is_dir()
        sending.pump(fresh_engine, given)
        assert len(before := check.read_sink_log(tmp_path / "sink")) == 5

        there = replace(given, database_url=other.url("mauto"))
        said = run(restoring, there, tmp_path, codes=(0, 1, 0))
        assert "sending is OFF" in said and "5 messages from before the restore are in doubt" in said
        engine = connect(there.database_url)
        sending.pump(engine, there)
        assert check.read_sink_log(tmp_path / "sink") == before, "nothing is sent again"
        settling = f"mauto unknown settle --sink-log {tmp_path}/sink --complete-until 2100-01-01T00:00:00"
        assert "5 were sent, 0 are queued again" in run(settling, there, tmp_path)
        finishing.finish(engine, datetime.now(UTC))
        assert "ledger clean" in run(f"mauto ledger check --sink-log {tmp_path}/sink", there, tmp_path)
        with engine.connect() as tx:
            assert tx.scalar(text("select status from campaigns")) == "sent"
        engine.dispose()
