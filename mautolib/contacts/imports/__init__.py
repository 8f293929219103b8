"""Imports: contact files and lists come in, every row accounted for.

`request`, `request_file` and `store_upload` ask for one, `run_waiting` and `run` carry it out, `take_file` and
`import_items` take a small file and a JSON list at once, `preview` looks at a file without keeping anything. A row is
created, updated or skipped (rejected rows among them, each with line, column and reason); an import never
re-subscribes anybody.
"""

from mautolib.contacts.imports.files import Taken, take_file
from mautolib.contacts.imports.headers import NO_EMAIL
from mautolib.contacts.imports.items import import_items
from mautolib.contacts.imports.model import (
    Import,
    ImportOptions,
    ImportStatus,
    PresetChoice,
    Reject,
    RejectCode,
    UpdatePolicy,
)
from mautolib.contacts.imports.preview import Preview, preview
from mautolib.contacts.imports.requests import (
    StoredFile,
    asked_for,
    cancel,
    count_imports,
    forget_orphans,
    forget_upload,
    get,
    list_imports,
    location,
    rejects,
    request,
    request_file,
    store_upload,
    write_rejects,
)
from mautolib.contacts.imports.running import claim_next, run, run_waiting
from mautolib.contacts.imports.staging import forget_left_behind

__all__ = ["Import", "ImportOptions", "ImportStatus", "NO_EMAIL", "PresetChoice", "Preview", "Reject", "RejectCode",
           "StoredFile", "Taken", "UpdatePolicy", "asked_for", "cancel", "claim_next", "count_imports",
           "forget_left_behind", "forget_orphans", "forget_upload", "get", "import_items", "list_imports", "location",
           "preview", "rejects", "request", "request_file", "run", "run_waiting", "store_upload", "take_file",
           "write_rejects"]  # fmt: skip
