"""How long chains get: rules and workflows cause events, which start rules and workflows.

Promise: what is appended or queued inside `caused` carries the depth given into `event_pending` and `messages` (their
columns' defaults read the setting of the transaction), so no writer has to know who caused it. What came from outside
has depth 0; an event as deep as `MOST_LINKS` starts nothing. Called by whatever runs steps and actions, and by whoever
tells what became of mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, func, select

#: So many rules and workflows may follow from one another.
MOST_LINKS: Final = 5
_SETTING: Final = "mauto.depth"


@contextmanager
def caused(tx: Connection, depth: int) -> Iterator[None]:
    """Mark the events appended inside as effects of a rule or workflow of this depth (1: started from outside)."""
    before = tx.scalar(select(func.current_setting(_SETTING, True)))
    deepen(tx, depth)
    yield
    # Not after an error: the transaction takes no more statements, and its end forgets the setting.
    tx.execute(select(func.set_config(_SETTING, before or "", True)))


def deepen(tx: Connection, depth: int) -> None:
    """Inside `caused`: mark what follows with another depth."""
    tx.execute(select(func.set_config(_SETTING, str(depth), True)))
