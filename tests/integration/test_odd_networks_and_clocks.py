"""A network that cuts or swallows, and a clock that jumps: what is defined, and that nothing is lost by it.

Leases of messages and imports are the database's time; waits and budgets are monotonic; everything else takes `now`
from its caller, who looks at the clock of its machine (docs/operations.md). What the database's clock decides here, no
`now` of a caller can change.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from mautolib.auth import tokens
from mautolib.auth.roles import Role
from mautolib.campaigns import finishing, planning
from mautolib.channels.null import Null
from mautolib.contacts import imports
from mautolib.contacts.imports import running
from mautolib.db.engine import connect
from mautolib.errors import NotAuthenticated
from mautolib.ledger import check
from mautolib.settings import Settings
from tests.integration.mailing import NOW, launched, rows, run_pump, states

DAY = timedelta(days=1)


class Network:
    """A way to a server that can be cut (connections end) and frozen (nothing passes, nothing ends)."""

    def __init__(self, host: str, port: int) -> None:
        self._target, self._pairs = (host, port), list[tuple[socket.socket, socket.socket]]()
        self._passes, self._is_down = threading.Event(), False
        self._passes.set()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._door.accept()[0]
                if self._is_down:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = source.recv(65536)
                    self._passes.wait()
                    if not data:
                        near.close()
                        far.close()
                        return
                    (far if source is near else near).sendall(data)

    def cut(self) -> None:
        """End every connection and take no new one."""
        self._is_down = True
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def mend(self) -> None:
        self._is_down = False

    def freeze(self) -> None:
        self._passes.clear()

    def thaw(self) -> None:
        self._passes.set()

    def close(self) -> None:
        self.thaw()
        self.cut()
        self._door.close()


@pytest.fixture
def network(fresh_engine: Engine) -> Iterator[Network]:
    network = Network(fresh_engine.url.host or "127.0.0.1", fresh_engine.url.port or 5432)
    yield network
    network.close()


@pytest.fixture
def far(fresh_engine: Engine, network: Network) -> Iterator[Engine]:
    """The database through that network."""
    url = fresh_engine.url.set(drivername="postgresql", host="127.0.0.1", port=network.port)
    engine = connect(url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


def test_a_peer_that_vanished_is_noticed_within_a_minute(fresh_engine: Engine) -> None:
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with contextlib.closing(fresh_engine.raw_connection()) as raw, socket.socket(fileno=os.dup(raw.fileno())) as end:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert [end.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 10, 3, 60_000]


def test_a_sender_survives_a_cut_and_sends_each_message_once(
    far: Engine, fresh_engine: Engine, network: Network, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 40)
    channel = Cutting(network, after=15)
    run_pump(far, settings, channel)
    accepted = [mail.recipient for mail in channel.accepted]
    assert len(accepted) == len(set(accepted)) == 40 and channel.has_cut
    assert states(fresh_engine, campaign_id) == {"sent": 40}
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []


class Cutting(Null):
    """A channel in whose presence the network breaks, and is mended a moment later."""

    def __init__(self, network: Network, after: int) -> None:
        super().__init__()
        self._network, self._after, self.has_cut = network, after, False

    def deliver(self, messages, watch):  # type: ignore[no-untyped-def]
        for result in super().deliver(messages, watch):
            if len(self.accepted) >= self._after and not self.has_cut:
                self.has_cut = True
                self._network.cut()
                threading.Timer(0.3, self._network.mend).start()
            yield result


def test_an_import_through_a_frozen_network_is_one_import(
    far: Engine, fresh_engine: Engine, network: Network, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "contacts.csv"
    path.write_text("email\n" + "".join(f"p{number}@shop.example\n" for number in range(300)), encoding="utf-8")
    with fresh_engine.begin() as tx:
        imports.request_file(tx, str(path), {}, actor="test", now=NOW)
    taken = running.claim_next(far, now=NOW)
    assert taken is not None
    network.freeze()
    # Its lease goes on in the database; another worker, whatever its clock says, has to wait for its end.
    for clock in (NOW - DAY, NOW, NOW + DAY):
        assert running.claim_next(fresh_engine, now=clock) is None
    with fresh_engine.begin() as tx:
        tx.execute(text("update imports set lease_until = clock_timestamp()"))
    (done,) = imports.run_waiting(fresh_engine, settings, clock=lambda: NOW)
    assert (done.status, done.created) == ("completed", 300)
    network.thaw()
    assert running.claim_next(far, now=NOW) is None
    assert rows(fresh_engine, "select count(*) as n from contacts")[0].n == 300


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_a_claim_of_another_sender_stands_whatever_our_clock_says(
    fresh_engine: Engine, settings: Settings, skew: timedelta
) -> None:
    launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set give_up_at = '2027-01-01'"))
    channel = Stepping(fresh_engine, settings, skew)
    run_pump(fresh_engine, settings, channel)
    assert channel.others == [{}], "nothing was taken from us while we were at it"
    assert len(channel.accepted) == 3
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []


class Stepping(Null):
    """While it hands over, a sender whose clock is wrong looks for work."""

    def __init__(self, engine: Engine, settings: Settings, skew: timedelta) -> None:
        super().__init__()
        self._engine, self._settings, self._skew = engine, settings, skew
        self.others: list[dict[str, int]] = []

    def deliver(self, messages, watch):  # type: ignore[no-untyped-def]
        if not self.others:
            other = run_pump(self._engine, self._settings, Null(), later=self._skew)
            self.others.append(dict(other.counts))
        yield from super().deliver(messages, watch)


def test_a_finished_campaign_is_not_begun_again_by_a_clock_that_goes_back(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    channel = Null()
    run_pump(fresh_engine, settings, channel, later=DAY - timedelta(hours=2))
    finishing.finish(fresh_engine, NOW + DAY)
    for later in (timedelta(0), -DAY, DAY):
        planning.plan_due(fresh_engine, settings, NOW + later)
        run_pump(fresh_engine, settings, channel, later=later)
    assert len(channel.accepted) == 3
    assert states(fresh_engine, campaign_id) == {"sent": 3}


@pytest.mark.parametrize(("skew", "is_good"), [
    (timedelta(0), True), (timedelta(seconds=50), True), (-timedelta(seconds=50), True), (DAY, False), (-DAY, False),
])  # fmt: skip
def test_a_token_is_good_for_clocks_that_agree_within_a_minute(
    settings: Settings, skew: timedelta, is_good: bool
) -> None:
    life = timedelta(hours=1)
    token = tokens.sign(settings, tokens.Kind.ACCESS, user_id=7, role=Role.VIEWER, jti=uuid4(), now=NOW, life=life)
    with contextlib.nullcontext() if is_good else pytest.raises(NotAuthenticated):
        tokens.read(settings, tokens.Kind.ACCESS, token, now=NOW + skew, longest=life)
