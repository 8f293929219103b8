"""Language tags, and which variant of a campaign a person reads.

Promise: a tag is one of BCP 47 (RFC 5646) in the form mail needs, compared without regard to case; a person gets the
variant of their language, else that of its base language, else the default content. Pure functions. Callers: planning,
preview, test mails, the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Language, script, region, variants, extensions, private use; without the grandfathered tags and extended languages.
_TAG: Final = re.compile(
    r"[a-z]{2,3}(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"
    r"(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST: Final = 64


def is_tag(text: str) -> bool:
    """Whether `text` is a well-formed language tag such as `de`, `pt-BR` or `zh-Hant-TW`."""
    return len(text) <= _LONGEST and _TAG.fullmatch(text) is not None


def variant_for(tags: Iterable[str], language: str) -> str | None:
    """The tag of the variant for somebody of `language`; None: the default content.

    Args:
        tags: those there are, as they were written.
        language: as a contact has it; `pt_BR` is `pt-BR`.
    """
    known = {tag.lower(): tag for tag in tags}
    wanted = language.strip().replace("_", "-").lower()
    return known.get(wanted) or known.get(wanted.partition("-")[0])
