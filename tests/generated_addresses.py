"""Addresses of every kind for tests: likely ones, nearly right ones and hostile ones, always the same for one seed.

Half of them differ from a good address in one thing, because that is where two readers disagree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

__all__ = ["KINDS", "addresses"]

_NAMES = ("anna", "Ben", "chloe", "d.meyer", "eiko_s", "F-K", "grzegorz.n", "o'hara", "sales", "In.Fo",
          "no-reply", "x1")
_HOSTS = ("shop.example", "SHOP.Example", "mail.shop.example", "gmail.com", "mailinator.com", "x.co", "a-b.co.uk",
          "bücher.de", "xn--bcher-kva.de", "日本.jp", "пример.рф", "müller.example", "q.museum")  # fmt: skip
_ATOM = "abcxyzABZ0189!#$%&'*+/=?^_`{|}~-"
_SCRIPTS = ("äöüßéñçøåğışŁ", "αβγδΣς", "жшщюя", "日本語用户", "かなカナ", "한국어", "עברית", "العربية",
            "हिन्दी", "ไทย")
#: Letters that become something else when they are normalised, marks, symbols, and what cannot be seen.
_STRANGE = ("ﬁ", "Ａ", "ａ", "１", "．", "＠", "；", "，", "＜", "℡", "㏂", "ſ", "İ", "ı", "K", "Å", "ﷺ", "½",
            "²", "Ⅷ", "\u0301",
            "\u0308", "\u0338", "\u200b", "\u200c", "\u200d", "\u00ad", "\u2060", "\ufeff", "\u202e", "\u061c",
            "\u115f",
            "\u3164", "\ufe0f", "😀", "👨‍👩‍👧", "☃", "♥", "€", "\u00a0", "\u3000", "\u2003", "\u1680",
            "\ue000", "\U000f0000",
            "\ufffe", "\U0010ffff", "\u0378", "\ufffd", "。", "｡", "·", "ー", "׳", "٠", "۰", "\U0001d400", "ẞ",
            "ß", "ς",
            "\u0345", "\u1e9e", "\u2024", "\u2025", "\u2026", "\ufe52", "\uff07", "＂", "（", "＼", "［", "﹫",
            "≮", "≯")  # fmt: skip
_HOSTILE = ("\0", "\r", "\n", "\r\n", "\t", " ", "\x0b", "\x0c", "\x1b", "\x1f", "\x7f", "\x85", "\u2028",
            "\u2029", '"', "(", ")",
            ",", ":", ";", "<", ">", "[", "]", "\\", "@", "@@", "..", "%0d%0a", "(x)", '""', "\\@", "--", "=",
            "'")  # fmt: skip
_ENDS = ("com", "c", "1", "123", "c1", "1c", "-c", "c-", "co_m", "", "com.", "com..", "xn--p1ai", "xn--",
         "xn--a", "test",
         "local", "invalid", "localhost", "onion", "arpa", "in-addr.arpa", "internal", "example", "alt", "home.arpa",
         "COM", "ＣＯＭ", "рф", "中国", "0x1", "a" * 63, "a" * 64)  # fmt: skip


def addresses(count: int, seed: int) -> Iterator[str]:
    """`count` texts, of each kind about as many."""
    draw = random.Random(seed)
    for _ in range(count):
        yield draw.choice(_KINDS)(draw)


def _local(draw: random.Random) -> str:
    return draw.choice(_NAMES) + draw.choice(("", "", str(draw.randrange(10**6)), "+news"))


def _good(draw: random.Random) -> str:
    return f"{_local(draw)}@{draw.choice(_HOSTS)}"


def _numbered(draw: random.Random) -> str:
    return f"{_local(draw)}@mail{draw.randrange(5000)}.{draw.choice(('example', 'shop.example', 'com', 'de'))}"


def _atoms(draw: random.Random) -> str:
    parts = ["".join(draw.choices(_ATOM, k=draw.randrange(1, 9))) for _ in range(draw.randrange(1, 4))]
    return f"{'.'.join(parts)}@{draw.choice(_HOSTS)}"


def _lengths(draw: random.Random) -> str:
    """Around the limits: 64 octets, labels of 63, names of 253, 254 octets and 320 characters in all."""
    local = draw.choice("aä日") * draw.choice((1, 5, 20, 21, 22, 31, 32, 33, 60, 62, 63, 64, 65, 66, 100))
    if draw.random() < 0.5:
        label = draw.choice("bü") * draw.choice((1, 50, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65))
        return f"{local}@{label}.example"
    size = draw.choice((180, 185, 188, 189, 190, 191, 245, 249, 250, 251, 252, 253, 254, 255, 260))
    domain = ".".join(["b" * 61] * 5)[: size - 4].rstrip(".") + ".com"
    return f"{local}@{domain}"


def _international(draw: random.Random) -> str:
    script = draw.choice(_SCRIPTS)
    word = "".join(draw.choices(script, k=draw.randrange(1, 6)))
    other = "".join(draw.choices(draw.choice((script, draw.choice(_SCRIPTS), "abc1-")), k=draw.randrange(1, 5)))
    local, host = draw.choice(((word, "shop.example"), (word, f"{other}.example"), ("anna", f"{word}.{other}"),
                               (f"{word}.{other}", f"{word}.de"), (word + other, f"{word}{other}.com"),
                               (word.upper(), f"{word.upper()}.COM")))  # fmt: skip
    return f"{local}@{host}"


def _strange(draw: random.Random) -> str:
    return _with_one(draw, _good(draw), _STRANGE)


def _hostile(draw: random.Random) -> str:
    return _with_one(draw, _good(draw), _HOSTILE)


def _any_character(draw: random.Random) -> str:
    point = draw.choice((draw.randrange(0x80), draw.randrange(0x800), draw.randrange(0x3000),
    draw.randrange(0x110000)))
    return _with_one(draw, _good(draw), (chr(point),))


def _with_one(draw: random.Random, text: str, pieces: tuple[str, ...]) -> str:
    """With a piece put in somewhere, or in the place of a character; edges are likely."""
    at = text.index("@")
    place = draw.choice((0, at, at + 1, len(text), draw.randrange(len(text)), draw.randrange(len(text))))
    return text[:place] + draw.choice(pieces) + text[place + draw.randrange(2) :]


def _dots(draw: random.Random) -> str:
    local, _, domain = _good(draw).partition("@")
    return draw.choice((
        f".{local}@{domain}", f"{local}.@{domain}", f"{local}..x@{domain}", f"{local}@.{domain}", f"{local}@{domain}.",
        f"{local}@x..{domain}", f"{local}@", f"@{domain}", local, "", "@", f"{local}.{domain}", f"{local}@{domain}@",
        f"a.b.c.{local}@a.b.c.{domain}", f"{local}@-{domain}", f"{local}@x-.{domain}", f"{local}@x--y.{domain}",
        f"{local}@ab--c.{domain}", f"{local}@_dmarc.{domain}", f"{local}@localhost",
        f"{local}@shop",
    ))  # fmt: skip


def _ends(draw: random.Random) -> str:
    return f"{_local(draw)}@{draw.choice(('shop', 'a.b', 'x-y', 'bücher', '10.0.0', '日本'))}.{draw.choice(_ENDS)}"


def _quoted(draw: random.Random) -> str:
    inner, domain = _local(draw), draw.choice(_HOSTS)
    return draw.choice((
        f'"{inner}"@{domain}', f'"{inner} x"@{domain}', f'"{inner}@y"@{domain}', f'"{inner}\\""@{domain}',
        f'""@{domain}',
        f'{inner}."x"@{domain}', f'"{inner}@{domain}', f"({inner})x@{domain}", f"{inner}(x)@{domain}",
        f"{inner}@(x){domain}", f"{inner}@[127.0.0.1]", f"{inner}@[IPv6:::1]", f"{inner}@127.0.0.1",
        f"{inner}@[{domain}]",
    ))  # fmt: skip


def _wrapped(draw: random.Random) -> str:
    """As mail programs, spreadsheets and lists have them."""
    text, other = _good(draw), _good(draw)
    return draw.choice((
        f"mailto:{text}", f"MAILTO: {text}?subject=x", f"<{text}>", f"Anna <{text}>", f'"Smith, A" <{text}>',
        f" {text}",
        f"{text} ", f"\t{text}", f"{text}\u00a0", f"\u3000{text}", f"'{text}'", f"'={text}", f"'+{text}", f"={text}",
        f"+{text}", f"{text},{other}", f"{text};{other}", f"{text} {other}", f"<{text}>{other}", f"{text}>",
        f"<{text}",
        f"{text}\nBcc: {other}", f"{text}?x", f"mailto:<{text}>", f"{text}|{other}", f"smtp:{text}",
    ))  # fmt: skip


KINDS: tuple[Callable[[random.Random], str], ...] = (
    _good, _numbered, _atoms, _lengths, _international, _strange, _hostile, _any_character, _dots, _ends,
    _quoted, _wrapped,
)  # fmt: skip
#: Right ones as often as those with one thing wrong.
_KINDS = (*KINDS, _good, _numbered, _numbered, _atoms, _international)
