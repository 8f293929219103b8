"""The nouns: a template as it is kept, and what is needed to make or change one. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mautolib.templates.compile import Problem


@dataclass(frozen=True, kw_only=True)
class NewTemplate:
    """What is needed to make a template; an empty text is made from the HTML when it is sent."""

    name: str
    subject: str
    html_body: str
    text_body: str = ""
    variables: tuple[str, ...] = ()
    category: str = "general"
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class TemplateChange:
    """What to change in a template; None leaves a field as it is."""

    name: str | None = None
    subject: str | None = None
    html_body: str | None = None
    text_body: str | None = None
    variables: tuple[str, ...] | None = None
    category: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template in its present version; one with problems is kept, but nothing is sent with it."""

    template_id: int
    name: str
    subject: str
    html_body: str
    text_body: str
    variables: tuple[str, ...]
    category: str
    strict: bool
    version: int
    problems: tuple[Problem, ...]
    created_at: datetime
    updated_at: datetime | None

    @property
    def valid(self) -> bool:
        """Whether it may be sent."""
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class TemplateVersion:
    """The content a template had (or has) under one number."""

    template_id: int
    version: int
    subject: str
    html_body: str
    text_body: str
    variables: tuple[str, ...]
    created_by: str
    created_at: datetime
