"""Why a mail came back: the reason in the words of the other side, and what it says about the address.

Promise: the *reason* decides whether an address is dead, not the class of the code: many a `5.x.x` is a full mailbox or
a block of the sender, and neither ever counts as hard. Words go before codes, because codes are used loosely; what
nothing explains is soft. Pure; called by feedback. Codes: RFC 3463, 5248, 7505 and the IANA registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mautolib.classification import bounce_words as words
from mautolib.classification.reasons import ABOUT_SENDER, HARD, BounceClass, Reason, bounce_class

__all__ = ["ABOUT_SENDER", "HARD", "BounceClass", "Reason", "bounce_class", "is_after_data", "reason_of"]

_BY_STATUS: Final[Mapping[str, Reason]] = {
    "1.1": Reason.USER_UNKNOWN, "1.2": Reason.HOST_UNKNOWN, "1.3": Reason.USER_UNKNOWN, "1.4": Reason.USER_UNKNOWN,
    "1.6": Reason.MOVED, "1.7": Reason.SENDER_REFUSED, "1.8": Reason.SENDER_REFUSED, "1.10": Reason.NOT_ACCEPTING,
    "2.0": Reason.FILTERED, "2.1": Reason.SUSPENDED, "2.2": Reason.MAILBOX_FULL, "2.3": Reason.TOO_LARGE,
    "2.4": Reason.SYSTEM, "3.0": Reason.SYSTEM, "3.1": Reason.MAILBOX_FULL, "3.2": Reason.SYSTEM,
    "3.4": Reason.TOO_LARGE, "4.1": Reason.NETWORK, "4.2": Reason.NETWORK, "4.3": Reason.SYSTEM,
    "4.4": Reason.HOST_UNKNOWN, "4.5": Reason.BUSY, "4.6": Reason.NETWORK, "4.7": Reason.EXPIRED,
}  # fmt: skip
_BY_SUBJECT: Final[Mapping[str, Reason]] = {
    "3": Reason.SYSTEM, "4": Reason.NETWORK, "5": Reason.SYSTEM, "6": Reason.POLICY, "7": Reason.POLICY,
}  # fmt: skip
_STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")


def reason_of(text: str, status: str = "") -> Reason:
    """The reason in a diagnostic.

    Args:
        text: what the other side said, and nothing of the mail itself.
        status: the enhanced status code of the report; one within `text` counts more if that report's says nothing.
    """
    whole = " ".join(text.lower().split())
    said = words.NAME.sub("name", words.PREAMBLE.sub(" ", words.ADDRESS.sub("addr", words.LINK.sub(" ", whole))))
    if words.DIRECTORY.search(whole) or words.NO_ACCOUNT.search(said):
        return Reason.USER_UNKNOWN
    if words.LOCAL.search(said):
        return Reason.SYSTEM
    coded, is_transient = _of_codes(status, said)
    found = next((reason for reason, pattern in words.PATTERNS if pattern.search(said)), Reason.UNDEFINED)
    if found not in (Reason.VIRUS, Reason.MAILBOX_FULL) and words.LISTS.search(whole):
        return Reason.BLOCKED
    if found is Reason.USER_UNKNOWN and coded is Reason.MAILBOX_FULL:
        return coded
    if found is Reason.USER_UNKNOWN and words.AFTER_MAIL.search(said):
        return Reason.SENDER_REFUSED
    if found is Reason.USER_UNKNOWN and coded not in HARD and is_after_data(whole):
        return Reason.FILTERED
    if found in (Reason.HOST_UNKNOWN, Reason.NOT_ACCEPTING) and (is_transient or words.LATER.search(said)):
        return Reason.NETWORK
    return coded if found in _WEAK and coded is not Reason.UNDEFINED else found


def is_after_data(text: str) -> bool:
    """Whether a report says that the refusal came after the mail was handed over, not when its recipient was named."""
    said = " ".join(text.lower().split())
    return bool(words.AFTER_DATA.search(said)) and "no valid recipients" not in said


#: Words that are also said beside a code that says more.
_WEAK: Final = frozenset({Reason.UNDEFINED, Reason.SYSTEM, Reason.NETWORK, Reason.EXPIRED})


def _of_codes(status: str, said: str) -> tuple[Reason, bool]:
    """What the enhanced codes say, and whether for now only.

    The code in the diagnostic was written by who refused, so it goes first.
    """
    for code in (*(match[0] for match in _STATUS.finditer(said)), status):
        matched = _STATUS.fullmatch(code)
        if matched is None:
            continue
        if matched[1] == "2":
            return Reason.DELIVERED, False
        found = _BY_STATUS.get(f"{matched[2]}.{matched[3]}") or _BY_SUBJECT.get(matched[2])
        is_transient = matched[1] == "4"
        if found in HARD and is_transient and found is not Reason.USER_UNKNOWN:
            return Reason.EXPIRED, True
        if found is not None:
            return found, is_transient
    return Reason.UNDEFINED, status.startswith("4")
