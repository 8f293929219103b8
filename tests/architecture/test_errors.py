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


def test_an_error_without_a_message_says_its_first_sentence() -> None:
    assert str(errors.NotFound()) == "The thing does not exist."
