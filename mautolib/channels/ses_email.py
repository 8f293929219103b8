"""The SES channel: Amazon SES through its v2 API, one SendEmail with the finished message for each.

Promise: nothing is sent again by the library (its retries are off), and what is only throttled, surely not taken, is
tried a few times more. An error that names a refusal decides the message; one of the account, the sender or the
connection closes the way; silence and 5xx answers after the request was written are doubts. The ids of message and
attempt travel as tags and come back in every notice. Registered as `ses`; credentials come by boto3's own chain.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mautolib.channels.protocol import Outgoing, Watch
from mautolib.channels.wire import check_data, check_seven_bit, unfit, wire_address
from mautolib.errors import MautoError, Misconfigured, ProviderRejected, ProviderUnavailable
from mautolib.ledger.identity import ATTEMPT_TAG, MESSAGE_TAG
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings, variable

_LOG = logging.getLogger(__name__)
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
#: Pauses when SES says that this was one message too many in a second; then the way is closed.
PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
#: When a message that went back without being the cause is tried again; the next group comes before it.
RETRY_SECONDS: Final = 90.0
_THROTTLED: Final = frozenset({
    "TooManyRequestsException", "Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded",
})  # fmt: skip
_STOPPED: Final = frozenset({"AccountSuspendedException", "SendingPausedException"})
_REFUSED_US: Final = frozenset({
    "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException",
    "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "ExpiredToken",
    "ExpiredTokenException", "MissingAuthenticationToken", "OptInRequired", "NotAuthorized",
})  # fmt: skip
#: How a MessageRejected is worded that is about who sends, not about what.
_ABOUT_SENDER: Final = ("not verified", "not authorized", "not have authority")


@dataclass(frozen=True, kw_only=True)
class Account:
    """Which SES to speak to; empty texts are left to SES and boto3."""

    region: str
    configuration_set: str = ""
    endpoint_url: str = ""
    connect_seconds: float = CONNECT_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    pauses: Sequence[float] = PAUSES


class SesEmail:
    """E-mail through Amazon SES."""

    name = "ses"

    def __init__(self, account: Account) -> None:
        """Nothing is connected yet."""
        self._account = account
        self._opened: Any = None

    @classmethod
    def from_settings(cls, settings: Settings) -> SesEmail:
        """The SES of the settings.

        Raises:
            Misconfigured: no region, or a demo, which must not write to anybody.
        """
        if settings.demo:
            raise Misconfigured("The demo sends to a mail sink on this machine only; MAUTO_CHANNEL is ses")
        if not settings.ses_region:
            raise Misconfigured(f"{variable('ses_region')} is not set; MAUTO_CHANNEL=ses needs the region of your SES")
        return cls(
            Account(
                region=settings.ses_region,
                configuration_set=settings.ses_configuration_set,
                endpoint_url=settings.ses_endpoint_url,
            )
        )

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        """Hand over `messages` one by one; see `Channel.deliver`."""
        for message in messages:
            kept = watch.before(message)
            if kept is not None:
                yield kept
                continue
            result, closed = self._one(message, watch)
            yield result
            if closed is not None:
                raise closed

    def close(self) -> None:
        """End the connection."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _one(self, message: Outgoing, watch: Watch) -> tuple[Result, MautoError | None]:
        """What became of a message, and what closed the way for those after it."""
        try:
            request = self._request(message)
        except ProviderRejected as error:
            return unfit(error), None
        client = self._client()
        throttled = _Throttled("", is_for_long=False)
        for pause in (*self._account.pauses, None):
            if not watch.begins(message):
                return Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end"), None
            answer = _asked(client, request)
            if not isinstance(answer, _Throttled):
                return answer
            throttled = answer
            if pause is None or throttled.is_for_long:
                break
            time.sleep(pause)
        return _back(Stage.CONNECT), ProviderUnavailable(f"Amazon SES takes no more mail for now: {throttled.reply}")

    def _request(self, message: Outgoing) -> dict[str, Any]:
        recipient = wire_address(message.recipient)
        sender = wire_address(message.sender)
        if not message.is_checked:
            check_data(message.data)
            check_seven_bit(message.data)
        tags = {MESSAGE_TAG: message.message_id, ATTEMPT_TAG: message.attempt_id}
        request = {
            "FromEmailAddress": sender,
            "Destination": {"ToAddresses": [recipient]},
            "Content": {"Raw": {"Data": message.data}},
            "EmailTags": [{"Name": name, "Value": str(value)} for name, value in tags.items()],
        }
        if self._account.configuration_set:
            request["ConfigurationSetName"] = self._account.configuration_set
        return request

    def _client(self) -> Any:
        """The client; made late, for boto3 takes its time, and before anything is begun, for it may not work."""
        if self._opened is None:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            account = self._account
            config = Config(
                connect_timeout=account.connect_seconds, read_timeout=account.answer_seconds, max_pool_connections=1,
                retries={"total_max_attempts": 1, "mode": "standard"}, tcp_keepalive=True,
            )  # fmt: skip
            try:
                session = boto3.session.Session()
                credentials = session.get_credentials()
                self._opened = session.client(
                    "sesv2", region_name=account.region, endpoint_url=account.endpoint_url or None, config=config
                )
            except (BotoCoreError, ValueError) as error:
                raise Misconfigured(f"Amazon SES cannot be used: {error}") from error
            if credentials is None:
                raise Misconfigured("There are no AWS credentials for MAUTO_CHANNEL=ses; boto3 finds them in the "
                                    "environment, a profile or the role of the machine")  # fmt: skip
        return self._opened


@dataclass(frozen=True)
class _Throttled:
    """Surely not taken, only because it was too much."""

    reply: str
    is_for_long: bool


def _asked(client: Any, request: dict[str, Any]) -> tuple[Result, MautoError | None] | _Throttled:
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        answer = client.send_email(**request)
    except ClientError as error:
        return _refused(error)
    except ParamValidationError as error:
        reply = _printable(str(error))
        return Result(verdict=Verdict.FAILED, stage=Stage.BUILD, reply=reply), None
    except (BotoCoreError, OSError) as error:
        return _broken(error)
    provider_id = str(answer.get("MessageId") or "")
    if not provider_id:
        why = "Amazon SES answered without a message id"
        return _doubt(why), ProviderUnavailable(why)
    return Result(verdict=Verdict.SENT, stage=Stage.DOT, code=250, reply="Ok", provider_id=provider_id), None


def _refused(error: Any) -> tuple[Result, MautoError | None] | _Throttled:
    """What SES says, in the codes its SMTP side uses."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = str(error.response.get("Error", {}).get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    reply = _printable(f"{code}: {said}" if said else code or str(status))
    if code in _THROTTLED or status == 429 or code == "LimitExceededException":
        return _Throttled(reply, is_for_long=code == "LimitExceededException" or "quota" in said.lower())
    if status >= 500 or not code:
        # Whoever answered so, SES or something before it, may have passed the message on.
        return _doubt(reply), ProviderUnavailable(f"Amazon SES is in trouble: {reply}")
    if code in _STOPPED:
        return _back(Stage.AUTH), Misconfigured(f"Amazon SES sends nothing for this account: {reply}")
    if code in _REFUSED_US or status in (401, 403):
        return _back(Stage.AUTH), Misconfigured(f"Amazon SES refuses us: {reply}; the credentials, their right to "
                                                "ses:SendEmail and MAUTO_SES_REGION decide")  # fmt: skip
    if code == "NotFoundException":
        return _back(Stage.AUTH), Misconfigured(f"Amazon SES misses something: {reply}; see "
                                                "MAUTO_SES_CONFIGURATION_SET")  # fmt: skip
    if code == "MailFromDomainNotVerifiedException" or any(word in said.lower() for word in _ABOUT_SENDER):
        return Result(verdict=Verdict.RELEASED, stage=Stage.MAIL, code=554, enhanced="5.7.1", reply=reply), None
    # MessageRejected, BadRequestException: this message; many of them are about what we send, and pause a campaign.
    return Result(verdict=Verdict.FAILED, stage=Stage.DOT, code=554, enhanced="5.7.0", reply=reply), None


def _broken(error: Exception) -> tuple[Result, MautoError]:
    """No answer: before the request left nothing happened, afterwards anything may have."""
    from botocore import exceptions as of

    why = f"{type(error).__name__}: {error}"
    credentials = (of.NoCredentialsError, of.PartialCredentialsError, of.CredentialRetrievalError)
    if isinstance(error, credentials):
        return _back(Stage.AUTH), Misconfigured(f"Amazon SES cannot be asked: {why}")
    closed = ProviderUnavailable(f"Amazon SES cannot be reached: {why}")
    unsent = (of.EndpointConnectionError, of.ConnectTimeoutError, of.ProxyConnectionError)
    if isinstance(error, unsent) or _is_certificate(error):
        return _back(Stage.CONNECT), closed
    return _doubt(_printable(why)), closed


def _is_certificate(error: BaseException | None) -> bool:
    """Whether a certificate was not good, wherever it is hidden in what was raised."""
    seen: list[Any] = [error]
    for one in seen:
        if isinstance(one, ssl.SSLCertVerificationError):
            return True
        if isinstance(one, BaseException) and len(seen) < 20:
            seen += [one.__cause__, one.__context__, *one.args, *getattr(one, "kwargs", {}).values()]
    return False


def _back(stage: Stage) -> Result:
    return Result(verdict=Verdict.RELEASED, stage=stage, retry_after_seconds=RETRY_SECONDS)


def _doubt(reply: str) -> Result:
    return Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply=reply)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() and letter.isascii() else " " for letter in text)[:500]
