"""The settings: one frozen object, read once from the environment, and the one catalogue of them.

Every setting is a `MAUTO_...` variable. `Settings.from_env()` is called by the faces and handed down; nothing here
is read at import. `python -m mautolib.settings` prints `.env.example`. Secrets have no default and a
weak one is refused with its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import re
import sys
import types
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mautolib.errors import Misconfigured

MINIMUM_SECRET_BYTES = 32
_HOURS = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")
_WEAK = ("change", "secret", "default", "example", "password", "0123456789")


def _s(group: str, help_text: str, default: Any = dataclasses.MISSING, *, secret: bool = False) -> Any:
    metadata = {"group": group, "help": help_text, "secret": secret}
    if default is dataclasses.MISSING:
        return field(metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process. Units are part of the name; money and rates are never floats."""

    database_url: str = _s(
        "database", "PostgreSQL (15 or newer) warehouse; owner role, or the only role", "", secret=True
    )
    api_database_url: str = _s(
        "database", "the same database as role mauto_api; empty: the owner's", "", secret=True
    )
    worker_database_url: str = _s(
        "database", "the same database as role mauto_worker; empty: the owner's", "", secret=True
    )
    tracker_database_url: str = _s(
        "database", "the same database as role mauto_tracker; empty: the owner's", "", secret=True
    )
    eraser_database_url: str = _s(
        "database", "the same database as role mauto_eraser, for maintenance; empty: the owner's", "", secret=True
    )
    analyst_database_url: str = _s(
        "database", "the same database as role mauto_analyst; used by make psql", "", secret=True
    )

    secret_keys: tuple[str, ...] = _s(
        "secrets", "key ring, newest first, comma-separated, each of 32 bytes or more", (), secret=True
    )
    suppression_pepper: str = _s(
        "secrets", "keys the hashes of erased addresses and the ids in links; never rotate it", "", secret=True
    )

    environment: str = _s("general", "production, or development (accepts http links to this machine)", "production")
    demo: bool = _s("general", "set by make demo: mail goes to the local sink and to reserved domains only", False)
    home: Path = _s("general", "cluster, logs and secrets of the local stack", Path(".mauto"))
    storage: str = _s("general", "folder of uploads and journals; the API and all workers need the same one", "")
    log_level: str = _s("general", "DEBUG, INFO, WARNING or ERROR", "INFO")
    log_format: str = _s("general", "text, or json: one object a line", "text")

    public_base_url: str = _s("api", "base of the links in mail", "http://127.0.0.1:8000")
    api_host: str = _s("api", "address the API listens on", "127.0.0.1")
    api_port: int = _s("api", "port the API listens on", 8000)
    cors_origins: tuple[str, ...] = _s("api", "origins that may call the API from a browser, comma-separated", ())
    admin_email: str = _s("api", "first administrator, made at the first start", "")
    admin_password: str = _s("api", "its password (10 to 128 characters)", "", secret=True)
    access_token_ttl_minutes: int = _s("api", "life of an access token", 1440)
    refresh_token_ttl_days: int = _s("api", "life of a refresh token", 30)
    ready_requires_airflow: bool = _s("api", "/ready answers 503 when Airflow gives no sign of life", False)
    airflow_url: str = _s("api", "where the Airflow UI is; for /ready and links", "http://127.0.0.1:8080")

    channel: str = _s("mail", "smtp, ses (Amazon SES) or console", "smtp")
    smtp_host: str = _s("mail", "mail server", "127.0.0.1")
    smtp_port: int = _s("mail", "its port", 1025)
    smtp_security: str = _s("mail", "none, starttls or tls", "none")
    smtp_username: str = _s("mail", "empty: no login", "")
    smtp_password: str = _s("mail", "password for it", "", secret=True)
    smtp_connections: int = _s("mail", "connections a sender opens, to SES too", 1)
    smtp_messages_per_connection: int = _s("mail", "a connection is renewed after so many messages; 0: never", 1000)
    smtp_seconds_per_connection: int = _s("mail", "and after so many seconds; 0: never", 300)
    ses_region: str = _s("mail", "AWS region of Amazon SES", "")
    ses_configuration_set: str = _s("mail", "configuration set of SES, which names where its notices go", "")
    ses_endpoint_url: str = _s("mail", "another server that speaks the SES v2 API; empty: AWS", "")
    default_from_name: str = _s("mail", "sender name where a campaign has none", "")
    default_from_email: str = _s("mail", "sender address where a campaign has none", "")
    postal_address: str = _s("mail", "your postal address; stands in every marketing mail", "")
    bounce_domain: str = _s(
        "mail", "domain that bounces come back to, each to an address naming its message; empty: the sender address", ""
    )
    sender_domains: tuple[str, ...] = _s(
        "mail", "domains mail may be sent from, subdomains included, comma-separated; empty: any", ()
    )
    dkim_domain: str = _s("mail", "domain that signs the mail (DKIM); empty: unsigned", "")
    dkim_selector: str = _s("mail", "its selector: the key is in the DNS under <selector>._domainkey.<domain>", "")
    dkim_key_file: str = _s("mail", "file with the private key (PEM, RSA of 2048 bits or more, or Ed25519)", "")
    require_consent: bool = _s("mail", "mail only contacts whose consent is granted", False)
    alert_email: str = _s("alerts", "gets a mail when something fails, is late or stuck; empty: none", "")
    alert_webhook_url: str = _s("alerts", "gets the same as a signed call; empty: none", "", secret=True)
    alert_webhook_secret: str = _s("alerts", "signs these calls (32 bytes or more)", "", secret=True)
    watch_minutes: tuple[str, ...] = _s(
        "alerts", "after how long something counts as stuck, as in imports_waiting=60, comma-separated", ()
    )
    backup_max_age_hours: int = _s("alerts", "alert when the last mauto backup is older; 0: never", 0)
    default_timezone: str = _s("pace", "time zone of contacts without one, and of windows without a schedule", "UTC")
    quiet_hours: str = _s("pace", "no marketing mail in these hours of the recipient's day, as in 21:00-08:00", "")
    frequency_cap: int = _s("pace", "most marketing mails a contact gets in that many days; 0: no cap", 0)
    frequency_cap_days: int = _s("pace", "days the cap counts back", 7)
    max_per_hour: int = _s("pace", "most marketing mails in an hour, all campaigns together; 0: no limit", 0)
    warmup_per_day: int = _s("pace", "marketing mails on the first day of a new sender's warm-up; 0: no warm-up", 0)
    warmup_growth_percent: int = _s("pace", "how much more each further day of the warm-up", 30)
    warmup_from: str = _s("pace", "first day of the warm-up, as in 2026-11-23", "")

    sns_topic_arns: tuple[str, ...] = _s(
        "feedback", "SNS topics whose notices of Amazon SES are taken, comma-separated; empty: none", ()
    )
    sns_signature_version: int = _s("feedback", "least version of SNS signatures: 1 (SHA-1) or 2 (SHA-256)", 1)
    bounce_mailbox: str = _s(
        "feedback", "where bounces arrive: a maildir folder, or imaps://host/folder (imap:// only to this machine)", ""
    )
    bounce_mailbox_username: str = _s("feedback", "login of that IMAP mailbox", "")
    bounce_mailbox_password: str = _s("feedback", "its password", "", secret=True)
    webhook_allow_http: bool = _s("feedback", "URLs we call may be http://, not only https://", False)
    webhook_allowed_hosts: tuple[str, ...] = _s(
        "feedback", "host or host:port we may call although it is not on the public internet, comma-separated", ()
    )
    outbox_days: int = _s("feedback", "days that facts for webhooks are kept", 7)
    webhook_delivery_days: int = _s("feedback", "days that deliveries which ended, and their attempts, are kept", 30)

    reporting_currency: str = _s("data", "ISO 4217 code figures are converted to", "USD")
    reporting_timezone: str = _s("data", "time zone of reporting_day in schema analytics", "UTC")
    attribution_click_days: int = _s("data", "days in which a click, or a test's mail, counts for an order", 5)
    attribution_open_days: int = _s("data", "days in which an open does, where there was no click", 1)
    max_import_bytes: int = _s("data", "largest import file, unpacked", 5 * 1024**3)
    s3_endpoint_url: str = _s("data", "S3 server of imports and of the lake; empty: AWS", "")
    s3_region: str = _s("data", "its region; empty: as boto3 finds it", "")
    lake_target: str = _s(
        "data", "folder or s3://bucket/prefix that gets schema analytics as Parquet, hourly; empty: none", ""
    )
    disposable_domains: tuple[str, ...] = _s(
        "data", "files of more disposable mail domains (one a line or a JSON list, also .gz), comma-separated", ()
    )
    dns_servers: tuple[str, ...] = _s(
        "data", "DNS servers asked in address checks, as address or address:port; empty: the system's", ()
    )
    raw_hit_days: int = _s("data", "raw opens and clicks are kept this long", 400)

    database_port: int = _s("local stack", "port of the embedded PostgreSQL", 54329)
    airflow_port: int = _s("local stack", "port of the Airflow UI, on this machine only", 8080)
    mail_page_port: int = _s("local stack", "page of the local mail sink; runs while MAUTO_SMTP_HOST is not set", 8025)
    airflow_database_url: str = _s(
        "local stack", "Airflow metadata; empty: database airflow on the same server", "", secret=True
    )
    airflow_parallelism: int = _s("local stack", "tasks that may run at once", 8)
    airflow_keep_days: int = _s("local stack", "finished runs and their logs are kept this long", 30)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ` (default: the process environment).

        Raises:
            Misconfigured: a value cannot be read; names the variable and what it takes.
        """
        environ = os.environ if environ is None else environ
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):
            name = variable(item.name)
            raw = environ.get(name)
            if raw is None or raw.strip() == "":
                continue
            values[item.name] = _convert(name, raw.strip(), hints[item.name])
        if "://" in values.get("storage", ""):
            # Taken for a path it would become a folder named after the address.
            raise Misconfigured(f"{variable('storage')} is {values['storage']!r}; it takes a folder")
        _check_pace(values)
        if (shape := values.get("log_format", "text")) not in ("text", "json"):
            raise Misconfigured(f"{variable('log_format')} is {shape!r}; it takes text or json")
        return cls(**values)

    @property
    def storage_path(self) -> Path:
        """The local folder for uploads and journals (`storage`, else `<home>/storage`)."""
        return Path(self.storage) if self.storage else self.home / "storage"

    def url_for(self, role: str) -> str:
        """The database URL of a process role: owner, api, worker, tracker, eraser or analyst (else the owner's).

        Raises:
            Misconfigured: no database is configured.
        """
        own = self.database_url if role == "owner" else getattr(self, f"{role}_database_url")
        url: str = own or self.database_url
        if not url:
            raise Misconfigured("MAUTO_DATABASE_URL is not set; start the local stack with `make up` or set it")
        return url

    def keys(self, purpose: str) -> tuple[bytes, ...]:
        """The 32-byte keys of one purpose, newest first: the first one signs, all verify.

        Each is HMAC-SHA256(ring key, "mauto/" + purpose), so a token of one purpose never passes for another.

        Raises:
            Misconfigured: the ring is empty or a key is weak.
        """
        if not self.secret_keys:
            raise Misconfigured("MAUTO_SECRET_KEYS is not set; `make up` generates one")
        for key in self.secret_keys:
            refuse_weak("MAUTO_SECRET_KEYS", key)
        label = f"mauto/{purpose}".encode()
        return tuple(hmac.digest(key.encode(), label, "sha256") for key in self.secret_keys)

    def pepper(self, purpose: str) -> bytes:
        """A 32-byte key that outlives rotation, for hashes and public ids.

        Raises:
            Misconfigured: the pepper is missing or weak.
        """
        refuse_weak("MAUTO_SUPPRESSION_PEPPER", self.suppression_pepper)
        return hmac.new(self.suppression_pepper.encode(), f"mauto/{purpose}".encode(), hashlib.sha256).digest()

    def check_secrets(self) -> None:
        """Refuse to start with a missing or weak secret.

        Raises:
            Misconfigured: names the variable.
        """
        self.keys("check")
        self.pepper("check")


def variable(name: str) -> str:
    """The environment variable of a setting: `smtp_host` -> `MAUTO_SMTP_HOST`."""
    return f"MAUTO_{name.upper()}"


def refuse_weak(name: str, value: str) -> None:
    """Raise `Misconfigured` unless `value` has 32 bytes, 10 different characters and no well-known word in it."""
    if len(value.encode()) < MINIMUM_SECRET_BYTES:
        raise Misconfigured(f"{name} is missing or shorter than {MINIMUM_SECRET_BYTES} bytes; "
                            "generate one with: python3 -c 'import secrets; print(secrets.token_hex(32))'")
    if len(set(value)) < 10 or any(word in value.lower() for word in _WEAK):
        raise Misconfigured(f"{name} looks like a placeholder; "
                            "generate one with: python3 -c 'import secrets; print(secrets.token_hex(32))'")


def _check_pace(values: Mapping[str, Any]) -> None:
    """Refuse what would silently send at a wrong time."""
    for name in ("default_timezone", "reporting_timezone"):
        if (zone := values.get(name, "UTC")) not in zoneinfo.available_timezones():
            raise Misconfigured(f"{variable(name)} is {zone!r}; it takes a name such as Europe/Berlin")
    hours = values.get("quiet_hours", "")
    start, _, end = hours.partition("-")
    if hours and (_HOURS.fullmatch(hours) is None or start == end):
        raise Misconfigured(f"{variable('quiet_hours')} is {hours!r}; it takes a span such as 21:00-08:00")
    least = {"frequency_cap_days": 1, "frequency_cap": 0, "max_per_hour": 0, "warmup_per_day": 0,
             "warmup_growth_percent": 0, "attribution_click_days": 1, "attribution_open_days": 0,
             "backup_max_age_hours": 0}  # fmt: skip
    for name, minimum in least.items():
        if values.get(name, minimum) < minimum:
            raise Misconfigured(f"{variable(name)} is {values[name]}; it takes {minimum} or more")
    for name in ("attribution_click_days", "attribution_open_days"):
        if values.get(name, 0) > 366:
            raise Misconfigured(f"{variable(name)} is {values[name]}; it takes 366 or less")
    try:
        day = date.fromisoformat(values["warmup_from"]) if values.get("warmup_from") else None
    except ValueError:
        raise Misconfigured(f"{variable('warmup_from')} takes a day such as 2026-11-23") from None
    if values.get("warmup_per_day") and day is None:
        raise Misconfigured(f"{variable('warmup_per_day')} is set; {variable('warmup_from')} must name its first day")


def _convert(name: str, raw: str, hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if hint is bool:
        if raw.lower() in ("1", "true", "yes", "on"):
            return True
        if raw.lower() in ("0", "false", "no", "off"):
            return False
        raise Misconfigured(f"{name} is {raw!r}; it takes true or false")
    if hint is int:
        try:
            return int(raw)
        except ValueError:
            raise Misconfigured(f"{name} is {raw!r}; it takes a whole number") from None
    if hint is Path:
        return Path(raw)
    if get_origin(hint) is tuple:
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    return raw


def example_file() -> str:
    """The text of `.env.example`: every setting, its help and its default, grouped."""
    lines = ["# Settings of MarketingAutomation-Lite. Generated: python -m mautolib.settings > .env.example",
             "# Copy to .env and uncomment what you change. Secrets have no default."]
    group = ""
    for item in dataclasses.fields(Settings):
        if item.metadata["group"] != group:
            group = item.metadata["group"]
            lines += ["", f"# --- {group} ---"]
        default = "" if item.default is dataclasses.MISSING else item.default
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, bool):
            default = str(default).lower()
        lines += [f"# {item.metadata['help']}", f"#{variable(item.name)}={default}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(example_file())
