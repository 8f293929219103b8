"""The sink's pages: a list of mails and one mail. Plain HTML without a script, everything escaped.

Called by `mailsink_web`. A received HTML part is never put into these pages: it is shown in a sandboxed frame from
an address of its own, with a policy that loads and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final
from urllib.parse import quote, urlencode

from mautolib.stack.mailsink_box import Entry
from mautolib.stack.mailsink_mail import ReceivedMail

PAGE_SIZE: Final = 50
TABS: Final = ("html", "text", "links", "headers", "source")
_SHOWN_SOURCE = 200_000

STYLE: Final = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1b2330; --soft: #5b6675; --line: #e1e5ea;
  --accent: #2456d6; --tint: #eaf0ff; --danger: #b3261e; --code: #f0f2f5; }
@media (prefers-color-scheme: dark) { :root { --page: #11151b; --card: #191f28; --ink: #e9edf3; --soft: #9aa6b5;
  --line: #2b3441; --accent: #8fb0ff; --tint: #1e2c4a; --danger: #ff8a80; --code: #10141a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
a { color: var(--accent); }
header { position: sticky; top: 0; z-index: 1; background: var(--card); border-bottom: 1px solid var(--line); }
header > div, main { max-width: 1120px; margin: 0 auto; padding: 12px 20px; }
header > div { display: flex; gap: 12px 20px; align-items: center; flex-wrap: wrap; }
.brand { font-weight: 700; font-size: 17px; color: var(--ink); text-decoration: none; }
.brand small { font-weight: 400; font-size: 13px; color: var(--soft); margin-left: 8px; }
form.search { flex: 1 1 260px; display: flex; gap: 8px; }
input[type=search] { flex: 1; min-width: 0; padding: 8px 12px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--page); color: inherit; font: inherit; }
button, .button { display: inline-block; padding: 7px 14px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); color: var(--ink); font: inherit; text-decoration: none; cursor: pointer; }
button:hover, .button:hover { border-color: var(--accent); color: var(--accent); }
.clear { position: relative; }
.clear summary { list-style: none; }
.clear summary::-webkit-details-marker { display: none; }
.clear form { position: absolute; right: 0; top: calc(100% + 6px); }
.clear button { color: var(--danger); white-space: nowrap; box-shadow: 0 6px 24px #0003; }
button.danger:hover { border-color: var(--danger); color: var(--danger); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.mails { list-style: none; margin: 0; padding: 0; }
.mails a { display: grid; grid-template-columns: minmax(0, 16rem) minmax(0, 1fr) auto; gap: 4px 20px;
  align-items: baseline; padding: 11px 18px; border-top: 1px solid var(--line); color: inherit; text-decoration: none; }
.mails li:first-child a { border-top: 0; }
.mails a:hover, .mails a:focus-visible { background: var(--tint); }
.mails span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.subject { font-weight: 600; }
.soft, time { color: var(--soft); }
time, .size { font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.empty { padding: 72px 20px; text-align: center; color: var(--soft); }
.empty b { display: block; color: var(--ink); font-size: 18px; margin-bottom: 6px; }
.pager { display: flex; justify-content: space-between; align-items: center; gap: 12px; padding: 16px 2px; }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 10px; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: auto 1fr; gap: 2px 16px; margin: 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.head { padding: 18px 20px; }
nav.tabs { display: flex; gap: 4px; padding: 0 12px; border-block: 1px solid var(--line); overflow-x: auto; }
nav.tabs a { padding: 10px 12px; color: var(--soft); text-decoration: none; border-bottom: 2px solid transparent;
  white-space: nowrap; }
nav.tabs a[aria-current] { color: var(--accent); border-color: var(--accent); font-weight: 600; }
nav.tabs .right { margin-left: auto; }
.stage { background: var(--line); }
iframe { display: block; width: 100%; height: 78vh; min-height: 420px; margin: 0 auto; border: 0; background: #fff;
  resize: vertical; }
iframe.phone { width: 375px; max-width: 100%; }
pre { margin: 0; padding: 18px 20px; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--code);
  font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 8px 20px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; width: 14rem; }
.notice { margin: 0; padding: 12px 20px; font-size: 14px; color: var(--soft); }
@media (max-width: 640px) {
  header > div, main { padding: 10px 12px; }
  .mails a { grid-template-columns: minmax(0, 1fr) auto; padding: 11px 14px; }
  .mails .subject { grid-column: 1 / -1; grid-row: 1; white-space: normal; }
  th, td { display: block; width: auto; padding: 6px 16px; } td { border-top: 0; padding-top: 0; }
  .head, pre { padding: 14px 16px; }
  .brand { flex: 1; } form.search { order: 3; flex-basis: 100%; }
}
"""


def page(title: str, body: str, *, total: int, search: str = "") -> str:
    """A whole page around `body`, which is HTML already."""
    kept = f"{total:,} message{'' if total == 1 else 's'}"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><link rel="stylesheet" href="/style.css"><link rel="icon" href="data:,"></head>
<body><header><div><a class="brand" href="/">Mail sink<small>{kept}</small></a>
<form class="search" action="/" role="search"><input type="search" name="q" value="{escape(search)}"
 placeholder="Recipient, subject or Message-ID" aria-label="Search mails"><button>Search</button></form>
<details class="clear"><summary class="button">Delete all</summary><form method="post" action="/clear">
<button class="danger">Yes, delete {kept}</button></form></details></div></header>
<main>{body}</main></body></html>"""


def list_page(entries: Sequence[Entry], *, total: int, found: int, search: str, number: int) -> str:
    """The mails, newest first, `number` counting pages from 1."""
    if not entries:
        reason = (
            "<b>Nothing found</b>No recipient, subject or Message-ID contains what you searched for."
            if search
            else "<b>No mail yet</b>Whatever is sent to this sink appears here and goes nowhere else."
        )
        return page("Mail sink", f'<div class="card empty">{reason}</div>', total=total, search=search)
    rows = "".join(_row(entry) for entry in entries)
    last = max(1, -(-found // PAGE_SIZE))
    newer = _pager_link(search, number - 1, "Newer") if number > 1 else "<span></span>"
    older = _pager_link(search, number + 1, "Older") if number < last else "<span></span>"
    where = f"{found:,} found, page {number} of {last}" if search else f"Page {number} of {last}"
    body = (
        f'<ul class="mails card">{rows}</ul>'
        f'<div class="pager">{newer}<span class="soft">{where}</span>{older}</div>'
    )
    return page("Mail sink", body, total=total, search=search)


def _row(entry: Entry) -> str:
    subject = escape(entry.subject) or '<span class="soft">(no subject)</span>'
    return (
        f'<li><a href="/messages/{entry.id}"><span>{escape(", ".join(entry.rcpt))}</span>'
        f'<span class="subject">{subject}</span>{_time(entry)}</a></li>'
    )


def _time(entry: Entry) -> str:
    return f'<time datetime="{escape(entry.time)}">{escape(entry.time[:19].replace("T", " "))}</time>'


def _pager_link(search: str, number: int, label: str) -> str:
    query = urlencode({"q": search, "page": number} if search else {"page": number})
    return f'<a class="button" href="/?{escape(query)}">{label}</a>'


def mail_page(
    mail: ReceivedMail, tab: str, *, phone: bool, newer: int | None, older: int | None, total: int
) -> str:
    """One mail: who, what, when, and the part chosen by `tab`."""
    links = "".join(_tab(mail, name, tab) for name in TABS if name != "html" or mail.html)
    around = "".join(
        f'<a class="button" href="/messages/{other}">{label}</a>' if other else "<span></span>"
        for label, other in (("Newer", newer), ("Older", older))
    )
    facts = [
        ("From", mail.header("From") or mail.sender),
        ("To", ", ".join(mail.recipients)),
        ("Received", mail.entry.time[:19].replace("T", " ") + " UTC"),
        ("Size", _size(mail.entry.size)),
    ]
    if mail.attachments:
        facts.append(("Attached", ", ".join(f"{name} ({_size(size)})" for name, _, size in mail.attachments)))
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    body = (
        f'<article class="card"><div class="head"><h1>{escape(mail.subject) or "(no subject)"}</h1>'
        f'<dl class="facts">{shown}</dl></div><nav class="tabs" aria-label="Parts of the mail">{links}'
        f'<a class="right" href="/messages/{mail.id}/raw">Download</a></nav>{_part(mail, tab, phone=phone)}</article>'
        f'<div class="pager">{around}</div>'
    )
    return page(mail.subject or "Mail", body, total=total)


def _tab(mail: ReceivedMail, name: str, current: str) -> str:
    label = {"html": "HTML", "links": f"Links ({len(mail.links)})"}.get(name, name.capitalize())
    mark = ' aria-current="page"' if name == current else ""
    return f'<a href="/messages/{mail.id}?show={name}"{mark}>{label}</a>'


def _part(mail: ReceivedMail, tab: str, *, phone: bool) -> str:
    if tab == "html":
        other, label = ("", "Desktop") if phone else ("?width=phone", "Phone")
        width = f'<a href="/messages/{mail.id}{other}">{label} width</a>'
        frame = (
            f'<iframe sandbox src="/messages/{mail.id}/html" title="HTML part"'
            f'{" class=phone" if phone else ""} referrerpolicy="no-referrer"></iframe>'
        )
        notice = f'<p class="notice">Remote images, scripts and links are off in this view. {width}</p>'
        return f'{notice}<div class="stage">{frame}</div>'
    if tab == "text":
        return f"<pre>{escape(mail.text)}</pre>" if mail.text else '<p class="notice">There is no text part.</p>'
    if tab == "links":
        return _links(mail)
    if tab == "headers":
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in mail.headers)
        envelope = f"<tr><th>Envelope sender</th><td>{escape(mail.sender) or '&lt;&gt;'}</td></tr>"
        return f"<table>{envelope}{rows}</table>"
    source = mail.raw[:_SHOWN_SOURCE].decode("utf-8", "replace").replace("\r\n", "\n")
    cut = '<p class="notice">Cut here; download the mail for the rest.</p>' if len(mail.raw) > _SHOWN_SOURCE else ""
    return f"<pre>{escape(source)}</pre>{cut}"


def _links(mail: ReceivedMail) -> str:
    if not mail.links:
        return '<p class="notice">There are no links.</p>'
    rows = []
    for link in mail.links:
        address = escape(link.href)
        if link.href.lower().startswith(("http://", "https://")):
            address = f'<a href="{address}" rel="noreferrer noopener" target="_blank">{address}</a>'
        rows.append(f"<tr><th>{escape(link.text) or '(no text)'}</th><td>{address}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _size(size: int) -> str:
    return f"{size:,} bytes" if size < 10_000 else f"{size / 1000:,.1f} kB"


def error_page(status: int, message: str, *, total: int) -> str:
    """A page that says what went wrong."""
    body = f'<div class="card empty"><b>{escape(message)}</b><a href="/">All mails</a></div>'
    return page(str(status), body, total=total)


def file_name(mail: ReceivedMail) -> str:
    """Content-Disposition of a downloaded mail."""
    name = quote((mail.subject or "mail")[:60].strip() + ".eml")
    return f"attachment; filename=\"mail-{mail.id}.eml\"; filename*=UTF-8''{name}"
