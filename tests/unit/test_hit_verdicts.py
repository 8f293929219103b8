"""Who made a hit: people are people, machines say so or give themselves away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mautolib.classification.hit_verdicts import BURST, Verdict, judge

PEOPLE = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.0",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Trident/7.0; ms-office; MSOffice 16)",
    "Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/70 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
]
ROBOTS = [
    "", "   ", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "curl/8.5.0",
    "python-requests/2.32", "python-httpx/0.28.1", "Go-http-client/2.0", "Java/17.0.2", "Wget/1.21",
    "Mozilla/5.0 (compatible; bingbot/2.0)", "facebookexternalhit/1.1", "Slackbot-LinkExpanding 1.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0 Safari/537.36", "Barracuda Sentinel",
    "Microsoft Office Existence Discovery", "Mozilla/5.0 (compatible; Yahoo! Slurp)", "LinkChecker/10",
]  # fmt: skip


def _judge(user_agent: str = PEOPLE[0], **facts: Any) -> Verdict:
    return judge(user_agent=user_agent, **{"seconds_since_made": 600.0, **facts})


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_people(user_agent: str) -> None:
    assert _judge(user_agent) is Verdict.HUMAN


@pytest.mark.parametrize("user_agent", ROBOTS)
def test_robots(user_agent: str) -> None:
    assert _judge(user_agent) is Verdict.BOT


def test_apples_privacy_proxy_fetches_ahead() -> None:
    assert _judge("Mozilla/5.0") is Verdict.PREFETCH


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
    for text in ("a" * 512, "(" * 512, "bo" * 256, "trend " * 80):
        began = time.thread_time()
        _judge(text)
        assert time.thread_time() - began < 0.05
