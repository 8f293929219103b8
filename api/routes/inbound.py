"""Notices of the mail provider: Amazon SNS posts here what became of messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import Depends, Response
from pydantic import ConfigDict, Field
from starlette.requests import Request

from api.calls import JSON, MIB, json_bytes
from api.errors import Refused, invalid
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer
from mautolib import feedback

router = Router("Provider notices")
_EXAMPLE = {
    "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:eu-central-1:123456789012:mail-feedback",
    "Message": '{"notificationType":"Delivery","mail":{"messageId":"0107018a"},"delivery":{"recipients":[]}}',
    "Timestamp": "2026-05-01T09:00:00.000Z", "SignatureVersion": "2", "Signature": "MIIBOgIBAAJB",
    "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
}  # fmt: skip
_SCHEMA = {"type": "object", "additionalProperties": True, "description": "A message of SNS, as SNS writes it."}
_MEDIA = {"schema": _SCHEMA, "example": _EXAMPLE}
#: SNS says text/plain of the same JSON, which is taken too; generators of clients know JSON only.
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {JSON: _MEDIA}}}


class ShownReceipt(Answer):
    """What became of a notice."""

    model_config = ConfigDict(title="NoticeReceipt", json_schema_extra={"example": {"status": "stored"}})

    status: Literal["stored", "duplicate", "confirmed", "ignored"] = Field(
        description="stored, known already, a subscription confirmed, or nothing to do."
    )


async def _given(request: Request) -> dict[str, Any]:
    body = await request.json()
    if not isinstance(body, dict):
        raise Refused(422, invalid(["body"], "A message of SNS is a JSON object", kind="dict_type"))
    return body


@router.post(
    "/webhooks/inbound/ses", response_model=ShownReceipt, openapi_extra=_BODY,
    responses=problems(422, s403="Topic, certificate address or signature is not accepted"),
)  # fmt: skip
@allow(None, action="notice.receive", body_limit=MIB, media_types=(JSON, "text/plain"), audited=False)
async def receive_ses_notice(call: CurrentCall, given: Annotated[dict[str, Any], Depends(_given)]) -> Response:
    """Take in a notice of Amazon SES.

    Posted by Amazon SNS: bounces, complaints and deliveries in the notificationType or eventType form. The signature
    (version 1 or 2) is the proof; the topic has to be listed in `MAUTO_SNS_TOPIC_ARNS`. A subscription is confirmed by
    itself. Notices are applied within minutes, each once.
    """
    received = await run_sync(lambda: feedback.receive_sns(call.engine, call.settings, given, now=call.now))
    return Response(json_bytes(ShownReceipt.model_validate({"status": received.status})), media_type=JSON)
