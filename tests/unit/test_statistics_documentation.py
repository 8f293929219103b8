"""The worked examples of docs/statistics.md give what it says."""

from __future__ import annotations

import doctest
import re

from tests.architecture.source import ROOT


def test_the_examples_give_what_the_page_says() -> None:
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/statistics.md", None, 0)
    told: list[str] = []
    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False).run(examples, out=told.append)
    assert found.failed == 0, "".join(told)
    assert found.attempted >= 30
