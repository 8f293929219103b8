"""Facts for outbound webhooks: written in the transaction of the fact, one row per fact.

Any domain records here what the outside world may subscribe to; `webhooks` expands the rows into deliveries later.
Nothing here performs I/O or knows who listens. A fact of a transaction that rolls back never existed.
Large sets are recorded by the statement that makes the fact (`insert into outbox ... select`); the database
refuses a name that is not one of `FactName`.
"""

from mautolib.outbox.facts import Fact, FactName, record, record_many

__all__ = ["Fact", "FactName", "record", "record_many"]
