"""Senders that can be killed: processes forked with everything imported, so that hundreds of them cost little.

A fail-point is a place in the work of a sender at which it kills itself, by SIGKILL, at its nth passing.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from mautolib.campaigns import courier, pacing, sending
from mautolib.channels import smtp_session
from mautolib.db.engine import connect
from mautolib.errors import TransientError
from mautolib.ledger import claim, journal, settle
from mautolib.settings import Settings

#: Each with whether a death there leaves the message in hand in doubt.
FAIL_POINTS: Final = {
    "claimed, not committed": False,
    "claim committed": False,
    "envelope said": False,
    "dot noted in the journal": True,
    "dot sent": True,
    "answer came": True,
    "answer noted in the journal": False,
    "recorded, not committed": False,
    "record committed": False,
}


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How a sender works.

    Args:
        lease_seconds: None leaves all times as they are.
        fail_point, nth: where it kills itself.
    """

    settings: Settings
    group_size: int = 10
    budget_seconds: float = 4.0
    lease_seconds: float | None = None
    fail_point: str = ""
    nth: int = 1
    surprises: Path


@dataclass
class Sender:
    """One process, as the game sees it."""

    process: BaseProcess
    wakes_at: float | None = field(default=None)

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    @property
    def is_frozen(self) -> bool:
        return self.wakes_at is not None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.join()

    def freeze(self, until: float) -> None:
        """SIGSTOP until a moment of the monotonic clock; `wake` must be called then."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        self.wakes_at = until

    def wake(self) -> None:
        """SIGCONT."""
        assert self.process.pid is not None
        self.wakes_at = None
        os.kill(self.process.pid, signal.SIGCONT)


    def die(self, seconds: float = 60.0) -> bool:
        """Wait for it to kill itself, as ordered; False when it ended otherwise."""
        self.process.join(seconds)
        killed = self.process.exitcode in (-signal.SIGKILL, 255)
        self.kill()
        return killed


#: How far at most the nth passing of a fail-point lies: in groups, or in messages.
MOST_GROUPS: Final = 3
MOST_MESSAGES: Final = 12
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.chaos.senders"])


def start(orders: Orders) -> Sender:
    """A sender at work; it ends when nothing is due."""
    process = _FORKS.Process(target=work, args=(orders,), daemon=True)
    process.start()
    return Sender(process)


def order_to_die(orders: Orders, point: str, chance: random.Random) -> Orders:
    """Orders to die at some passing of a fail-point, with groups of some size."""
    is_of_group = point.startswith(("claim", "record"))
    nth = chance.randint(1, MOST_GROUPS if is_of_group else MOST_MESSAGES)
    return replace(orders, fail_point=point, nth=nth, group_size=chance.randint(1, 10))


def work(orders: Orders) -> None:
    """The life of a sender: pump after pump until one finds nothing."""
    sys.setswitchinterval(0.0005)
    if orders.lease_seconds is not None:
        _shorten(orders.lease_seconds)
    if orders.fail_point:
        _arm(orders.fail_point, orders.nth)
    engine = connect(orders.settings.database_url)
    while True:
        try:
            result = sending.pump(
                engine, orders.settings, group_size=orders.group_size, budget_seconds=orders.budget_seconds
            )
        except (TransientError, DBAPIError):
            time.sleep(0.2)  # the database is just restarting
        except Exception as error:  # the game must know of it
            with orders.surprises.open("a", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}: {error}\n")
            raise
        else:
            if not result.counts:
                return


def _shorten(lease: float) -> None:
    """The times of a lease of 15 minutes, brought to one of `lease` seconds."""
    for module in (claim, settle):
        module.LEASE_SECONDS = lease  # type: ignore[misc,assignment]
    courier.TO_BEGIN_SECONDS, courier.TO_END_SECONDS = lease * 0.6, lease * 0.4  # type: ignore[misc]


def _arm(point: str, nth: int) -> None:
    """Have this process kill itself when it passes `point` for the nth time."""
    passed = 0

    def die(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def is_answer(session: Any, *_: Any, **given: Any) -> bool:
        return given.get("seconds") == session.server.answer_seconds

    match point:
        case "claimed, not committed":
            _wrap(pacing.Turnstile, "next_group", after=die)
        case "claim committed":
            _wrap(courier.Courier, "carry", before=die)
        case "envelope said":
            _wrap(courier.Courier, "begins", before=die)
        case "dot noted in the journal":
            _wrap(courier.Courier, "begins", after=die)
        case "dot sent":
            _wrap(smtp_session.Session, "read", before=die, when=is_answer)
        case "answer came":
            _wrap(smtp_session.Session, "read", after=die, when=is_answer)
        case "answer noted in the journal":
            _wrap(journal.Journal, "result", after=die)
        case "recorded, not committed":
            _wrap(sending._Run, "_record", after=die, when=lambda _, __, outcomes, ___: bool(outcomes))
        case "record committed":
            _wrap(sending._Run, "_recorded", before=die, when=lambda _, outcomes, *__: bool(outcomes))
        case _:
            raise ValueError(point)


def _wrap(
    owner: Any, name: str, *, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None,
    when: Callable[..., bool] = lambda *_, **__: True,
) -> None:  # fmt: skip
    real = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        counts = when(*given, **named)
        if before is not None and counts:
            before()
        result = real(*given, **named)
        if after is not None and counts:
            after()
        return result

    setattr(owner, name, wrapped)
