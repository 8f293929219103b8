"""The error tree is what its docstring draws, and each face translates all of it."""

from __future__ import annotations

import re

from mautolib import errors


def family(cls: type[errors.MautoError]) -> set[str]:
    children = [child for child in cls.__subclasses__() if child.__module__ == errors.__name__]
    return {cls.__name__}.union(*map(family, children))


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = set(re.findall(r"^[ │├└─]*([A-Z]\w+)", errors.__doc__ or "", re.M)) & set(vars(errors))
    assert drawn == family(errors.MautoError)


def test_each_error_is_wrong_input_transient_or_permanent() -> None:
    kinds = (errors.DomainError, errors.TransientError, errors.PermanentError)
    for name in family(errors.MautoError) - {"MautoError"}:
        assert sum(issubclass(getattr(errors, name), kind) for kind in kinds) == 1, name


def test_http_has_one_status_for_each_and_only_our_faults_are_5xx() -> None:
    from api.errors import STATUS_OF

    def status_of(name: str) -> int:
        return next(status for kind, status in STATUS_OF if issubclass(getattr(errors, name), kind))

    expected = {
        "NotFound": 404, "Conflict": 409, "InvalidTransition": 409, "InvalidInput": 422, "NotAllowed": 403,
        "NotAuthenticated": 401, "DomainError": 400, "RateLimited": 429, "TransientError": 503,
        "ProviderUnavailable": 503, "NoRoom": 503, "PermanentError": 500, "ProviderRejected": 500, "Misconfigured": 500,
        "MautoError": 500,
    }  # fmt: skip
    assert {name: status_of(name) for name in family(errors.MautoError)} == expected


def test_an_error_without_a_message_says_its_first_sentence() -> None:
    assert str(errors.NotFound()) == "The thing does not exist."
