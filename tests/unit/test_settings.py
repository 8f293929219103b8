"""The settings: read once, refused by name, and their catalogue is the example file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mautolib.errors import Misconfigured
from mautolib.settings import Settings, example_file, refuse_weak, variable

KEY = "5c1de9a7f04b8263d9e0517ab3c684f2"


def test_values_are_read_in_their_types() -> None:
    settings = Settings.from_env({
        "MAUTO_API_PORT": " 9000 ", "MAUTO_DEMO": "yes", "MAUTO_HOME": "/srv/mauto", "MAUTO_SMTP_HOST": "",
        "MAUTO_CORS_ORIGINS": "https://a.example, https://b.example,", "UNRELATED": "x",
    })  # fmt: skip
    assert settings.api_port == 9000
    assert settings.demo is True
    assert settings.home == Path("/srv/mauto")
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.smtp_host == "127.0.0.1"  # empty means: as if not given


@pytest.mark.parametrize(("name", "value", "takes"), [
    ("MAUTO_API_PORT", "8k", "a whole number"), ("MAUTO_DEMO", "maybe", "true or false"),
    ("MAUTO_STORAGE", "s3://bucket/prefix", "a folder"),
])  # fmt: skip
def test_a_wrong_value_is_refused_by_name(name: str, value: str, takes: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} is '{value}'; it takes {takes}"):
        Settings.from_env({name: value})


def test_the_example_file_is_the_catalogue() -> None:
    root = Path(__file__).parents[2]
    assert (root / ".env.example").read_text() == example_file(), "run: python -m mautolib.settings > .env.example"


def test_every_setting_has_help_and_no_secret_a_default() -> None:
    for item in dataclasses.fields(Settings):
        assert item.metadata["help"].strip(), item.name
        if item.metadata["secret"]:
            assert not item.default, item.name
    text = example_file()
    for item in dataclasses.fields(Settings):
        assert text.count(f"#{variable(item.name)}=") == 1


@pytest.mark.parametrize("value", ["", "short", "a" * 40, "changeme-" * 5, "0123456789" * 4])
def test_weak_secrets_are_refused_by_name(value: str) -> None:
    with pytest.raises(Misconfigured, match="MAUTO_SUPPRESSION_PEPPER"):
        refuse_weak("MAUTO_SUPPRESSION_PEPPER", value)


def test_keys_differ_by_purpose_and_rotate_newest_first() -> None:
    newer = "e7a91b04f6d2853cab10f9e4d7c6328b"
    one = Settings(secret_keys=(KEY,), suppression_pepper=KEY)
    both = dataclasses.replace(one, secret_keys=(newer, KEY))
    assert one.keys("access") != one.keys("links")
    assert both.keys("access")[1:] == one.keys("access")
    assert all(len(key) == 32 for key in both.keys("access"))
    assert one.pepper("ids") != one.pepper("addresses")
    with pytest.raises(Misconfigured, match="MAUTO_SECRET_KEYS is not set"):
        Settings().keys("access")


def test_a_role_without_a_url_works_as_the_owner() -> None:
    settings = Settings(database_url="postgresql://owner@db/x", api_database_url="postgresql://api@db/x")
    assert settings.url_for("api") == "postgresql://api@db/x"
    assert settings.url_for("worker") == "postgresql://owner@db/x"
    with pytest.raises(Misconfigured, match="MAUTO_DATABASE_URL is not set"):
        Settings().url_for("owner")


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    shown = repr(Settings(secret_keys=(KEY,), suppression_pepper=KEY, admin_password="hunter2 hunter2",
                          database_url="postgresql://me:topsecret@db/x"))  # fmt: skip
    assert KEY not in shown
    assert "hunter2" not in shown
    assert "topsecret" not in shown
