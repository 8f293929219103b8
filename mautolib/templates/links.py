"""Links, pixel and footer of an HTML template: changed in its source, once, before it is compiled.

Promise: only addresses of links change, in whatever quotes they stand; `&amp;` is read and written as HTML wants it;
expressions stay as they are. A link made by an expression (`{{ ... }}`), a mail or phone link, an anchor and a
relative address are left alone. What is added works left to right and right to left. Called by campaign building; it
does not know tokens or campaigns.
"""

from __future__ import annotations

import html as html_text
import re
from collections.abc import Callable
from dataclasses import dataclass

from mautolib.templates.language import UNSUBSCRIBE, base_of, direction_of
from mautolib.templates.markup import Attribute, Markup, find_marks, scan

_LINK_TAGS = frozenset({"a", "area", "v:rect", "v:roundrect", "v:shape"})
_WEB = re.compile(r"https?://", re.I)
_BODY_END = re.compile(r"</body\s*>", re.I)
#: What no reader sees: comments of HTML and of Jinja.
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|\{#.*?(?:#\}|\Z)", re.S)
_BLOCK = re.compile(r"\{%[-+]?\s*(end)?(?:if|for|macro|call|filter)\b")
_IF_THERE = re.compile(r"\{%[-+]?\s*if\s+unsubscribe_url\s*[-+]?%\}")
_UNSUBSCRIBE_NAME = re.compile(r"\bunsubscribe_url\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link of a template: its address as a browser reads it; `dynamic` where an expression makes it."""

    url: str
    dynamic: bool
    tag: str


def find_links(html: str) -> tuple[Link, ...]:
    """All links of a template in document order, whatever their scheme."""
    markup = scan(html)
    return tuple(_link(markup, attribute) for attribute in _link_attributes(markup))


def rewrite_links(html: str, replace: Callable[[str, int], str]) -> str:
    """The template with each static http(s) link replaced.

    Args:
        replace: gets the address and its position among these links (from 0), returns the new address, which may be
            or contain a mark such as `{{ links[0] }}`.
    """
    markup = scan(html)
    pieces: list[str] = []
    position = index = 0
    for attribute in _link_attributes(markup):
        link = _link(markup, attribute)
        if link.dynamic or not _WEB.match(link.url):
            continue
        quote = attribute.quote or '"'
        value = _attribute_value(replace(link.url, index))
        index += 1
        before = html[position : attribute.start - len(attribute.quote)]
        pieces.append(f"{before}{quote}{value}{quote}")
        position = attribute.end + len(attribute.quote)
    return "".join([*pieces, html[position:]])


def _link_attributes(markup: Markup) -> list[Attribute]:
    return [
        attribute
        for attribute in markup.attributes
        if attribute.name == "href" and attribute.first and attribute.tag in _LINK_TAGS
    ]


def _link(markup: Markup, attribute: Attribute) -> Link:
    raw = markup.source[attribute.start : attribute.end]
    dynamic = markup.is_dynamic(attribute.start, attribute.end)
    url = raw.strip() if dynamic else re.sub(r"[\t\r\n]", "", html_text.unescape(raw)).strip()
    return Link(url=url, dynamic=dynamic, tag=attribute.tag)


def _attribute_value(url: str) -> str:
    """The address escaped for an attribute; marks in it stay as they are."""
    pieces: list[str] = []
    position = 0
    for mark in find_marks(url):
        pieces += [html_text.escape(url[position : mark.start]), url[mark.start : mark.end]]
        position = mark.end
    return "".join([*pieces, html_text.escape(url[position:])])


def add_pixel(html: str, src: str) -> str:
    """The template with an invisible image at its end; `src` may be a mark."""
    pixel = (
        f'<img src="{_attribute_value(src)}" width="1" height="1" alt="" border="0" '
        'style="display:block;width:1px;height:1px;border:0">'
    )
    return before_end(html, pixel)


def add_preheader(html: str, preheader: str) -> str:
    """The template with the line that mail programs show after the subject; nothing is added for an empty one."""
    if not preheader.strip():
        return html
    hidden = (
        '<div style="display:none;max-height:0;overflow:hidden;mso-hide:all" aria-hidden="true">'
        f"{_attribute_value(preheader)}{'&#847;&zwnj;&nbsp;' * 40}</div>"
    )
    markup = scan(html)
    body = next((end for name, _, end in markup.tags if name == "body"), 0)
    return html[:body] + hidden + html[body:]


def before_end(html: str, addition: str) -> str:
    """The HTML with `addition` as the last thing of its body."""
    ends = [found.start() for found in _BODY_END.finditer(html)] or [len(html)]
    return html[: ends[-1]] + addition + html[ends[-1] :]


def ensure_footer(
    html: str, text: str, unsubscribe_url: str, postal_address: str, language: str = "en"
) -> tuple[str, str]:
    """HTML and text with a link to unsubscribe and the sender's address, each added where it is missing.

    Args:
        text: empty stays empty: it will be made from the HTML.
        unsubscribe_url: usually the mark `{{ unsubscribe_url }}`; a body that names `unsubscribe_url` has its link.
        language: of the reader; its base decides label and direction.
    """
    label = UNSUBSCRIBE.get(base_of(language), UNSUBSCRIBE["en"])
    address = " ".join(postal_address.split())
    if html.strip():
        link = "" if _has_link(html, unsubscribe_url) else unsubscribe_url
        shown = "" if address and html_text.escape(address) in _unmarked(html) else address
        html = _with_html_footer(html, link, shown, label, direction_of(language))
    if text.strip():
        lines = [] if _has_link(text, unsubscribe_url) else [f"{label}: {unsubscribe_url}"]
        if address and address not in text:
            lines.append(_literal(address))
        text = "\n".join([text.rstrip("\n"), "", "-- ", *lines, ""]) if lines else text
    return html, text


def _has_link(source: str, url: str) -> bool:
    """Whether every reader gets the link: not one in a comment, nor one that only shows under a condition."""
    shown = _COMMENT.sub("", source)
    around: list[bool] = []
    for mark in find_marks(shown):
        inside = shown[mark.start : mark.end]
        if mark.opening == "{%" and (word := _BLOCK.match(inside)) is not None:
            if not word[1]:
                around.append(_IF_THERE.match(inside) is None)
            elif around:
                around.pop()
        elif mark.opening == "{{" and _UNSUBSCRIBE_NAME.search(inside) and not any(around):
            return True
    return not find_marks(url) and (url in shown or html_text.escape(url) in shown)


def _unmarked(source: str) -> str:
    return " ".join(_COMMENT.sub("", source).split())


def _with_html_footer(html: str, url: str, address: str, label: str, direction: str) -> str:
    lines: list[str] = []
    if address:
        lines.append(f'<span class="mauto-footer" dir="auto">{_literal(html_text.escape(address))}</span>')
    if url:
        lines.append(
            f'<a class="mauto-footer" href="{_attribute_value(url)}" '
            f'style="color:#6b7280;font-size:12px;font-weight:normal">{label}</a>'
        )
    if not lines:
        return html
    footer = (
        f'<table role="presentation" dir="{direction}" width="100%" cellpadding="0" cellspacing="0" border="0">'
        '<tr><td align="center" style="padding:8px 24px 32px;font-family:Helvetica,Arial,sans-serif;'
        f'font-size:12px;line-height:18px;color:#6b7280">{"<br>".join(lines)}</td></tr></table>'
    )
    return before_end(html, footer)


def _literal(text: str) -> str:
    """Text that Jinja shows as it is."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)
