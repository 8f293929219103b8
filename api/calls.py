"""One call: who calls, when, and how its effect is committed - with its audit entry and Idempotency-Key.

Guards that a success and its audit entry (and the kept answer of its key) stand in one transaction, that a key
has one effect, and that waiting for another call holds neither connection nor thread. Called by the endpoints;
authentication happens in `routing`, before anything of the body is read.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from api import errors
from api.owed_claims import OwedClaims
from mautolib.auth import audit, idempotency, sealing
from mautolib.auth.callers import Caller
from mautolib.auth.roles import Role
from mautolib.auth.sessions import Origin, SignedIn
from mautolib.db.engine import is_unavailable
from mautolib.errors import Conflict
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
JSON = "application/json"
MIB = 1024 * 1024
WAIT_SECONDS = 5.0
_TRIES = 4
#: Purpose of the key and mark of a kept answer that is sealed.
_SEALED = "kept-answer"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What every call shares: the settings, the pool of connections, and claims that are to be given back."""

    settings: Settings
    engine: Engine
    owed: OwedClaims


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one operation demands: a role (None: public), the size of its body, and its name in the audit log.

    `body_limit` None: the endpoint reads the body itself and limits it by its kind. `audited` False: too many calls
    to write each down, refusals neither; what they change is its own record.
    """

    role: Role | None
    action: str = ""
    body_limit: int | None = MIB
    media_types: tuple[str, ...] = (JSON,)
    audited: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an effect did: the answer, and what the audit log says about it."""

    status: int = 200
    body: Any = None
    resource_id: int | str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The answer shows a secret: it is kept sealed under an Idempotency-Key.
    is_secret: bool = False

    def response(self) -> idempotency.Answer:
        """The answer as bytes; no body for 204."""
        if self.status == 204:
            return idempotency.Answer(status=204, headers=dict(self.headers), body=b"")
        headers = {"content-type": JSON, **self.headers}
        return idempotency.Answer(status=self.status, headers=headers, body=json_bytes(self.body))


def json_bytes(value: Any) -> bytes:
    """JSON of a model, a list of models or plain data; times are UTC with `Z`."""
    return value.model_dump_json().encode() if isinstance(value, BaseModel) else to_json(value)


@dataclass(kw_only=True)
class Call:
    """One authenticated call (or a public one: `who` is None)."""

    service: Service
    request: Request
    policy: Policy
    who: Caller | None
    now: datetime
    request_id: str
    audited: bool = False

    @property
    def engine(self) -> Engine:
        """Opens transactions."""
        return self.service.engine

    @property
    def settings(self) -> Settings:
        """The settings of the process."""
        return self.service.settings

    @property
    def actor(self) -> audit.Actor:
        """The caller as the audit log names them."""
        return self.who.actor if self.who else audit.PUBLIC

    @property
    def caller(self) -> Caller:
        """The caller of an operation that has a role: a user's session, or an API key."""
        if self.who is None:
            raise RuntimeError(f"{self.policy.action or self.request.url.path} is public: nobody is signed in")
        return self.who

    @property
    def signed_in(self) -> SignedIn:
        """The user's session, for operations about sessions and passwords.

        Raises:
            Conflict: the caller has an API key, which has neither.
        """
        if not isinstance(self.caller, SignedIn):
            raise Conflict("An API key has no session")
        return self.caller

    @property
    def role(self) -> Role:
        """The role of the caller of an operation that has one."""
        return self.caller.role

    @property
    def origin(self) -> Origin:
        """Where the call came from; the connection's address, never a header's claim."""
        client = self.request.client
        return Origin(address=client.host if client else "", request_id=self.request_id)

    def entry(self, status: int, *, resource_id: int | str | None = None, changes: Mapping[str, Any]) -> audit.Entry:
        """The audit entry of this call."""
        action = self.policy.action or f"{self.request.method} {self.request.url.path}"
        return audit.Entry(
            actor=self.actor, action=action[:200], resource_type=action.split(".")[0][:50], status=status,
            resource_id=None if resource_id is None else str(resource_id), request_id=self.request_id, changes=changes,
        )  # fmt: skip

    async def commit(
        self, effect: Callable[[Connection], Outcome], *, content: bytes | None = None,
        before: Callable[[], None] | None = None, limiter: anyio.CapacityLimiter | None = None,
    ) -> Response:  # fmt: skip
        """Carry out `effect` in one transaction with its audit entry and, where a key was sent, its kept answer.

        Args:
            effect: works inside the transaction and may run again after a deadlock; raises to refuse.
            content: what identifies the request beside its options, where that is not the JSON body (uploads).
            before: what speaks to somebody else and takes its time; runs once, ahead of the transaction.
            limiter: how many such calls may run at once, so that slow ones leave threads for all others.
        """
        key = self._key()
        if key is None:
            return _answer(await run_sync(self._perform, effect, None, before, limiter=limiter))
        wanted = content if content is not None else await self.request.body()
        secret = self.settings.pepper("idempotency")
        wanted = idempotency.request_hash(secret, self.request.url.query.encode(), wanted)
        claim = await self._claim(key, wanted)
        if isinstance(claim, idempotency.Answer):
            self.audited = True
            return _answer(_opened(self.settings, claim), {"Idempotency-Replayed": "true"})
        return _answer(await run_sync(self._perform, effect, claim, before, limiter=limiter))

    def _key(self) -> idempotency.Key | None:
        given = self.request.headers.get("idempotency-key")
        if given is None or self.request.method != "POST" or self.policy.role not in (Role.EDITOR, Role.ADMIN):
            return None
        if not (1 <= len(given) <= 255 and given.isascii() and given.isprintable()):
            message = "An Idempotency-Key has 1 to 255 printable ASCII characters"
            raise errors.Refused(422, errors.invalid(["header", "Idempotency-Key"], message))
        return idempotency.Key(caller=str(self.actor), method="POST", path=self.request.url.path, key=given)

    async def _claim(self, key: idempotency.Key, wanted: bytes) -> idempotency.Claim | idempotency.Answer:
        def look() -> idempotency.Claim | idempotency.Answer | None:
            now = datetime.now(UTC)
            try:
                with self.engine.begin() as tx:
                    return idempotency.claim(tx, key, wanted, now=now)
            except DBAPIError:
                # The connection may have broken after the claim was stored.
                self.service.owed.add(idempotency.Claim(key=key, claimed_at=now))
                raise

        deadline, pause = time.monotonic() + WAIT_SECONDS, 0.02
        while True:
            found = await run_sync(look)
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                message = "A request with this Idempotency-Key is still running"
                raise errors.Refused(409, message, code="idempotency_in_flight")
            await anyio.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _perform(
        self, effect: Callable[[Connection], Outcome], claim: idempotency.Claim | None,
        before: Callable[[], None] | None,
    ) -> idempotency.Answer:  # fmt: skip
        try:
            if before is not None:
                before()
            return _again(lambda: self._try(effect, claim))
        except Exception as error:
            problem = errors.problem_of(error)
            if claim is None or not problem.is_kept or problem.code == "idempotency_in_flight":
                if claim is not None:
                    self._release(claim)
                raise
            try:
                return self._keep_refusal(problem, claim)
            except SQLAlchemyError:
                self._release(claim)
                raise

    def _try(self, effect: Callable[[Connection], Outcome], claim: idempotency.Claim | None) -> idempotency.Answer:
        with self.engine.begin() as tx:
            outcome = effect(tx)
            answer = outcome.response()
            if self.policy.audited:
                audit.write(tx, self.entry(answer.status, resource_id=outcome.resource_id, changes=outcome.changes))
            if claim is not None:
                kept = _sealed(self.settings, answer) if outcome.is_secret else answer
                idempotency.complete(tx, claim, kept, now=datetime.now(UTC))
        self.audited = True
        return answer

    def _keep_refusal(self, problem: errors.Problem, claim: idempotency.Claim) -> idempotency.Answer:
        body = problem.body(self.request.url.path, self.request_id)
        headers = {"content-type": errors.MEDIA_TYPE, **problem.headers}
        answer = idempotency.Answer(status=problem.status, headers=headers, body=body)
        with self.engine.begin() as tx:
            if self.policy.audited:
                audit.write(tx, self.entry(problem.status, changes={"code": problem.code}))
            idempotency.complete(tx, claim, answer, now=datetime.now(UTC))
        self.audited = True
        return answer

    def _release(self, claim: idempotency.Claim) -> None:
        try:
            with self.engine.begin() as tx:
                idempotency.release(tx, claim)
        except SQLAlchemyError:
            _LOG.warning("an idempotency claim could not be released yet [%s]", self.request_id)
            self.service.owed.add(claim)

    def audit_refusal(self, problem: errors.Problem) -> None:
        """Write down a refused change, in a transaction of its own; a database that is down loses the entry."""
        try:
            with self.engine.begin() as tx:
                audit.write(tx, self.entry(problem.status, changes={"code": problem.code}))
        except DBAPIError as error:
            if not is_unavailable(error):
                raise
            _LOG.warning("a refusal (%s) could not be audited: the database is away", problem.code)




def _answer(answer: idempotency.Answer, more: Mapping[str, str] | None = None) -> Response:
    headers = {**answer.headers, **(more or {})}
    return Response(answer.body or None, answer.status, headers=headers)


def _sealed(settings: Settings, answer: idempotency.Answer) -> idempotency.Answer:
    return replace(
        answer, headers={**answer.headers, _SEALED: "yes"}, body=sealing.seal(settings, _SEALED, answer.body)
    )


def _opened(settings: Settings, kept: idempotency.Answer) -> idempotency.Answer:
    if _SEALED not in kept.headers:
        return kept
    headers = {name: value for name, value in kept.headers.items() if name != _SEALED}
    return replace(kept, headers=headers, body=sealing.unseal(settings, _SEALED, kept.body))


def _again(work: Callable[[], _T]) -> _T:
    """Run `work`, again after a deadlock or a serialization failure: the other side has won and moved on."""
    for attempt in range(1, _TRIES + 1):
        try:
            return work()
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in ("40001", "40P01") or attempt == _TRIES:
                raise
            time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")
