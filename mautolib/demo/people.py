"""Made-up customers of a shop that sells across borders: plausible names, places, languages, currencies.

Addresses use domains reserved by RFC 2606 and RFC 6761, so nobody real can ever be meant.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate

HISTORY_DAYS = 548  # eighteen months


@dataclass(frozen=True, kw_only=True)
class Market:
    """A country the shop sells to; `share` is its weight among sign-ups."""

    country: str
    language: str
    timezone: str
    currency: str
    share: int
    phone: str
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    domains: tuple[str, ...]


def _market(place: str, share: int, phone: str, first: str, last: str, domains: str) -> Market:
    country, language, timezone, currency = place.split()
    return Market(
        country=country, language=language, timezone=timezone, currency=currency, share=share, phone=phone,
        first_names=tuple(first.split()), last_names=tuple(last.split()), domains=tuple(domains.split()),
    )  # fmt: skip


MARKETS = (
    _market("DE de Europe/Berlin EUR", 22, "+49 30", "Anna Lukas Mia Jürgen Sofie Felix Hannah Björn Käthe Paul Greta Emil",
            "Müller Schmidt Schäfer Weber Wagner Becker Hoffmann Koch Richter Klein Wolf Schröder",
            "post.example webkunde.example berlin.test"),
    _market("FR fr Europe/Paris EUR", 14, "+33 1", "Camille Léa Hugo Chloé Louis Inès Jules Zoé Théo Élodie Noé Margaux",
            "Martin Bernard Dubois Lefèvre Moreau Girard Roux Fournier Mercier Blanc Faure André",
            "courrier.example boite.example lyon.test"),
    _market("GB en Europe/London GBP", 13, "+44 20", "Olivia George Amelia Harry Isla Jack Poppy Noah Freya Alfie Grace Leo",
            "Smith Jones Taylor Brown Davies Evans Wilson Thomas Roberts Walker Wright Hughes",
            "mailbox.example inbox.example leeds.test"),
    _market("US en America/New_York USD", 12, "+1 212", "Emma Liam Ava Mason Harper Ethan Nora Logan Riley Owen Stella Caleb",
            "Johnson Williams Miller Davis Garcia Anderson Moore Jackson Lee Harris Clark Young",
            "example.com example.net example.org"),
    _market("ES es Europe/Madrid EUR", 9, "+34 91", "Lucía Mateo Sofía Álvaro Martina Iñigo Paula Hugo Carmen Diego Elena Pablo",
            "García Fernández López Martínez Sánchez Pérez Gómez Núñez Díaz Muñoz Romero Torres",
            "correo.example buzon.example sevilla.test"),
    _market("IT it Europe/Rome EUR", 8, "+39 06", "Giulia Leonardo Sofia Francesco Aurora Lorenzo Chiara Nicolò Marta Luca Elisa Dario",
            "Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo",
            "posta.example casella.example torino.test"),
    _market("NL nl Europe/Amsterdam EUR", 6, "+31 20", "Emma Daan Julia Sem Tess Bram Saar Lars Fleur Thijs Noor Finn",
            "Jansen Visser Smit Meijer Bakker Mulder Bos Vos Peters Hendriks Dekker Brouwer",
            "brievenbus.example utrecht.test"),
    _market("PL pl Europe/Warsaw PLN", 6, "+48 22", "Zofia Jan Hanna Jakub Maja Szymon Łucja Kacper Oliwia Michał Ewa Piotr",
            "Nowak Kowalski Wiśniewski Wójcik Kamiński Lewandowski Zieliński Woźniak Dąbrowski Król Mazur Pawlak",
            "poczta.example gdansk.test"),
    _market("SE sv Europe/Stockholm SEK", 4, "+46 8", "Alice Elias Maja Åke Astrid Oskar Ebba Nils Saga Axel Wilma Göran",
            "Andersson Johansson Karlsson Nilsson Eriksson Larsson Olsson Persson Svensson Gustafsson Lindberg Sjöberg",
            "brev.example malmo.test"),
    _market("JP ja Asia/Tokyo JPY", 4, "+81 3", "さくら 蓮 陽菜 湊 結衣 大翔 凛 悠真 葵 樹 美咲 翔太",
            "佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤 吉田 山田",
            "yubin.example osaka.test"),
    _market("BR pt America/Sao_Paulo BRL", 2, "+55 11", "Ana João Beatriz Pedro Larissa Caio Júlia Rafael Camila Enzo Sofia Davi",
            "Silva Santos Oliveira Souza Lima Pereira Ferreira Alves Ribeiro Gomes Barbosa Rocha",
            "caixa.example recife.test"),
)  # fmt: skip
_WEIGHTS = list(accumulate(market.share for market in MARKETS))


@dataclass(frozen=True, kw_only=True)
class Person:
    """A made-up contact; `activity` in 0..1 says how keen on mail and shop this one is."""

    number: int
    email: str
    first_name: str
    last_name: str
    phone: str
    market: Market
    signed_up_at: datetime
    subscribed: bool
    activity: float
    interests: tuple[str, ...] = field(default=())


def people(count: int, today: datetime, seed: int = 20261122) -> Iterator[Person]:
    """Yield `count` persons; the same arguments give the same persons, whatever `count` others ask for.

    Args:
        count: how many.
        today: midnight UTC of the day the demo runs; sign-ups lie in the eighteen months before it.
    """
    for number in range(count):
        yield person(number, today, seed)


def person(number: int, today: datetime, seed: int = 20261122) -> Person:
    """The person of a number; independent of all others, so that any of them can be made again alone."""
    dice = random.Random(f"{seed}:{number}")
    market = dice.choices(MARKETS, cum_weights=_WEIGHTS)[0]
    first, last = dice.choice(market.first_names), dice.choice(market.last_names)
    # More sign-ups lately than long ago: the square root of an even draw gives a list that grows steadily.
    age_days = HISTORY_DAYS * (1 - dice.random() ** 0.62)
    return Person(
        number=number,
        email=f"{_ascii(first)}.{_ascii(last)}{number}@{dice.choice(market.domains)}",
        first_name=first,
        last_name=last if dice.random() > 0.04 else "",
        phone=f"{market.phone} {dice.randrange(1_000_000, 9_999_999)}" if dice.random() < 0.55 else "",
        market=market,
        signed_up_at=today - timedelta(days=age_days, seconds=dice.randrange(60)),
        subscribed=dice.random() > 0.06,
        activity=dice.betavariate(1.1, 2.6),
        interests=tuple(dice.sample(("tea", "ceramics", "linen", "lighting", "garden"), dice.randrange(0, 3))),
    )


def _ascii(name: str) -> str:
    special = name.replace("ł", "l").replace("Ł", "L").replace("ß", "ss")
    plain = unicodedata.normalize("NFKD", special).encode("ascii", "ignore").decode().lower()
    return plain or f"k{sum(map(ord, name)) % 1000}"
