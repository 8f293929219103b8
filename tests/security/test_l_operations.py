"""Logs, start-up, dependencies and Airflow (group L).

Elsewhere: L1 in test_l_canaries.py, L4 in test_l_roles.py; L3 (weak secrets, no password) also in
tests/api/test_startup.py, in A12, and for Airflow's own sign-in in tests/integration/test_stack_life.py.
"""

from __future__ import annotations

import logging
import re
from importlib.metadata import PackageNotFoundError, version

import pytest

from mautolib import log
from mautolib.errors import Misconfigured
from mautolib.settings import Settings
from tests.architecture.source import ROOT

#: The first release without the hole, and which one.
FLOORS = {
    "jinja2": ((3, 1, 6), "CVE-2024-56201, CVE-2024-56326, CVE-2025-27516: escapes from the sandbox"),
    "pyjwt": ((2, 13), "CVE-2026-32597, CVE-2026-48523: unknown critical headers, keys from the token"),
    "starlette": ((1, 0, 1), "CVE-2026-48710: paths and Host"),
    "python-multipart": ((0, 0, 27), "CVE-2026-42561, CVE-2026-40347: endless part headers"),
    "aiosmtplib": ((5, 1, 2), "CVE-2026-55558: answers injected before STARTTLS"),
}
#: Unmaintained, or broken with what we use: python-jose takes unknown critical headers, passlib breaks with bcrypt 5.
ABSENT = ["python-jose", "passlib", "bcrypt"]


def numbers(text: str) -> tuple[int, ...]:
    """`5.1.3.post1` as (5, 1, 3)."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", text)[0].split("."))  # type: ignore[index]


@pytest.mark.parametrize("name", FLOORS)
def test_l5_what_is_installed_and_locked_has_the_fix(name: str) -> None:
    floor, why = FLOORS[name]
    assert numbers(version(name)) >= floor, why
    locked = re.findall(rf"^{name}==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked and all(numbers(found) >= floor for found in locked), why


@pytest.mark.parametrize("name", ABSENT)
def test_l5_what_must_not_be_there_is_absent(name: str) -> None:
    with pytest.raises(PackageNotFoundError):
        version(name)
    for file in ("requirements.txt", "requirements-dev.txt"):
        assert not re.search(rf"^{name}==", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_a_version_is_compared_by_its_numbers() -> None:
    assert numbers("0.0.34") >= (0, 0, 27) and numbers("1.10.0") > (1, 9) and numbers("5.1.1") < (5, 1, 2)
    assert numbers("2.13.0rc1") == (2, 13, 0)


FAKE = "anna\n2026-11-23 12:00:00,000 ERROR api: fake\r\n\x1b[31m\x9b31m\u2028\x00\b"


def test_l2_nothing_that_is_logged_looks_like_another_entry(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        log.setup("INFO")
        logger = logging.getLogger("mautolib.test")
        logger.info("signed up: %s", FAKE)
        try:
            raise ValueError(FAKE)
        except ValueError:
            logger.exception("it went wrong")
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    written = capsys.readouterr().err
    entries = [line for line in written.splitlines() if re.match(r"\d{4}-", line)]
    assert [line.split(" ", 2)[2].split(":")[0] for line in entries] == ["INFO mautolib.test", "ERROR mautolib.test"]
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", written) is None
    assert "ValueError: anna\n    2026" in written, "what was said can still be read"


@pytest.mark.parametrize("key", ["", "change-me-change-me-change-me-1234", "a" * 64, "default-secret-default-secret-x"])
def test_l3_nothing_starts_with_a_default_secret(settings: Settings, key: str) -> None:
    from dataclasses import replace

    assert all(item.default in ("", ()) for item in Settings.__dataclass_fields__.values() if item.metadata["secret"])
    for weak in (replace(settings, secret_keys=(key,) if key else ()), replace(settings, suppression_pepper=key)):
        with pytest.raises(Misconfigured, match="MAUTO_"):
            weak.check_secrets()


def test_l6_values_of_a_form_are_never_rendered() -> None:
    """Airflow renders the DAG's own text only; those there are show numbers a task made."""
    rendered, forbidden = [], r"render_template|BashOperator|template_fields|from jinja2|user_defined_macros"
    for path in sorted((ROOT / "dags").glob("*.py")) + sorted((ROOT / "plugins" / "mauto_airflow").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        rendered += re.findall(r"\{[{%].*?[%}]\}", source)
        assert not re.search(forbidden, source), path
    assert rendered == ["{{ task.op_kwargs['shard'] }}", "{{ task.op_kwargs['part']['bucket'] }}"]


def test_l5_what_is_locked_is_what_is_asked_for() -> None:
    """requirements.txt answers requirements.in: every line of it, in its range, each package pinned with hashes."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for name in ("requirements", "requirements-dev"):
        locked = (ROOT / f"{name}.txt").read_text(encoding="utf-8")
        blocks = re.split(r"\n(?=\S)", locked.strip())
        pins: dict[str, list[str]] = {}
        for block in blocks:
            pin = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", block)
            assert pin and "--hash=sha256:" in block, block[:80]
            pins.setdefault(canonicalize_name(pin[1]), []).append(pin[2])
        for line in (ROOT / f"{name}.in").read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.startswith(("#", "-")):
                continue
            wanted = Requirement(line)
            found = pins.get(canonicalize_name(wanted.name), [])
            assert found and all(wanted.specifier.contains(each, prereleases=True) for each in found), (line, found)
            if name == "requirements":
                assert ">=" in str(wanted.specifier) or "==" in str(wanted.specifier), f"{line}: say from which version"


def test_l5_no_licence_forbids_what_this_one_allows() -> None:
    """Nothing that is run with it is under a licence that would reach out to it (GPL without LGPL, AGPL, SSPL)."""
    from importlib.metadata import distribution

    locked = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    strict = {}
    for name in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", locked, re.MULTILINE):
        try:
            about = distribution(name).metadata
        except PackageNotFoundError:
            continue  # of another platform or Python
        said = " ".join([about.get("License-Expression") or "", *(about.get_all("Classifier") or [])])
        said = said if "License" in said or about.get("License-Expression") else (about.get("License") or "")[:200]
        reaches = re.search(r"\bA?GPL|Affero|SSPL|GNU General Public", said)
        if reaches and not re.search(r"LGPL|Lesser| OR |Artistic", said):
            strict[name] = said[:100]
    assert strict == {}
