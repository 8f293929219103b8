"""A courier: writes the messages of a group and carries them over one channel, watching every step.

Promise: each message of a group gets exactly one outcome. Nothing is begun after the lease, the time budget or the
campaign is over, nor for somebody who opted out while the group was under way; what is about to be handed over is
in the journal first. Called by the pump, one courier per connection, several in one thread where the channel takes
turns; it writes no database row.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mautolib.campaigns.building import Blueprint
from mautolib.campaigns.host_backoff import HostBackoff
from mautolib.campaigns.store import name_of
from mautolib.channels.protocol import Channel, Outgoing, Pause, TurnTaking
from mautolib.channels.smtp_reply import is_about_policy
from mautolib.channels.wire import unfit
from mautolib.errors import (
    InvalidInput,
    MautoError,
    Misconfigured,
    NoRoom,
    PermanentError,
    ProviderRejected,
    ProviderUnavailable,
    TransientError,
)
from mautolib.events.links import LinkSigner
from mautolib.ledger import claim, content
from mautolib.ledger.journal import Journal
from mautolib.ledger.model import MARKETING, Claimed, Kind, Outcome, Result, Skip, Stage, Verdict
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
#: The work of a courier on a group.
Turns: TypeAlias = Generator[Pause, None, list[Outcome]]
#: Where all servers take their time, they are asked this often.
IDLE_SECONDS: Final = 0.002
#: Consent is read again when the last look is older than this.
RECHECK_SECONDS: Final = 0.5
#: So many messages are written at once, if so many go out within this time.
AHEAD, AHEAD_SECONDS = 16, 0.2
#: What must be left of the lease to begin a message, and to end it: the server may take 300 s for its last answer.
TO_BEGIN_SECONDS, TO_END_SECONDS = 540.0, 330.0
#: More than 5 % of the last 200 refused for sender or content pauses a campaign.
LAST, TOO_MANY = 200, 10
#: What a closed way, or a refused sender, delays messages by; a server that cannot be reached has pauses that grow
#: (`host_backoff`). The message in hand when the way was closed comes that much after the others: if it is the cause,
#: it must not close the way before them again.
CLOSED_RETRY_SECONDS, IN_HAND_SECONDS, SENDER_RETRY_SECONDS = 60.0, 30.0, 900.0


@dataclass
class Shift:
    """What the couriers of one pump share.

    Args:
        ends_at: monotonic time after which nothing is begun.
        clock: the present moment.
        host: what is known of the mail server.
    """

    engine: Engine
    settings: Settings
    signer: LinkSigner
    journal: Journal
    ends_at: float
    clock: Callable[[], datetime]
    host: HostBackoff
    #: Campaigns that must be paused, with the reason.
    stopped: dict[int, str] = field(default_factory=dict)
    #: What somebody has to look at.
    problems: set[str] = field(default_factory=set)
    _blueprints: dict[tuple[int, bool, bool], Blueprint | MautoError] = field(default_factory=dict)
    _refusals: dict[int, deque[bool]] = field(default_factory=dict)

    def blueprint(self, message: Claimed) -> Blueprint:
        """The compiled content of a message.

        Raises:
            Misconfigured: it cannot be written until a setting changes.
            InvalidInput: it has a fault that nobody found before.
        """
        # A test is to look as the campaign will.
        is_marketing = message.kind in MARKETING or message.kind is Kind.TEST
        key = (message.content_id, is_marketing, message.contact_id > 0)
        found = self._blueprints.get(key)
        if found is None:
            found = self._blueprints[key] = self._make(key, message)
        if isinstance(found, MautoError):
            raise found
        return found

    def _make(self, key: tuple[int, bool, bool], message: Claimed) -> Blueprint | MautoError:
        content_id, is_marketing, is_tracked = key
        with self.engine.connect() as tx:
            frozen = content.load(tx, content_id)
            name = name_of(tx, message.campaign_id) if message.campaign_id is not None else ""
        try:
            return Blueprint(
                frozen, settings=self.settings, signer=self.signer, campaign_name=name, is_marketing=is_marketing,
                is_tracked=is_tracked,
            )  # fmt: skip
        except (Misconfigured, InvalidInput) as error:
            self.problems.add(str(error))
            return error
        except Exception as error:  # noqa: BLE001
            # A fault of ours in a whole content: its messages wait, everybody else's go out.
            _LOG.exception("content %s cannot be written", content_id)
            self.problems.add(f"content {content_id} cannot be written: {type(error).__name__}")
            return Misconfigured(f"content {content_id} cannot be written")

    def note(self, campaign_id: int | None, result: Result) -> None:
        """Learn from a result whether a campaign must stop."""
        if campaign_id is None:
            return
        if result.stage is Stage.MAIL and result.verdict is Verdict.RELEASED and not _is_for_now(result):
            self.stopped.setdefault(campaign_id, f"The mail server refuses the sender: {result.code} {result.reply}")
        if result.verdict in (Verdict.SENT, Verdict.BOUNCED, Verdict.FAILED) and result.code is not None:
            last = self._refusals.get(campaign_id)
            if last is None:
                last = self._refusals[campaign_id] = deque(maxlen=LAST)
            is_refused = is_about_policy(result)
            last.append(is_refused)
            if is_refused and sum(last) > TOO_MANY:
                last.clear()  # Whoever resumes it starts anew.
                self.stopped.setdefault(
                    campaign_id, f"The receiving side refuses sender or content: {result.code} {result.reply}"
                )


class Courier:
    """One channel and what it carries; also the watch its channel asks."""

    def __init__(self, shift: Shift, channel: Channel) -> None:
        self._shift = shift
        self._channel = channel
        #: What closed the way, if anything did.
        self.error: MautoError | None = None

    @property
    def takes_turns(self) -> bool:
        """Whether several such couriers can share a thread."""
        return isinstance(self._channel, TurnTaking)

    def carry(
        self, attempt_id: int, messages: Sequence[Claimed], claimed_at: float, *, is_alone: bool = True
    ) -> Turns:
        """Hand over `messages`; returns one outcome for each (see `finished`).

        Args:
            claimed_at: monotonic time from before their claim.
            is_alone: do not pause; else while the other side is at work.
        """
        self._attempt_id = attempt_id
        self._begin_until = claimed_at + claim.LEASE_SECONDS - TO_BEGIN_SECONDS
        self._end_until = claimed_at + claim.LEASE_SECONDS - TO_END_SECONDS
        self._looked_at = claimed_at
        self._refused: dict[int, Skip] = {}
        self._claimed = {message.message_id: message for message in messages}
        self._outcomes: dict[int, Outcome] = {}
        self._begun: set[int] = set()
        self._asked_for = 0
        self._pause = CLOSED_RETRY_SECONDS
        handed: list[int] = []
        number = 0
        try:
            for result in self._delivered(self._ahead(messages, handed), is_alone):
                if isinstance(result, Pause):
                    yield result
                    continue
                self._decided(handed[number], result)
                number += 1
                if self.error is not None:
                    break
        except (TransientError, PermanentError) as error:
            self.error = error
        if isinstance(self.error, TransientError) and not isinstance(self.error, NoRoom):
            has_answered = any(
                outcome.result.code is not None and outcome.result.verdict is not Verdict.RELEASED
                for outcome in self._outcomes.values()
            )
            self._pause = self._shift.host.failed(self._shift.clock(), has_answered=has_answered)
        return [self._outcomes.get(message.message_id) or self._left_over(message) for message in messages]

    def _delivered(self, messages: Iterator[Outgoing], is_alone: bool) -> Iterator[Result | Pause]:
        if not is_alone and isinstance(self._channel, TurnTaking):
            return self._channel.deliver_by_turns(messages, self)
        return self._channel.deliver(messages, self)

    def before(self, message: Outgoing) -> Result | None:
        """See `Watch.before`."""
        now = time.monotonic()
        self._asked_for = message.message_id
        campaign_id = self._claimed[message.message_id].campaign_id
        if now >= self._shift.ends_at or now >= self._begin_until or campaign_id in self._shift.stopped:
            return Result(verdict=Verdict.RELEASED, stage=Stage.CONNECT)
        if now - self._looked_at > RECHECK_SECONDS:
            self._look_again(now)
        reason = self._refused.get(message.message_id)
        return None if reason is None else Result(verdict=Verdict.SKIPPED, stage=Stage.CONNECT, reason=reason)

    def begins(self, message: Outgoing) -> bool:
        """See `Watch.begins`."""
        now = time.monotonic()
        if now >= self._end_until:
            return False
        if now - self._looked_at > RECHECK_SECONDS:
            # The envelope went ahead while the message before it was answered, and that took a while.
            self._look_again(now)
            if message.message_id in self._refused:
                return False
        self._shift.journal.begins(message.attempt_id, message.contact_id, message.message_id)
        self._begun.add(message.message_id)
        return True

    def _look_again(self, now: float) -> None:
        with self._shift.engine.connect() as tx:
            self._refused = claim.refused(tx, self._attempt_id, require_consent=self._shift.settings.require_consent)
        self._looked_at = now

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _ahead(self, messages: Sequence[Claimed], handed: list[int]) -> Iterator[Outgoing]:
        """The finished messages, some written ahead while they go out fast: one after another costs half as much."""
        source = self._written(messages)
        number = 1
        while True:
            begun_at = time.monotonic()
            ready = list(itertools.islice(source, number))
            if not ready:
                return
            for outgoing in ready:
                handed.append(outgoing.message_id)
                yield outgoing
            # What is in a link says when it was written, so that must be close to the hand-over.
            is_fast = time.monotonic() - begun_at < AHEAD_SECONDS
            number = min(AHEAD, number * 2) if is_fast else 1

    def _written(self, messages: Sequence[Claimed]) -> Iterator[Outgoing]:
        for message in messages:
            try:
                outgoing = self._shift.blueprint(message).write(message, self._shift.clock())
            except InvalidInput as error:
                self._decided(message.message_id, Result(verdict=Verdict.FAILED, stage=Stage.BUILD, reply=str(error)))
            except ProviderRejected as error:
                self._decided(message.message_id, unfit(error))
            except Misconfigured:
                self._decided(message.message_id, Result(
                    verdict=Verdict.RELEASED, stage=Stage.BUILD, retry_after_seconds=SENDER_RETRY_SECONDS
                ))  # fmt: skip
            except (SQLAlchemyError, MautoError):
                raise
            except Exception as error:  # noqa: BLE001
                # A fault of ours: left to itself this one message would come first again and stop all mail.
                _LOG.exception("message %s cannot be written", message.message_id)
                self._shift.problems.add(f"message {message.message_id} cannot be written: {type(error).__name__}")
                self._decided(message.message_id, Result(
                    verdict=Verdict.FAILED, stage=Stage.BUILD, reply=f"unexpected {type(error).__name__}"
                ))  # fmt: skip
            else:
                yield outgoing

    def _decided(self, message_id: int, result: Result) -> None:
        message = self._claimed[message_id]
        if result.verdict is Verdict.RELEASED and result.stage is Stage.MAIL:
            result = self._sender_refused(message, result)
        outcome = Outcome(message.contact_id, message_id, self._attempt_id, result, message.to_email)
        # Known here first: where the journal is full the answer still goes into the database with the group.
        self._outcomes[message_id] = outcome
        if result.verdict not in (Verdict.RELEASED, Verdict.SKIPPED):
            self._shift.journal.result(outcome)
        self._shift.note(message.campaign_id, result)

    def _sender_refused(self, message: Claimed, result: Result) -> Result:
        """MAIL was refused: for now (then the way is closed), or for good (then the campaign is, or this content)."""
        if _is_for_now(result):
            self.error = ProviderUnavailable(f"The mail server defers the sender: {result.code} {result.reply}")
            return _with_retry(result, CLOSED_RETRY_SECONDS + IN_HAND_SECONDS)
        if message.campaign_id is not None:
            return result
        self._shift.problems.add(f"The mail server refuses the sender: {result.code} {result.reply}")
        return _with_retry(result, SENDER_RETRY_SECONDS)

    def _left_over(self, message: Claimed) -> Outcome:
        """A message nobody decided: given back, unless its hand-over had begun."""
        if message.message_id in self._begun:
            result = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=str(self.error or "no result"))
        else:
            is_in_hand = message.message_id == self._asked_for
            retry = self._pause + IN_HAND_SECONDS * is_in_hand if self.error is not None else None
            result = Result(verdict=Verdict.RELEASED, stage=Stage.CONNECT, retry_after_seconds=retry)
        return Outcome(
            contact_id=message.contact_id, message_id=message.message_id, attempt_id=self._attempt_id, result=result
        )


def finished(works: Iterable[Turns]) -> list[Outcome]:
    """The outcomes of several couriers, who take turns; a fault of one is raised when the others are done.

    Each round begins with whoever had the last turn: when that one is answered the others mostly are, so the thread
    sleeps once a round instead of once a message.
    """
    going = list(works)[::-1]
    outcomes: list[Outcome] = []
    failure: Exception | None = None
    while going:
        is_idle = True
        for work in going[::-1]:
            try:
                is_idle = next(work) is Pause.WAITING and is_idle
            except StopIteration as done:
                outcomes += done.value
                going.remove(work)
            except Exception as error:  # noqa: BLE001 - what the others have begun gets its answer first
                failure = failure or error
                going.remove(work)
        going.reverse()
        if going and is_idle:
            time.sleep(IDLE_SECONDS)
    if failure is not None:
        raise failure
    return outcomes


def _is_for_now(result: Result) -> bool:
    return result.code is not None and result.code < 500


def _with_retry(result: Result, seconds: float) -> Result:
    return result._replace(retry_after_seconds=seconds)
