"""The command: the game at full size, or the self-kills at every fail-point; exit code 0 only if it ended clean."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.ground import Ground, ground, is_clean
from tests.chaos.senders import FAIL_POINTS, Orders, Sender, order_to_die, start


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print what happened as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kill senders; nobody may notice.")
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs at random moments (200)")
    parser.add_argument("--freezes", type=int, default=12, help="SIGSTOPs longer than the lease (12)")
    parser.add_argument("--restarts", type=int, default=3, help="immediate restarts of the database (3)")
    parser.add_argument("--senders", type=int, default=5, help="copies of the same pump at once (5)")
    parser.add_argument("--group-size", type=int, default=10)
    parser.add_argument("--lease-seconds", type=float, default=6.0, help="instead of 15 minutes (6)")
    parser.add_argument("--fail-points", type=int, default=0, metavar="N",
                        help="instead: N self-kills at each of the nine fail-points")  # fmt: skip
    parser.add_argument("--seed", type=int, default=20261123)
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    with ground() as place:
        told = _fail_points(place, given) if given.fail_points else _game(place, given)
        surprises = place.folder / "surprises"
        told["surprises"] = surprises.read_text().splitlines() if surprises.exists() else []
    told["seconds"] = round(time.monotonic() - begun, 1)
    told["seed"] = given.seed
    told["is_clean"] = is_clean(told) and not told["surprises"] and not told.get("wrong")
    print(json.dumps(told, indent=1))
    return 0 if told["is_clean"] else 1


class _Players:
    """The senders of a game: whoever ends or is killed is replaced."""

    def __init__(self, place: Ground, given: argparse.Namespace, chance: random.Random) -> None:
        self.chance = chance
        self.lease = given.lease_seconds
        self.orders = Orders(
            settings=place.settings, group_size=given.group_size, lease_seconds=given.lease_seconds,
            surprises=place.folder / "surprises",
        )  # fmt: skip
        self.senders = [start(self.orders) for _ in range(given.senders)]

    def tend(self) -> None:
        """Wake who slept long enough, replace who is gone."""
        now = time.monotonic()
        for number, sender in enumerate(self.senders):
            if sender.wakes_at is not None and sender.wakes_at <= now:
                sender.wake()
            elif not sender.is_alive:
                self.senders[number] = start(self.orders)

    def awake(self) -> list[Sender]:
        return [sender for sender in self.senders if sender.is_alive and not sender.is_frozen]

    def kill_one(self) -> bool:
        """Whether there was somebody to kill."""
        victims = self.awake()
        if victims:
            self.chance.choice(victims).kill()
        return bool(victims)

    def freeze_one(self) -> bool:
        """One at a time, so that there is always somebody to take over."""
        victims = self.awake()
        if len(victims) < len(self.senders):
            return False
        self.chance.choice(victims).freeze(time.monotonic() + self.lease + self.chance.uniform(1.0, 3.0))
        return True

    def end(self) -> None:
        """Wait until everybody has gone home; nobody is replaced any more."""
        for sender in self.senders:
            if sender.is_frozen:
                sender.wake()
        for sender in self.senders:
            sender.process.join(120)
            assert sender.process.exitcode is not None, "a sender does not end although nothing is due"

    def clear(self) -> None:
        for sender in self.senders:
            if sender.is_alive:
                sender.kill()


def _game(place: Ground, given: argparse.Namespace) -> dict[str, Any]:
    chance = random.Random(given.seed)
    campaign_id = place.launch(given.recipients)
    print(f"{given.recipients} recipients planned", file=sys.stderr, flush=True)
    spans = {"kill": given.kills, "freeze": given.freezes, "restart": given.restarts}
    # Every event has a number of accepted messages at which it is due.
    due = sorted(
        (chance.uniform(0.01, 0.93) * given.recipients, kind) for kind, number in spans.items() for _ in range(number)
    )
    done = dict.fromkeys(spans, 0)
    players = _Players(place, given, chance)
    try:
        while due or place.sink.count() < given.recipients * 0.97:
            players.tend()
            if due and place.sink.count() >= due[0][0]:
                kind = due[0][1]
                if kind == "restart":
                    place.restart_database()
                elif not (players.kill_one() if kind == "kill" else players.freeze_one()):
                    due[0] = (due[0][0] + 20, kind)
                    due.sort()
                    continue
                due.pop(0)
                done[kind] += 1
                _say(place, done)
            time.sleep(0.002)
        while place.ask("select count(*) from messages where status in ('queued', 'sending')"):
            players.tend()
            time.sleep(0.2)
        players.end()
    finally:
        players.clear()
    late = place.ask("select count(*) from message_attempts where reply = 'the sender did not come back'")
    doubts = place.ask("select count(*) from messages where status = 'unknown'")
    found, absent = place.settle()
    return {
        **done, "recipients": given.recipients, "senders": given.senders, "group_size": given.group_size,
        "doubts": doubts, "of_them_by_expired_leases": late, "found_in_the_log": found, "absent_and_sent_again": absent,
        **place.verdict(given.recipients, campaign_id),
    }  # fmt: skip


def _say(place: Ground, done: dict[str, int]) -> None:
    if sum(done.values()) % 10 == 0:
        print(f"{place.sink.count()} accepted, {done}", file=sys.stderr, flush=True)


def _fail_points(place: Ground, given: argparse.Namespace) -> dict[str, Any]:
    """Senders one after the other, each with one place to die; the doubts they leave are those expected."""
    chance = random.Random(given.seed)
    recipients = len(FAIL_POINTS) * given.fail_points * 15
    campaign_id = place.launch(recipients)
    count = "select count(*) from messages where status = 'unknown'"
    orders = Orders(settings=place.settings, surprises=place.folder / "surprises")
    points: dict[str, dict[str, int]] = {}
    wrong: list[str] = []
    for point, leaves_doubt in FAIL_POINTS.items():
        deaths, before = 0, place.ask(count)
        for _ in range(given.fail_points):
            deaths += start(order_to_die(orders, point, chance)).die()
        # What the last one left is settled by whoever comes next, from its journal.
        start_and_end(place)
        doubts = place.ask(count) - before
        points[point] = {"deaths": deaths, "doubts": doubts}
        if deaths != given.fail_points or doubts != (given.fail_points if leaves_doubt else 0):
            wrong.append(f"{point}: {points[point]}")
        print(f"{point}: {points[point]}", file=sys.stderr, flush=True)
    start_and_end(place, everything=True)
    found, absent = place.settle()
    return {
        "recipients": recipients, "fail_points": points, "wrong": wrong, "found_in_the_log": found,
        "absent_and_sent_again": absent, **place.verdict(recipients, campaign_id),
    }  # fmt: skip


def start_and_end(place: Ground, *, everything: bool = False) -> None:
    """A pump that only tidies up, or one that works until nothing is due."""
    from mautolib.campaigns import sending

    budget = 600.0 if everything else 0.0
    sending.pump(place.engine, place.settings, group_size=50, budget_seconds=budget)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
