"""Dependencies with known holes stay out (group L5): what is installed is at least as new as the fixes.

L1, L2 and L6 are about the stack and Airflow and live with their tests; L3 is tests/api/test_startup.py and A12.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import pytest

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
