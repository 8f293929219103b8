"""Ingestion: events, orders and refunds from outside - checked, given to their contact, stored once.

`check` reads what a shop sent, `ingest` stores many at a time. Called by the API; every further door for events of a
shop uses the same two.
"""

from mautolib.ingestion.checks import MAX_PROPERTIES_BYTES, check
from mautolib.ingestion.ingest import ingest
from mautolib.ingestion.model import Incoming, Rejected, Result, Status

__all__ = ["MAX_PROPERTIES_BYTES", "Incoming", "Rejected", "Result", "Status", "check", "ingest"]
