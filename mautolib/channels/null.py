"""The null channel: takes messages and keeps them in memory; for tests and for measuring everything else.

Promise: the same contract as a real channel, with answers that can be scripted per recipient. Not registered: no
setting can turn real mail into nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mautolib.channels.protocol import Outgoing, Watch
from mautolib.channels.wire import check_data, unfit, wire_address
from mautolib.errors import MautoError, ProviderRejected
from mautolib.ledger.model import Result, Stage, Verdict


class Null:
    """Accepts everything, except where `answers` says otherwise."""

    name = "null"

    def __init__(self, answers: Mapping[str, Result | MautoError] | None = None) -> None:
        """Args:
        answers: by recipient: the result of that message, or an error to raise instead.
        """
        self.accepted: list[Outgoing] = []
        self._answers = dict(answers or {})

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Take `messages` one by one; see `Channel.deliver`."""
        for message in messages:
            kept = watch.before(message)
            yield kept if kept is not None else self._one(message, watch)

    def close(self) -> None:
        """Nothing is held open."""

    def _one(self, message: Outgoing, watch: Watch) -> Result:
        try:
            wire_address(message.recipient, smtputf8=True)
            check_data(message.data)
        except ProviderRejected as error:
            return unfit(error)
        answer = self._answers.get(message.recipient)
        if isinstance(answer, MautoError):
            raise answer
        if not watch.begins(message):
            return Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end")
        if answer is None or answer.verdict is Verdict.SENT:
            self.accepted.append(message)
        return answer or Result(verdict=Verdict.SENT, stage=Stage.DOT, code=250, provider_id=f"n{message.message_id}")
