"""Who made a hit: people are people, machines say so or give themselves away."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from mautolib.classification import user_agents
from mautolib.classification.hit_verdicts import BURST, CROWD, Verdict, judge, may_be_crowded

PEOPLE = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.0",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Trident/7.0; ms-office; MSOffice 16)",
    "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/70 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537 SamsungBrowser/27.0 Chrome/125.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UQ1A; wv) AppleWebKit/537.36 Version/4.0 Chrome/120.0 Mobile",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1 CriOS/125.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 GSA/318.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/21E219 [FBAN/FBIOS;FBAV/460.0]",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/21E219 Instagram 330.0.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) Mobile/15E148 MicroMessenger/8.0.49 NetType/WIFI",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/125.0.0.0 Safari/537.36 Edg/125.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/125.0.0.0 Safari/537.36 OPR/111.0.0.0",
    "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17531; Pro)",
    "Outlook-iOS/723.4028500.prod.iphone (4.2412.0)", "MacOutlook/16.83.24031120 (Intelx64 Mac OS X Version 14.4)",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Slack/4.38 Chrome/124 Electron/30.0 Safari",
    "Mozilla/5.0 (Linux; U; Android 13; zh-cn; V2134A) AppleWebKit/537.36 Chrome/87.0 Mobile Safari VivoBrowser/16",
    "Mozilla/5.0 (Linux; Android 12; HarmonyOS; NOH-AN00) AppleWebKit/537.36 Chrome/99 HuaweiBrowser/14 Mobile",
    "Mozilla/5.0 (Linux; arm_64; Android 13; 2201117TG) Chrome/122.0 YaBrowser/24.4 SA/3 Mobile Safari/537.36",
    "Opera/9.80 (Android; Opera Mini/36.2/191.256; U; en) Presto/2.12.423 Version/12.16",
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 Version/16.0 Safari/605.1.15 Evolution/3.46",
    "Airmail 5.7 rv:754 (Mac OS X 14.4; en_US)", "FastmailUA/1.0",
    "Mozilla/5.0 (Macintosh; U; Intel Mac OS X 10_5_6; en-us) AppleWebKit/528.16 Fluid/0.9.6 Safari/528.16",
]
ROBOTS = [
    "", "   ", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "curl/8.5.0",
    "python-requests/2.32", "python-httpx/0.28.1", "Go-http-client/2.0", "Java/17.0.2", "Wget/1.21",
    "Mozilla/5.0 (compatible; bingbot/2.0)", "facebookexternalhit/1.1", "Slackbot-LinkExpanding 1.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0 Safari/537.36", "Barracuda Sentinel",
    "Microsoft Office Existence Discovery", "Mozilla/5.0 (compatible; Yahoo! Slurp)", "LinkChecker/10",
    "Mozilla/5.0 (compatible; Nutch-1.18)", "okhttp/4.12.0", "Nessus SOAP v0.0.1", "SSL Labs",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/78.0 Electron/7.3.2 PingdomTMS/2020.2",
]  # fmt: skip


def _judge(user_agent: str = PEOPLE[0], **facts: Any) -> Verdict:
    return judge(user_agent=user_agent, **{"seconds_since_made": 600.0, **facts})


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_people(user_agent: str) -> None:
    assert _judge(user_agent) is Verdict.HUMAN


@pytest.mark.parametrize("user_agent", ROBOTS)
def test_robots(user_agent: str) -> None:
    assert _judge(user_agent) is Verdict.BOT


@pytest.mark.parametrize("user_agent", [
    "Mozilla/5.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0",
])  # fmt: skip
def test_mail_systems_that_fetch_ahead(user_agent: str) -> None:
    assert _judge(user_agent) is Verdict.PREFETCH
    assert _judge(user_agent + " (X11)") is Verdict.HUMAN


def test_the_bundled_list_is_used_and_its_licence_is_there() -> None:
    folder = Path(user_agents.__file__).parent
    lines = [line for line in (folder / "crawlers.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 1400
    assert set(lines) >= user_agents._NOT_ROBOTS, "what is left out is in the list"
    _, rest = user_agents._crawlers()
    for line in set(lines) - user_agents._NOT_ROBOTS:
        # A name made of the pattern itself is a robot's: no line of the list got lost on the way.
        plain = re.sub(r"\\(.)", r"\1", line)
        if user_agents._PLAIN.fullmatch(line):
            assert user_agents._is_listed(plain) or user_agents._ROBOT.search(plain), line
        else:
            assert f"(?:{line})" in rest.pattern
    assert "MIT License" in (folder / "crawlers.license.txt").read_text()


def test_a_crowd_from_one_network_under_one_name_is_a_machine() -> None:
    assert [_judge(crowd=n) for n in (CROWD - 1, CROWD, CROWD + 1)] == [Verdict.HUMAN, Verdict.BOT, Verdict.BOT]


@pytest.mark.parametrize(("network", "is_inside"), [
    ("10.1.2.0/24", True), ("127.0.0.0/24", True), ("192.168.7.0/24", True), ("172.16.0.0/24", True),
    ("172.31.9.0/24", True), ("172.32.0.0/24", False), ("100.64.0.0/24", True), ("100.127.1.0/24", True),
    ("100.128.1.0/24", False), ("169.254.1.0/24", True), ("::/48", True), ("fd00:1::/48", True), ("fe80::/48", True),
    ("2001:db8::/48", False), ("203.0.113.0/24", False), ("", True), ("101.0.0.0/24", False), ("110.0.0.0/24", False),
])  # fmt: skip
def test_many_readers_come_from_inside_or_through_a_mail_house(network: str, is_inside: bool) -> None:
    assert may_be_crowded(PEOPLE[0], network) is is_inside
    assert may_be_crowded("... (via ggpht.com GoogleImageProxy)", network)


@pytest.mark.parametrize("purpose", ["prefetch", "Prefetch;prerender", "preview"])
def test_announced_prefetches(purpose: str) -> None:
    assert _judge(purpose=purpose) is Verdict.PREFETCH
    assert _judge(purpose="navigate") is Verdict.HUMAN


def test_a_head_request_is_no_reader() -> None:
    assert _judge(is_head=True) is Verdict.PREFETCH


@pytest.mark.parametrize(("seconds", "verdict"), [
    (0.0, Verdict.BOT), (0.99, Verdict.BOT), (-0.5, Verdict.BOT), (1.0, Verdict.HUMAN), (3.0, Verdict.HUMAN),
    (-30.0, Verdict.HUMAN), (None, Verdict.HUMAN),
])  # fmt: skip
def test_nobody_is_faster_than_a_second(seconds: float | None, verdict: Verdict) -> None:
    assert _judge(seconds_since_made=seconds) is verdict


def test_the_later_hits_of_a_burst_are_a_machines() -> None:
    assert [_judge(recent_hits=n) for n in range(BURST + 2)] == [Verdict.HUMAN] * BURST + [Verdict.BOT] * 2


def test_a_long_name_is_judged_in_linear_time() -> None:
    _judge("The list is read once")
    for text in ("a" * 512, "(" * 512, "bo" * 256, "trend " * 80, "Current" * 73, "Spider" * 85, " Edge/12.246" * 42):
        began = time.thread_time()
        _judge(text)
        assert time.thread_time() - began < 0.05
