"""Uploads: a file on its way from the socket to storage, counted while it passes, never held in memory.

Guards the unpacked size (also of a gzip file that would burst), the number and size of form fields, and that nothing
stays behind when the client goes away. Called by the import routes; what the file means is `mautolib.contacts.imports`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import from_thread
from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.errors import Refused, invalid
from api.strict_json import is_clean, parse
from mautolib.contacts import imports
from mautolib.contacts.imports import ImportOptions, StoredFile
from mautolib.errors import InvalidInput
from mautolib.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MULTIPART, CSV, GZIP = "multipart/form-data", "text/csv", "application/gzip"
#: What is read at once: 5 MB unpacked, in a form, under a name that says it is CSV.
SMALL_LIMIT = 5 * 1024 * 1024
TOO_LARGE, NOT_CSV = "File too large. Max: 5 MB", "Only CSV files are supported"
_FORM_BYTES = 1024 * 1024
_FIELDS = 40
#: Tells the client to stop sending what nobody reads.
_CLOSE = {"Connection": "close"}
_FLAGS = {"subscribed_default", "dry_run", "update_existing"}
_OPTIONS = {*ImportOptions.__dataclass_fields__, "update_existing"}
#: Writing uploads has threads of its own: slow clients must not hold up everything else.
_WRITING = anyio.CapacityLimiter(8)


@dataclass(kw_only=True)
class Upload:
    """What came: the stored file, its name at the caller's, and the options sent beside it."""

    stored: StoredFile
    filename: str | None
    options: dict[str, Any]


async def receive(request: Request, settings: Settings, *, is_small: bool = False) -> Upload:
    """Store the file of a request.

    Args:
        is_small: it is going to be read at once, so it has to come in a form, be named .csv, and have at most 5 MB.

    Raises:
        Refused: 413 (small: 400) too large, 400 not named .csv, 415 a ZIP file, 422 no file, an unreadable form or an
            unreadable option.
    """
    media_type, parameters = parse_options_header(request.headers.get("content-type"))
    options = _given(list(request.query_params.multi_items()))
    form, is_form = _Form(is_small=is_small), media_type == MULTIPART.encode()
    if is_small and not is_form:
        raise _no_file()
    chunks = form.read(request, parameters.get(b"boundary", b"")) if is_form else request.stream()
    guard = _Unpacked(SMALL_LIMIT, Refused(400, TOO_LARGE, headers=_CLOSE)) if is_small else _Unpacked(
        settings.max_import_bytes,
        Refused(413, f"The file is larger than {settings.max_import_bytes} bytes", headers=_CLOSE),
    )  # fmt: skip
    stored = await _store(settings, chunks, guard)
    if is_form and not form.has_file:
        imports.forget_upload(settings, stored.uri)
        raise _no_file()
    try:
        return Upload(stored=stored, filename=form.filename, options=options | _given(form.fields))
    except Refused:
        imports.forget_upload(settings, stored.uri)
        raise


def _no_file() -> Refused:
    return Refused(422, invalid(["body", "file"], "Field required", kind="missing"))


async def _store(settings: Settings, chunks: AsyncIterator[bytes], guard: _Unpacked) -> StoredFile:
    async def following() -> bytes | None:
        return await anext(chunks, None)

    def blocks() -> Iterator[bytes]:
        while (block := from_thread.run(following)) is not None:
            guard.count(block)
            yield block
        guard.end()

    try:
        return await run_sync(lambda: imports.store_upload(settings, blocks()), limiter=_WRITING)
    except InvalidInput as error:
        status = {"too_large": 413, "unsupported_file": 415}.get(error.code)
        if status is None:
            raise
        raise Refused(status, str(error)) from None


class _Unpacked:
    """Counts what a file will be when it is unpacked, without unpacking more of it at a time than a megabyte."""

    def __init__(self, limit: int, refusal: Refused) -> None:
        self._limit, self._refusal, self._size = limit, refusal, 0
        self._gunzip: Any = None
        self._begun = False

    def count(self, block: bytes) -> None:
        if not self._begun and block:
            self._begun = True
            if block[:2] == b"\x1f\x8b":
                self._gunzip = zlib.decompressobj(wbits=31)
        if self._gunzip is None:
            self._add(len(block))
            return
        try:
            self._unpack(block)
        except zlib.error:
            raise Refused(422, invalid(["body", "file"], "The file is not a whole gzip file")) from None

    def _unpack(self, block: bytes) -> None:
        while block:
            self._add(len(self._gunzip.decompress(block, 1024 * 1024)))
            block = self._gunzip.unconsumed_tail
            if self._gunzip.eof:
                # Several gzip members behind each other are one file.
                block = self._gunzip.unused_data
                if block:
                    self._gunzip = zlib.decompressobj(wbits=31)

    def end(self) -> None:
        if self._gunzip is not None and not self._gunzip.eof:
            raise Refused(422, invalid(["body", "file"], "The file is not a whole gzip file"))

    def _add(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise self._refusal


@dataclass
class _Form:
    """A multipart form: gives the bytes of part `file` as they come and keeps the other fields."""

    is_small: bool = False
    fields: list[tuple[str, str]] = field(default_factory=list)
    filename: str | None = None
    has_file: bool = False
    is_whole: bool = False
    _name: str = ""
    _is_file: bool = False
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _value: bytearray = field(default_factory=bytearray)
    _pending: list[bytes] = field(default_factory=list)
    _form_bytes: int = 0

    async def read(self, request: Request, boundary: bytes) -> AsyncIterator[bytes]:
        """The bytes of the file, piece by piece."""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin, "on_header_field": self._header_name, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_part_data": self._data, "on_part_end": self._end,
            "on_end": self._close,
        }  # fmt: skip
        try:
            parser = MultipartParser(boundary, callbacks)
            async for chunk in request.stream():
                before = sum(map(len, self._pending))
                parser.write(chunk)
                self._form_bytes += max(0, len(chunk) - (sum(map(len, self._pending)) - before))
                if self._form_bytes > _FORM_BYTES:
                    raise Refused(413, "The form beside the file is too large", headers=_CLOSE)
                for block in self._pending:
                    yield block
                self._pending.clear()
            parser.finalize()
        except FormParserError:
            raise _unreadable() from None
        # Without its last boundary a form may have lost the end of the file.
        if not self.is_whole:
            raise _unreadable()

    def _begin(self) -> None:
        self._name, self._is_file = "", False
        self._value.clear()
        if len(self.fields) >= _FIELDS:
            raise Refused(422, invalid(["body"], f"A form has at most {_FIELDS} fields"))

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = (bytes(part).decode("latin-1") for part in self._header)
        for part in self._header:
            part.clear()
        if name.strip().lower() != "content-disposition":
            return
        _, options = parse_options_header(value)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file" and not self.has_file:
            self._is_file = self.has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or None
            if self.is_small and not (self.filename or "").lower().endswith(".csv"):
                raise Refused(400, NOT_CSV, headers=_CLOSE)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pending.append(data[start:end])
        else:
            self._value.extend(data[start:end])

    def _close(self) -> None:
        self.is_whole = True

    def _end(self) -> None:
        if self._name and not self._is_file:
            self.fields.append((self._name, bytes(self._value).decode("utf-8", "replace")))


def _unreadable() -> Refused:
    return Refused(422, invalid(["body"], "The form cannot be read", kind="multipart_invalid"))


def _given(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Options as JSON has them, from text; `options` is a JSON object of all of them. Others are ignored."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not is_clean(value):
            raise Refused(422, invalid(["body", name], "Text is valid Unicode without NUL characters"))
        if name == "options":
            found |= {key: one for key, one in _json(name, value, dict).items() if key in _OPTIONS}
        elif name == "mapping":
            found[name] = _json(name, value, dict)
        elif name == "tag_ids":
            more = _json(name, value, list) if value.startswith("[") else [part for part in value.split(",") if part]
            found[name] = [*found.get(name, []), *more]
        elif name in _FLAGS:
            found[name] = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
        elif name in _OPTIONS and value != "":
            found[name] = value
    return found


def _json(name: str, value: str, kind: type) -> Any:
    try:
        parsed = parse(value.encode())
    except (Refused, json.JSONDecodeError):
        parsed = None
    if not isinstance(parsed, kind):
        what = "an object" if kind is dict else "a list"
        raise Refused(422, invalid(["body", name], f"{name} is JSON: {what}"))
    return parsed
