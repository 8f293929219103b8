"""The mail sink: takes mail as a strict server would, keeps it through kills, shows it safely."""

from __future__ import annotations

import http.client
import json
import re
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from mautolib.errors import Misconfigured, NotFound
from mautolib.stack import mailsink
from mautolib.stack.mailsink import MailSink
from mautolib.stack.mailsink_box import Entry, Mailbox

NOW = datetime(2026, 11, 22, 10, 0, 0, 123000, tzinfo=UTC)
HOSTILE = "\"><script>alert('x')</script>{{7*7}}"


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[MailSink]:
    with MailSink(tmp_path / "mail") as running:
        yield running


class Client:
    """Speaks SMTP as bytes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")
        self.greeting = self.reply()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> str:
        lines = []
        while True:
            line = self._file.readline().decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def mail(subject: str = "Hello", *, text: str = "Hi", html: str = "", to: str = "a@mail.example") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Shop <news@shop.example>", to, subject
    message["Message-ID"] = f"<{abs(hash((subject, to)))}@shop.example>"
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message


def deliver(sink: MailSink, *messages: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", sink.smtp_port) as smtp:
        for message in messages:
            smtp.send_message(message)


def ask(
    sink: MailSink, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.http_port, timeout=10)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


def api(sink: MailSink, path: str) -> Any:
    status, headers, body = ask(sink, path)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


# --- SMTP ---------------------------------------------------------------------------------------------------------


def test_a_mail_arrives_as_it_was_sent(sink: MailSink) -> None:
    deliver(
        sink,
        mail(
            "Grüße, 世界 " + "x" * 200,
            text="Ä\n.dot\n..two\nx",
            html='<a href="https://x.example/?a&amp;b">L</a>',
        ),
    )
    (received,) = sink.wait_for(1)
    assert received.subject == "Grüße, 世界 " + "x" * 200
    assert received.text == "Ä\n.dot\n..two\nx\n"
    assert [(link.href, link.text) for link in received.links] == [("https://x.example/?a&b", "L")]
    assert (received.sender, received.recipients) == ("news@shop.example", ("a@mail.example",))
    assert received.message_id == received.header("message-id") and received.message_id.endswith("@shop.example>")


def test_commands_may_be_pipelined(sink: MailSink) -> None:
    with Client(sink.smtp_port) as client:
        assert client.greeting.startswith("220 ")
        features = client.ask("EHLO me").split("\n")
        assert {"250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8"} <= set(features)
        assert any(re.fullmatch(r"250-SIZE \d+", feature) for feature in features) and features[-1].startswith("250 ")
        for number in range(3):
            client.send(b"MAIL FROM:<a@b.example> BODY=8BITMIME SIZE=100\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
            assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            # the next transaction follows the dot at once
            client.send(b"Subject: %d\r\n\r\nx\r\n.\r\nNOOP\r\n" % number)
            assert [client.reply()[:3], client.reply()[:3]] == ["250", "250"]
        assert client.ask("QUIT").startswith("221 ")
    assert [received.subject for received in sink.messages()] == ["0", "1", "2"]


def test_only_the_dot_on_its_own_line_ends_a_message(sink: MailSink) -> None:
    body = b"Subject: x\r\n\r\na\n.\nb\r.\rc\r\n.\nd\n.\r\ne\r\n..f\r\n"
    with Client(sink.smtp_port) as client:
        for line in ("EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            client.ask(line)
        for byte in body:
            client.send(bytes([byte]))
        assert sink.count() == 0
        client.send(b".\r\n")
        assert client.reply().startswith("250 2.0.0 kept as 1")
    assert sink.messages()[0].raw == body.replace(b"\r\n..f", b"\r\n.f")


def test_an_empty_message_and_one_that_begins_with_a_dot(sink: MailSink) -> None:
    with Client(sink.smtp_port) as client:
        client.ask("HELO me")
        for content in (b".\r\n", b"..x\r\n.\r\n"):
            client.ask("MAIL FROM:<>")
            client.ask("RCPT TO:<c@d.example>")
            client.ask("DATA")
            client.send(content)
            assert client.reply().startswith("250 ")
    assert [(received.sender, received.raw) for received in sink.messages()] == [("", b""), ("", b".x\r\n")]


@pytest.mark.parametrize(
    ("commands", "answer"),
    [
        (["MAIL FROM:<a@b.example>"], "503 5.5.1"),
        (["EHLO me", "RCPT TO:<a@b.example>"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "DATA"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "MAIL FROM:<a@b.example>"], "503 5.5.1"),
        (["EHLO me", "MAIL FROM: a@b.example"], "501 5.5.4"),
        (["EHLO me", "MAIL FROM:<a b@c.example>"], "501 5.5.4"),
        (["EHLO me", "MAIL TO:<a@b.example>"], "501 5.5.4"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<>"], "501 5.5.4"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<a@x><b@y>"], "501 5.5.4"),
        (["EHLO me", "MAIL FROM:<a@b.example> SIZE=99999999999"], "552 5.3.4"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<ä@b.example>"], "553 5.6.7"),
        (["EHLO me", "MAIL FROM:<a@b.example> SMTPUTF8", "RCPT TO:<ä@b.example>"], "250 2.1.5"),
        (["EHLO me", "MAIL FROM:<a@b.example>", "RSET", "RCPT TO:<a@b.example>"], "503 5.5.1"),
        (["EHLO"], "501 5.5.4"), (["AUTH PLAIN x"], "500 5.5.2"), (["EHLO me", "NO\nOP"], "500 5.5.2"),
        (["N\x00OP"], "500 5.5.2"), (["VRFY x"], "252 2.5.2"), (["x" * 2040], "500 5.5.2"), (["HELP"], "214 2.0.0"),
    ],
)  # fmt: skip
def test_refusals_say_why(sink: MailSink, commands: list[str], answer: str) -> None:
    with Client(sink.smtp_port) as client:
        for command in commands[:-1]:
            assert client.ask(command)[:1] == "2"
        assert client.ask(commands[-1]).startswith(answer)
        assert client.ask("NOOP").startswith("250 ")
    assert sink.count() == 0


def test_a_line_without_end_is_not_read_for_ever(sink: MailSink) -> None:
    with Client(sink.smtp_port) as client:
        client.send(b"x" * 5000)
        assert client.reply().startswith("500 5.5.2")
        assert client.reply() == ""


def test_a_message_too_large_is_refused_and_the_connection_goes_on(
    sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mautolib.stack.mailsink_smtp.MAX_SIZE", 10_000)
    with Client(sink.smtp_port) as client:
        client.ask("EHLO me")
        for size, answer in ((100_000, "552 5.3.4"), (9_000, "250 2.0.0")):
            for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
                client.ask(line)
            client.send((b"x" * 98 + b"\r\n") * (size // 100) + b".\r\n")
            assert client.reply().startswith(answer)
    assert [received.entry.size for received in sink.messages()] == [9_000]


def test_a_message_without_its_dot_is_not_kept(sink: MailSink) -> None:
    with Client(sink.smtp_port) as client:
        for line in ("EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            client.ask(line)
        client.send(b"Subject: half\r\n\r\nx\r\n")
    deliver(sink, mail("whole"))
    assert [received.subject for received in sink.wait_for(1)] == ["whole"]


def test_stopping_says_goodbye(tmp_path: Path) -> None:
    with MailSink(tmp_path / "mail") as sink:
        client = Client(sink.smtp_port)
    assert client.reply().startswith("421 4.3.2")
    client.close()


def test_waiting_tells_what_is_missing(sink: MailSink) -> None:
    deliver(sink, mail())
    with pytest.raises(TimeoutError, match=r"^1 of 2 messages came in 0\.05 s$"):
        sink.wait_for(2, timeout=0.05)


# --- what is kept -------------------------------------------------------------------------------------------------


def test_the_log_has_one_line_for_each_accepted_message(sink: MailSink) -> None:
    with smtplib.SMTP("127.0.0.1", sink.smtp_port) as smtp:
        smtp.send_message(mail("One"), "bounce+1@shop.example", ["a@mail.example", "b@mail.example"])
    (line,) = sink.log_path.read_text().splitlines()
    entry = json.loads(line)
    content = sink.messages()[0].raw
    assert entry["rcpt"] == ["a@mail.example", "b@mail.example"] and entry["sender"] == "bounce+1@shop.example"
    assert entry["message_id"] == mail("One")["Message-ID"] and entry["size"] == len(content)
    assert (sink.directory / entry["path"]).read_bytes()[entry["offset"] :] == content
    assert abs((datetime.now(UTC) - datetime.fromisoformat(entry["time"])).total_seconds()) < 60


def test_a_killed_sink_lost_nothing_it_accepted(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mautolib.stack.mailsink",
        "--smtp-port",
        "0",
        "--http-port",
        "0",
        "--directory",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = process.stdout.readline()
        port = int(re.search(r"SMTP on 127\.0\.0\.1:(\d+)", started).group(1))  # type: ignore[union-attr]
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            for number in range(40):
                smtp.send_message(mail(f"Mail {number}", to=f"p{number}@mail.example"))
        process.kill()
    with MailSink(tmp_path) as sink:
        assert [received.subject for received in sink.messages()] == [f"Mail {number}" for number in range(40)]
        deliver(sink, mail("After"))
        assert sink.messages()[-1].id == 41 and sink.messages("p7@")[0].text == "Hi\n"


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    box.append("a@b.example", ["c@d.example"], b"Subject: whole\r\n\r\n", now=NOW)
    box.close()
    with (tmp_path / "accepted.jsonl").open("ab") as log:
        log.write(b'{"id": 2, "time": "20')
    box = Mailbox(tmp_path)
    assert box.count() == 1
    assert box.append("a@b.example", ["c@d.example"], b"x", now=NOW).id == 2
    box.close()
    assert [json.loads(line)["id"] for line in (tmp_path / "accepted.jsonl").read_text().splitlines()] == [1, 2]


def test_a_lost_index_is_made_again(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    entries = [box.append("a@b.example", [f"{n}@d.example"], b"Subject: %d\r\n\r\n" % n, now=NOW) for n in range(5)]
    box.close()
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    box = Mailbox(tmp_path)
    assert box.after(0, limit=-1) == entries
    assert entries[0] == Entry(
        id=1, time="2026-11-22T10:00:00.123Z", message_id="", sender="a@b.example", rcpt=("0@d.example",), subject="0",
        size=14, path="mail-000001.bin", offset=0,
    )  # fmt: skip
    box.close()


def test_large_amounts_go_to_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mautolib.stack.mailsink_box.SEGMENT_BYTES", 2_000)
    box = Mailbox(tmp_path)
    contents = [b"Subject: x\r\n\r\n" + bytes([65 + n]) * 900 for n in range(5)]
    entries = [box.append("", ["c@d.example"], content, now=NOW) for content in contents]
    assert [entry.path for entry in entries] == [f"mail-{n:06d}.bin" for n in (1, 1, 2, 2, 3)]
    assert [box.content(entry) for entry in entries] == contents
    box.close()


def test_emptying_keeps_counting(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    first = box.append("", ["c@d.example"], b"x", now=NOW)
    assert box.clear() == 1 and box.count() == 0 and not list(tmp_path.glob("*.bin"))
    with pytest.raises(NotFound):
        box.content(first)
    assert box.append("", ["c@d.example"], b"y", now=NOW).id == 2
    box.close()
    box = Mailbox(tmp_path)
    assert [box.content(entry) for entry in box.newest()] == [b"y"]
    box.close()


def test_one_sink_a_directory(sink: MailSink) -> None:
    with pytest.raises(Misconfigured, match=r"is in use by another mail sink; give each its own --directory"):
        Mailbox(sink.directory)


def test_ten_thousand_are_listed_at_once(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    for number in range(10_000):
        box.append("a@b.example", [f"p{number}@mail.example"], b"Subject: Number %d\r\n\r\nx" % number, now=NOW)
    begun = time.perf_counter()
    assert [entry.subject for entry in box.newest(limit=2)] == ["Number 9999", "Number 9998"]
    assert [entry.subject for entry in box.newest(search="NUMBER 777", limit=99)] == [
        *(f"Number {7779 - n}" for n in range(10)), "Number 777",
    ]  # fmt: skip
    assert box.count("p4242@") == 1 and box.count("%") == 0 and box.neighbours(5) == (6, 4)
    assert time.perf_counter() - begun < 8
    box.close()


# --- pages and API ------------------------------------------------------------------------------------------------


def test_the_api_lists_and_shows(sink: MailSink) -> None:
    html = '<a href="https://x.example/1">One</a><img src="https://x.example/p.gif"><a href="https://x.example/2"><b>T</b>wo</a>'
    deliver(sink, mail("First", to="a@mail.example"), mail("Second", html=html, to="b@mail.example"), mail("Third"))
    assert api(sink, "/health") == {"status": "ok", "messages": 3}
    assert api(sink, "/api/count") == {"count": 3} and api(sink, "/api/count?q=second") == {"count": 1}
    listed = api(sink, "/api/messages?limit=2")
    assert [message["subject"] for message in listed["messages"]] == ["Third", "Second"] and listed["count"] == 3
    assert [message["id"] for message in api(sink, "/api/messages?after=1&limit=9999")["messages"]] == [2, 3]
    assert [message["id"] for message in api(sink, "/api/messages?q=b%40mail.example")["messages"]] == [2]
    assert api(sink, "/api/messages?after=3")["messages"] == []
    shown = api(sink, "/api/messages/2")
    assert shown["links"] == [
        {"href": "https://x.example/1", "text": "One"}, {"href": "https://x.example/2", "text": "Two"},
    ]  # fmt: skip
    assert (
        shown["images"] == ["https://x.example/p.gif"]
        and shown["html"].startswith("<a href")
        and shown["text"] == "Hi\n"
    )
    assert ["Subject", "Second"] in shown["headers"] and shown["recipients"] == ["b@mail.example"]
    assert api(sink, "/api/messages?q=second&include=content")["messages"] == [shown]


def test_links_of_a_text_mail_are_found(sink: MailSink) -> None:
    deliver(sink, mail(text="See (https://x.example/a?b=c) or https://y.example/z."))
    assert [link.href for link in sink.wait_for(1)[0].links] == ["https://x.example/a?b=c", "https://y.example/z"]


@pytest.mark.parametrize("path", ["/api/messages/9", "/api/messages/x", "/api/nothing", "/api/messages/1/html"])
def test_what_is_not_there_is_404(sink: MailSink, path: str) -> None:
    status, headers, body = ask(sink, path)
    assert (status, headers["content-type"]) == (404, "application/json") and json.loads(body)["error"]


@pytest.mark.parametrize(
    "path", ["/messages/1", "/nothing", "/messages/1/../../etc/passwd", "/messages/%31", "/messages/1/html"]
)
def test_what_is_not_there_is_a_page(sink: MailSink, path: str) -> None:
    status, headers, body = ask(sink, path)
    assert status == 404 and headers["content-type"] == "text/html; charset=utf-8" and b"<script" not in body


def test_deleting_everything(sink: MailSink) -> None:
    deliver(sink, mail(), mail("b"))
    status, _, body = ask(sink, "/api/messages", method="DELETE")
    assert (status, json.loads(body), sink.count()) == (200, {"deleted": 2}, 0)
    deliver(sink, mail("c"))
    status, headers, _ = ask(sink, "/clear", method="POST", headers={"Origin": f"http://127.0.0.1:{sink.http_port}"})
    assert (status, headers["location"], sink.count()) == (303, "/", 0)


def test_pages_escape_what_came_in(sink: MailSink) -> None:
    message = mail(HOSTILE, text=HOSTILE, html=f'<p>{HOSTILE}</p><a href="javascript:alert(1)">{HOSTILE}</a>')
    message["X-Evil"] = HOSTILE
    message.add_attachment(b"x", maintype="text", subtype="html", filename='"><img src=x onerror=alert(1)>.html')
    deliver(sink, message)
    for path in (
        "/",
        "/?q=" + "%22%3E%3Cscript%3E",
        *(f"/messages/1?show={tab}" for tab in ("html", "text", "links", "headers", "source")),
    ):
        status, headers, body = ask(sink, path)
        assert status == 200 and b"<script" not in body and b"onerror=alert(1)>" not in body, path
        assert b'href="javascript:' not in body
        assert (
            "default-src 'none'" in headers["content-security-policy"]
            and "script-src" not in headers["content-security-policy"]
        )
    assert b"&lt;script&gt;" in ask(sink, "/messages/1?show=text")[2]


def test_received_html_is_served_in_a_cage(sink: MailSink) -> None:
    deliver(sink, mail(html="<script>alert(1)</script>ä<IFRAME src='https://x.example'></iframe>"))
    status, headers, body = ask(sink, "/messages/1/html")
    assert b"<x-IFRAME src" in body and b"<IFRAME" in sink.messages()[0].html.encode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8") and "ä".encode() in body
    policy = headers["content-security-policy"].split("; ")
    assert {"sandbox", "script-src 'none'", "default-src 'none'", "img-src data:"} <= set(policy)
    assert b'<iframe sandbox src="/messages/1/html"' in ask(sink, "/messages/1")[2]
    assert b"class=phone" in ask(sink, "/messages/1?width=phone")[2]


def test_every_answer_is_guarded(sink: MailSink) -> None:
    deliver(sink, mail("Größe", html="<p>x</p>"))
    for path in (
        "/",
        "/style.css",
        "/messages/1",
        "/messages/1/html",
        "/messages/1/raw",
        "/api/messages",
        "/nothing",
        "/health",
    ):
        _, headers, _ = ask(sink, path)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store", path
        assert headers["referrer-policy"] == "same-origin" and "content-security-policy" in headers, path
    _, headers, body = ask(sink, "/messages/1/raw")
    assert body == sink.messages()[0].raw and headers["content-type"] == "message/rfc822"
    assert (
        headers["content-disposition"] == "attachment; filename=\"mail-1.eml\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe.eml"
    )


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({"Host": "evil.example"}, "GET", "/", 403),
        ({"Host": "evil.example"}, "GET", "/api/messages", 403),
        ({"Host": "localhost:1"}, "GET", "/", 200),
        ({"Host": "[::1]:8025"}, "GET", "/", 200),
        ({"Host": "127.0.0.1.evil.example"}, "GET", "/", 403),
        ({"Origin": "https://evil.example"}, "DELETE", "/api/messages", 403),
        ({"Origin": "null"}, "POST", "/clear", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "POST", "/clear", 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, "POST", "/clear", 303),
        ({}, "PUT", "/", 405),
        ({}, "POST", "/", 405),
        ({}, "DELETE", "/", 405),
        ({}, "HEAD", "/api/messages", 200),
    ],
)
def test_who_may_ask_and_change(sink: MailSink, headers: dict[str, str], method: str, path: str, status: int) -> None:
    assert ask(sink, path, method=method, headers=headers)[0] == status


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /clear HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /clear HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000, b"431"),
        (b"GET /?" + b"a=b&" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"GET /?page=99999999999999999999&q=%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
    ],
)  # fmt: skip
def test_odd_requests_get_an_answer(sink: MailSink, request_bytes: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", sink.http_port), timeout=10) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).split(b" ")[1] == status


def test_requests_on_one_connection_are_answered_in_order(sink: MailSink) -> None:
    with socket.create_connection(("127.0.0.1", sink.http_port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.sendall(b"GET /api/count HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.index(b'"status"') < answer.index(b'"count"')


def test_mails_nobody_wrote_well_are_still_shown(sink: MailSink) -> None:
    odd = [
        b"",
        b"no headers at all",
        b"Subject: =?utf-8?q?broken=ZZ?= =?nothing?b?!!?=\r\nContent-Type: text/html; charset=nonsense"
        b"\r\n\r\n<p>\xff\xfe</p>",
        b"Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n<b>cut",
        b"Subject: \xff\xfe raw\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!not base64!!!",
    ]
    with smtplib.SMTP("127.0.0.1", sink.smtp_port) as smtp:
        for content in odd:
            smtp.sendmail("a@b.example", ["c@d.example"], content)
    assert ask(sink, "/")[0] == 200
    for number in range(1, len(odd) + 1):
        assert api(sink, f"/api/messages/{number}")["id"] == number
        for tab in ("html", "text", "links", "headers", "source"):
            assert ask(sink, f"/messages/{number}?show={tab}")[0] == 200
    assert sink.messages()[3].html.strip() == "<b>cut"


def test_paging(sink: MailSink) -> None:
    deliver(sink, *(mail(f"Mail {number}") for number in range(51)))
    first, second = ask(sink, "/")[2].decode(), ask(sink, "/?page=2")[2].decode()
    assert "Mail 50<" in first and "Mail 1<" in first and "Mail 0<" not in first and "Page 1 of 2" in first
    assert "Mail 0<" in second and second.count("<time") == 1 and "Newer" in second and "Older" not in second
    assert "Nothing found" in ask(sink, "/?q=zzz")[2].decode()


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_runs_and_stops_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "mautolib.stack.mailsink", "--smtp-port", "0", "--http-port", "0"]
    with subprocess.Popen(
        [*command, "--directory", str(tmp_path / "new" / "mail")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert re.fullmatch(
            r"mail sink: SMTP on 127\.0\.0\.1:\d+, pages at http://127\.0\.0\.1:\d+/, 0 messages kept in .*\n", line
        )
        port = int(re.search(r":(\d+)/,", line).group(1))  # type: ignore[union-attr]
        with socket.create_connection(("127.0.0.1", port)) as idle:
            begun = time.monotonic()
            process.terminate()
            assert process.wait(timeout=10) == 0 and time.monotonic() - begun < 8
            assert idle.recv(10) == b""
        assert process.stderr.read() == ""


def test_a_taken_port_is_named(sink: MailSink, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = ["--smtp-port", str(sink.smtp_port), "--http-port", "0"]
    assert mailsink.main([*taken, "--directory", str(tmp_path / "other")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"mail sink: cannot listen on 127.0.0.1:{sink.smtp_port}") and error.count("\n") == 1
    assert error.endswith("change --smtp-host or --smtp-port\n")
    assert mailsink.main(["--smtp-port", "0", "--http-port", "0", "--directory", str(sink.directory)]) == 1
    assert "is in use by another mail sink" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        mailsink.main(["--smtp-port", "70000", "--directory", "x"])
    with pytest.raises(Misconfigured), MailSink(tmp_path / "third", smtp_port=sink.smtp_port):
        pass
