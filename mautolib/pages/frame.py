"""What every page of the dashboard shares: its style, its policy, the house it is shown in.

Promises pages for two houses - the API's `/dashboard` and a tab of the Airflow UI - that load nothing from elsewhere
and can be read without script. Signing in is the caller's part.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mautolib.pages import static_files

__all__ = ["House", "content_security_policy", "page_html", "sign_in_html"]

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class House:
    """Where a page is shown, and to whom.

    Args:
        root: what links into the dashboard begin with, with a slash at the end; may be relative.
        home: the link to the overview.
        embedded: inside another UI: without brand and sign-out.
        user, csrf, airflow_url: who is signed in, the token of the sign-out form, and where Airflow is.
    """

    root: str = "/dashboard/"
    home: str = "/dashboard"
    embedded: bool = False
    user: str = ""
    csrf: str = ""
    airflow_url: str = ""


def sign_in_html(*, csrf: str, email: str = "", error: str = "") -> str:
    """The sign-in form, with what went wrong the last time."""
    return page_html("sign_in.html", title="Sign in", csrf=csrf, email=email, error=error)


def page_html(name: str, **values: Any) -> str:
    """A page: its template with `values`, in the style of the house."""
    return _environment().get_template(name).render(style=Markup(_style()), **values)  # noqa: S704 - our own file


@cache
def content_security_policy(*, frame_ancestors: str = "'none'") -> str:
    """The policy that fits the pages: their style by its hash, scripts and forms of this server, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; "
        f"base-uri 'none'; frame-ancestors {frame_ancestors}"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["static"] = static_files
    return environment


@cache
def _style() -> str:
    return (_FOLDER / "overview.css").read_text(encoding="utf-8")
