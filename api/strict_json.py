"""Reading JSON bodies: valid UTF-8, valid Unicode, finite numbers, bounded depth - or a clear 422.

Guards that nothing PostgreSQL or Python chokes on (NUL, lone surrogates, NaN, numbers of thousands of digits, deep
nesting, keys given twice) gets past the door. Called for every JSON body.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from starlette.requests import Request

from api.errors import Refused, invalid

MAXIMUM_DEPTH = 32
MAXIMUM_KEYS = 10_000
_INT_LIMIT = 2**63


class Written(float):
    """A number whose digits a float cannot hold; `str()` gives them as they were written, so that money stays exact."""

    __slots__ = ("_digits",)
    _digits: str

    def __new__(cls, digits: str) -> Written:
        """The float nearest to `digits`, which are kept."""
        number = super().__new__(cls, digits)
        number._digits = digits
        return number

    def __str__(self) -> str:
        return self._digits


class StrictRequest(Request):
    """A request whose `json()` refuses what this module refuses."""

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            Refused: 422 with the reason.
        """
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


def parse(body: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        Refused: 422 with the reason.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("The body is not valid UTF-8", "json_invalid")
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        _refuse(f"The body is not valid JSON: {error.msg} at character {error.pos}", "json_invalid")
    except RecursionError:
        _refuse(f"The body is nested deeper than {MAXIMUM_DEPTH} levels", "json_too_deep")
    _walk(value)
    return value


def is_clean(text: str) -> bool:
    """Whether a string is valid Unicode without NUL or lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _walk(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if depth > MAXIMUM_DEPTH and any(isinstance(item, dict | list) for item in level):
            _refuse(f"The body is nested deeper than {MAXIMUM_DEPTH} levels", "json_too_deep")
        level = deeper


def _check_text(text: str) -> None:
    if not is_clean(text):
        _refuse("Text is valid Unicode without NUL characters", "text_invalid")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("An object has one key twice", "json_duplicate_key")
    if len(pairs) > MAXIMUM_KEYS:
        _refuse(f"An object has more than {MAXIMUM_KEYS} keys", "json_too_large")
    return found


def _int(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= _INT_LIMIT:
        _refuse("A number is out of range", "number_out_of_range")
    return int(digits)


def _float(digits: str) -> float:
    # What is written with at most 15 digits comes back from a float as it was.
    number = float(digits) if len(digits) <= 15 and "e" not in digits.lower() else Written(digits)
    if not math.isfinite(number):
        _refuse("Numbers are finite", "finite_number")
    return number


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a number in JSON; numbers are finite", "finite_number")


def _refuse(message: str, kind: str) -> NoReturn:
    raise Refused(422, invalid(["body"], message, kind=kind))
