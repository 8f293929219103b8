"""Contacts: people, their consent and suppression, imports.

`contacts.create/get/update/delete/search/count` are the verbs on one person; `contacts.consent` is the only writer of
consent and suppression; `contacts.many` changes many at once; `contacts.imports` takes files in. One contact per
address key, whatever door it came through. Who may be mailed is a view of the database, not a decision made here.
"""

from mautolib.contacts.address import address_key
from mautolib.contacts.first_seen import find_many, first_seen
from mautolib.contacts.listing import count, get_many, has_segment, search
from mautolib.contacts.model import Contact, ContactFilter, NewContact
from mautolib.contacts.store import add_tags, as_json, create, delete, erase, find_by_email, get, update

__all__ = ["Contact", "ContactFilter", "NewContact", "add_tags", "address_key", "as_json", "count", "create", "delete",
           "erase", "find_by_email", "find_many", "first_seen", "get", "get_many", "has_segment", "search",
           "update"]  # fmt: skip
