"""`python -m mautolib.demo`: the whole main job, live, on a shop with eighteen months behind it.

import -> score -> campaign -> opens and clicks -> workflow -> cohorts, each by the real DAG under the real scheduler.
Run again, it finds everything done: no duplicates, no second mail. It can only send to its own sink.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from datetime import time as clock
from pathlib import Path

from mautolib.db.engine import connect
from mautolib.demo import contact_file, live, shop
from mautolib.demo.faces import Faces
from mautolib.demo.people import people
from mautolib.demo.screen import Screen
from mautolib.errors import InvalidInput, MautoError, Misconfigured
from mautolib.stack.home import Home, write_private
from mautolib.stack.launcher import Stack

#: Pinned in the demo's home: they win over whatever the environment says.
SETTINGS = {
    "MAUTO_DEMO": "true",
    "MAUTO_DEFAULT_FROM_NAME": "Kiln & Leaf",
    "MAUTO_DEFAULT_FROM_EMAIL": "hello@kiln-leaf.example",
    "MAUTO_POSTAL_ADDRESS": "Kiln & Leaf, 12 Harbour Street, 20457 Hamburg, Germany",
}


def pin(home: Home) -> None:
    """Make a home one of the demo, or see that it is.

    Raises:
        Misconfigured: it holds the data of another stack.
    """
    if home.cluster.exists() and not home.settings_file.exists():
        raise Misconfigured(f"{home.path} holds a stack that is no demo; choose another MAUTO_HOME")
    home.prepare()
    write_private(home.settings_file, "".join(f"{name}={value}\n" for name, value in SETTINGS.items()))


def run(contacts: int, screen: Screen) -> None:
    """Bring the stack up and show the main job.

    Raises:
        MautoError: a part did not do its work; says which.
    """
    home = Home(Path(os.environ["MAUTO_HOME"]).absolute()) if "MAUTO_HOME" in os.environ else Home.demo()
    pin(home)
    stack = Stack(home)
    try:
        screen.head("Starting PostgreSQL, Airflow, the API and a mail sink")
        stack.up(lambda seconds, text: screen.line(f"{seconds:5.1f} s  {text}"))
        _show(stack, contacts, screen)
    except KeyboardInterrupt:
        screen.line("stopping")
        stack.down()
        raise
    screen.table("Where to look", live.addresses(stack.plan))


def _show(stack: Stack, contacts: int, screen: Screen) -> None:
    settings, now = stack.settings, datetime.now(UTC)
    today = datetime.combine(now.date(), clock(), UTC)
    everybody = list(people(contacts, today))
    engine = connect(settings.url_for("owner"), application_name="mauto-demo")
    faces = Faces(stack.plan)
    try:
        folder = settings.storage_path / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        truth = contact_file.write(folder / f"contacts-{contacts}.csv", everybody)
        templates = shop.furnish(engine, settings, now)
        show = live.Show(faces=faces, engine=engine, screen=screen, mail_folder=stack.home.mail)
        show.import_contacts(folder / f"contacts-{contacts}.csv", truth)
        screen.head("History: eighteen months of opens, visits, orders, refunds and exchange rates")
        screen.line(f"{shop.load_history(engine, settings, everybody, today, now):,} new facts")
        show.score()
        show.mailing(templates["Newsletter"])
        show.buyers(everybody)
        show.welcome(now)
        show.cohorts()
        screen.table("What happened", show.figures())
    finally:
        faces.close()
        engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mautolib.demo", description=__doc__)
    default = int(os.environ.get("CONTACTS") or 10_000)
    parser.add_argument("--contacts", type=int, default=default, help="how many (default: 10000, or $CONTACTS)")
    options = parser.parse_args(arguments)
    began, screen = time.monotonic(), Screen(sys.stdout)
    try:
        if not 100 <= options.contacts <= 1_000_000:
            raise InvalidInput(f"--contacts is {options.contacts}; it takes 100 to 1000000")
        run(options.contacts, screen)
    except MautoError as error:
        screen.end()
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        screen.end()
        sys.stderr.write("demo: interrupted; nothing is left running, `make demo` goes on from here\n")
        return 130
    screen.line(f"\nDone in {time.monotonic() - began:.0f} s. The stack keeps running: look around.")
    screen.line("Stop it with `make down`, empty it with `make reset`.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
