"""Faults put into a copy of the code, one after the other: each must turn a test red.

`python -m tests.planted_bugs [NAME ...]`; not part of the suite. The tests named here are first run on the copy as it
is, where all must pass. Exit code 0 only if every fault was found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
Edit = tuple[str, str, str]


@dataclass(frozen=True)
class Bug:
    """A fault: what is replaced by what in which file, and the tests that must find it."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


_SENDMAIL = '''

def _with_sendmail(self, messages, watch):
    import smtplib
    for message in messages:
        kept = watch.before(message)
        if kept is not None:
            yield kept
            continue
        watch.begins(message)
        try:
            with smtplib.SMTP(self._server.host, self._server.port, timeout=self._server.answer_seconds) as server:
                server.sendmail(message.sender, [message.recipient], message.data)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            yield refusal(Stage.RCPT, Reply(code=code, text=text.decode()))
        except (smtplib.SMTPException, OSError) as error:
            yield Result(verdict=Verdict.DEFERRED, stage=Stage.DOT, reply=str(error))
        else:
            yield Result(verdict=Verdict.SENT, stage=Stage.DOT, code=250)


SmtpEmail.deliver = _with_sendmail
'''
_PUMP: Final = "mautolib/campaigns/sending.py"
_LEDGER: Final = "sql/queries/ledger.sql"
_CRASHES: Final = "tests/integration/test_sending_crashes.py::test_a_pump_that_dies_leaves_at_most_one_doubt"
_CHAOS: Final = "tests/integration/test_sending_chaos.py"
_AB_TESTS: Final = "tests/integration/test_experiment_sending.py"
_AB_RESULTS: Final = "tests/integration/test_experiment_results.py"
BUGS: Final = (
    Bug(
        "commit after batch",
        (
            (_PUMP, "group = self._turnstile.next_group(tx, attempt_id, asked)",
             "group = self._turnstile.next_group(tx, attempt_id, asked)\n"
             "                        self._done = self._hand(group) if group.messages else []"),
            (_PUMP, "                    group = self._turn(outcomes, goes_on, asked)",
             "                    self._hand = lambda group, asked_at=asked_at: "
             "self._carry(threads, couriers, group, asked_at)\n"
             "                    group = self._turn(outcomes, goes_on, asked)"),
            (_PUMP, "outcomes = self._carry(threads, couriers, group, asked_at) if group.messages else []",
             "outcomes = self._done"),
        ),
        (_CRASHES,),
    ),
    Bug(
        "no fence",
        (
            (_LEDGER, "        and messages.attempt_id = outcomes.attempt_id\n        and messages.status in",
             "        and messages.status in"),
            (_LEDGER, "        and messages.attempt_id = cast(:attempt_id as bigint)\n        and messages.status in"
             " ('sending', 'unknown')\n    returning", "        and messages.status in ('sending', 'unknown')\n"
             "    returning"),
        ),
        ("tests/integration/test_ledger.py::test_only_the_holder_may_write",),
    ),
    Bug(
        "no fence of webhooks",
        (("sql/queries/webhooks.sql", "        and webhook_deliveries.attempt_id = outcomes.attempt_id\n", ""),),
        ("tests/integration/test_webhook_delivery.py::test_an_outcome_of_a_lost_lease_changes_nothing",),
    ),
    Bug(
        "addresses of webhooks not checked",
        (("mautolib/webhooks/connecting.py", "        if refusal:\n            raise Refusal(refusal)\n", ""),),
        ("tests/security/test_g_deliveries.py::test_g4_names_that_lead_inside",
         "tests/security/test_g_deliveries.py::test_g5_a_name_is_asked_for_once_an_attempt_and_the_second_answer_never_used"),
    ),
    Bug(
        "no quiet period",
        ((_LEDGER, "- make_interval(secs => cast(:quiet_seconds as float8))",
          "- 0 * make_interval(secs => cast(:quiet_seconds as float8))"),),
        ("tests/integration/test_ledger.py::test_a_complete_log_settles_doubts",
         "tests/integration/test_ledger.py::test_only_mail_that_is_better_twice_than_never_is_sent_again_by_itself"),
    ),
    Bug(
        "missing suppression check at the claim",
        ((_LEDGER, "            when refusals.refusal is not null then refusals.refusal",
          "            when refusals.refusal <> 'suppressed' then refusals.refusal"),),
        ("tests/integration/test_sending.py::test_the_claim_looks_again",),
    ),
    Bug(
        "missing suppression check before the hand-over",
        (("mautolib/campaigns/courier.py", "RECHECK_SECONDS: Final = 0.5", "RECHECK_SECONDS: Final = 1e9"),),
        ("tests/integration/test_opt_outs_while_sending.py",),
    ),
    Bug(
        "GET unsubscribes",
        (("api/unsubscribe.py", "        else:\n            await self._ask(asked, s, token)\n\n    async def act",
          "        else:\n            await self.unsubscribe(asked, token)\n"
          "            await self._ask(asked, s, token)\n\n    async def act"),),
        ("tests/security/test_f_tracking.py::test_f8_looking_at_the_page_changes_nothing",),
    ),
    Bug(
        "redirect by parameter",
        (("api/tracking.py",
          "        if token is not None:\n            await self._keep(asked, HitKind.CLICK, token, url)\n",
          "        if True:\n            if token is not None:\n"
          "                await self._keep(asked, HitKind.CLICK, token, url)\n"),),
        ("tests/security/test_f_tracking.py::test_f1_no_address_of_an_attacker_is_redirected_to",),
    ),
    Bug(
        "sendmail()",
        (("mautolib/channels/smtp_email.py", "", _SENDMAIL),),
        ("tests/contracts/test_smtp_outcomes.py::test_a_reply_decides_one_message",
         "tests/contracts/test_channels.py::test_an_address_that_cannot_be_said_fails_without_a_word"),
    ),
    Bug(
        "leases that ran out are sent again",
        ((_LEDGER, "    set status = 'unknown', lease_until = null, last_error = 'the sender did not come back'",
          "    set status = 'queued', lease_until = null, last_error = 'the sender did not come back'"),),
        (_CHAOS, "tests/integration/test_ledger.py::test_a_lease_that_ran_out_is_a_doubt_that_its_holder_may_still_"
         "settle"),
    ),
    Bug(
        "rows locked by others are not skipped",
        ((_LEDGER, "        for update skip locked\n    ) as due", "    ) as due"),),
        ("tests/integration/test_ledger.py::test_no_two_senders_hold_one_message",),
    ),
    Bug(
        "the journal is written after the dot",
        (("mautolib/campaigns/courier.py",
          "        self._shift.journal.begins(message.attempt_id, message.contact_id, message.message_id)\n", ""),),
        (_CRASHES, _CHAOS),
    ),
    Bug(
        "boto3 tries again by itself",
        (("mautolib/channels/ses_email.py", '"total_max_attempts": 1', '"total_max_attempts": 4'),),
        ("tests/contracts/test_ses_outcomes.py::test_silence_after_the_request_is_a_doubt_and_is_not_repeated",),
    ),
    Bug(
        "a hold-out is mailed",
        (("mautolib/campaigns/audience.py", "case((kept, Skip.HOLDOUT.value), else_=reason)",
          "case((kept, null()), else_=reason)"),),
        (f"{_AB_TESTS}::test_a_test_divides_its_audience",),
    ),
    Bug(
        "an A/B test is decided without a look at what others did",
        (("mautolib/campaigns/experiment_steps.py",
          "    if not _waits_for_nobody(test, now):\n        return False\n    found", "    found"),),
        (f"{_AB_TESTS}::test_a_decision_that_comes_second_changes_nothing",),
    ),
    Bug(
        "who was released is released again",
        (("sql/queries/ab_sending.sql", "        and messages.next_try_at = timestamptz '9999-01-01 00:00+00'\n"
          "        and messages.held_for = 'ab_test'\n        and messages.ab_part = 'rest'\n    limit",
          "        and messages.ab_part = 'rest'\n    limit"),
         ("sql/queries/ab_sending.sql", "\n    and messages.status = 'queued'\n    and messages.held_for = 'ab_test';",
          ";")),
        (f"{_AB_TESTS}::test_a_release_is_begun_again_without_harm",),
    ),
    Bug(
        "an edited window lets those out who wait for a decision",
        (("sql/queries/pacing.sql", "        and next_try_at < timestamptz '9999-01-01 00:00+00'\n", ""),),
        ("tests/integration/test_experiment_pacing.py::test_an_edited_window_lets_nobody_out",),
    ),
    Bug(
        "the rest that got the winner is compared",
        (("sql/migrations/0041_ab_tests.sql",
          "    from messages\n    where variant_id = variants.variant_id and ab_part = 'test'\n",
          "    from messages\n    where variant_id = variants.variant_id\n"),),
        (f"{_AB_RESULTS}::test_the_rest_that_got_the_winner_is_not_compared",),
    ),
    Bug(
        "an older verdict on an open counts",
        (("sql/migrations/0041_ab_tests.sql", "later.rule_version > given.rule_version", "false"),),
        (f"{_AB_RESULTS}::test_only_people_open_and_the_newest_verdict_counts",),
    ),
    Bug(
        "orders count for ever",
        (("sql/migrations/0041_ab_tests.sql",
          "messages.sent_at + make_interval(hours => 24 * tests.conversion_days)", "'infinity'"),),
        (f"{_AB_RESULTS}::test_an_order_counts_within_the_days_after_the_hand_over",),
    ),
    Bug(
        "hand-overs seen elsewhere put a deadline off",
        (("mautolib/campaigns/experiment_results.py",
          "each.last_observed_at if test.planned_at is None else each.last_handover_at",
          "each.last_observed_at or each.last_handover_at"),),
        (f"{_AB_RESULTS}::test_the_deadline_waits_for_the_last_hand_over",),
    ),
    Bug(
        "who was held out for a part of a time is compared",
        (("mautolib/analytics/incrementality.py", "bounds = [each.bound for each in within]",
          "bounds = [within[-1].bound]"),),
        ("tests/integration/test_holdout.py::test_who_was_held_out_for_a_part_of_the_time_is_in_no_group",),
    ),
    Bug(
        "who is held out gets marketing mail that waited",
        (("sql/migrations/0058_holdout.sql", "    < (select bound from", "    < 0 * (select bound from"),),
        ("tests/integration/test_holdout.py::test_what_waits_follows_at_the_claim_and_mail_that_is_no_marketing_goes",),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_bugs", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    wanted = parser.parse_args(arguments).names
    bugs = [bug for bug in BUGS if not wanted or bug.name in wanted]
    folder = Path(tempfile.mkdtemp(prefix="mauto-planted-"))
    folder.chmod(0o755)
    try:
        copy = _copy(folder / "copy")
        sound, said = _run(copy, sorted({test for bug in bugs for test in bug.tests}))
        print(f"{'as it is':48} {'green' if sound else 'RED'}  {said}", flush=True)
        found = [_plant(copy, bug) for bug in bugs] if sound else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(found)} of {len(bugs)} faults turn a test red")
    return 0 if sound and all(found) else 1


def _copy(place: Path) -> Path:
    """The files git knows, as they are in the work tree."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        source = ROOT / name
        if source.is_file() and not name.startswith(".venv"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / name)
    return place


def _plant(copy: Path, bug: Bug) -> bool:
    """Whether the tests find the fault; the copy is as before afterwards."""
    kept = {name: (copy / name).read_text(encoding="utf-8") for name, _, _ in bug.edits}
    try:
        for name, old, new in bug.edits:
            text = (copy / name).read_text(encoding="utf-8")
            if old not in text:
                print(f"{bug.name:48} the code to change is no longer in {name}", flush=True)
                return False
            (copy / name).write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
        passed, said = _run(copy, bug.tests)
    finally:
        for name, text in kept.items():
            (copy / name).write_text(text, encoding="utf-8")
    print(f"{bug.name:48} {'GREEN (not found)' if passed else 'red'}  {said}", flush=True)
    return not passed and "failed" in said


def _run(copy: Path, tests: Sequence[str]) -> tuple[bool, str]:
    """Whether all passed, and pytest's last line."""
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--no-header", *tests], cwd=copy, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing said"]
    said = re.sub(r" in [0-9.]+s.*", "", lines[-1])
    return done.returncode == 0, f"{said} ({time.monotonic() - begun:.0f} s)"


if __name__ == "__main__":
    sys.exit(main())
