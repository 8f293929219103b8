"""The rights of one person: to see everything kept about them, and to be erased from every store.

`erase` takes the contact and its address away at once, in the caller's transaction; `carry_out` cleans all other
stores later, as the one role that may change what is append-only. `export` collects one person's data. What stays,
and why, is in docs/privacy.md.
"""

from mautolib.privacy.erasing import erase, get_erasure
from mautolib.privacy.export import export
from mautolib.privacy.model import Erasure, ErasureStatus, TableCount
from mautolib.privacy.removal import Carried, carry_out

__all__ = ["Carried", "Erasure", "ErasureStatus", "TableCount", "carry_out", "erase", "export", "get_erasure"]
