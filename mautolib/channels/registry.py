"""The channels there are, by the name MAUTO_CHANNEL takes. A new one is a file beside this and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mautolib.channels.console import Console
from mautolib.channels.protocol import Channel
from mautolib.channels.ses_email import SesEmail
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.errors import Misconfigured
from mautolib.settings import Settings

CHANNELS: Final[Mapping[str, Callable[[Settings], Channel]]] = {
    "smtp": SmtpEmail.from_settings,
    "ses": SesEmail.from_settings,
    "console": Console.from_settings,
}


def open_channel(settings: Settings) -> Channel:
    """The channel of the settings; nothing is connected yet.

    Raises:
        Misconfigured: no such channel, or it lacks a setting.
    """
    make = CHANNELS.get(settings.channel)
    if make is None:
        raise Misconfigured(f"MAUTO_CHANNEL is {settings.channel!r}; it takes {', '.join(CHANNELS)}")
    return make(settings)
