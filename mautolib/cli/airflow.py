"""`mauto airflow dags`, `pools`: what an Airflow of your own has to be told (docs/your-own-airflow.md)."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.stack import airflow_setup

commands = desk.group("What an Airflow of your own has to be told.")


@commands.command()
def dags(
    bundle: Annotated[bool, typer.Option("--bundle", help="As an entry of dag_bundle_config_list.")] = False,
) -> None:
    """Show the folder with the DAG files of this installation."""
    folder = str(airflow_setup.dags_folder())
    entry = {"name": "mauto", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
             "kwargs": {"path": folder}}  # fmt: skip
    typer.echo(json.dumps(entry) if bundle else folder)


@commands.command()
def pools() -> None:
    """Show the pools that the DAGs use, for `airflow pools import`."""
    found = {name: {"slots": slots, "description": text, "include_deferred": False}
             for name, (slots, text) in airflow_setup.POOLS.items()}  # fmt: skip
    typer.echo(json.dumps(found, indent=2))
