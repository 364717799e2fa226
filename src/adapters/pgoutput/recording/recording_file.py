"""The file of a recording: a zip archive, in which everything but rows and messages is one JSON.

- `recording.json`: the index. It is written last, so that a file without it was not finished.
- `messages/N.arrow`: Arrow IPC stream of one column of messages, in commit order. The index has the
  count of messages of each run, and where a batch ends.
- `rows/N.arrow`, `snapshot/N.arrow`: Arrow IPC streams of rows of one table.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire.message_run import MessageRun
from cdc_core.values.errors import SettingsError
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Raise it when an older version could not read the file any more.
FORMAT = 1
_INDEX = "recording.json"
_MESSAGES = pa.schema([pa.field("message", pa.large_binary(), nullable=False)])


class RecordingWriter:
    """Writes a recording. The file appears under its name once it is complete."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._runs: list[list[list[Any]]] = []
        self._tables = 0
        self.messages = 0

    def add_messages(self, runs: Iterable[MessageRun]) -> None:
        """Append the messages of one read."""
        listed: list[list[Any]] = []
        with self._stream(f"messages/{len(self._runs)}.arrow", _MESSAGES) as stream:
            for run in runs:
                if len(run):
                    stream.write_batch(pa.record_batch([_arrow_of(run)], schema=_MESSAGES))
                listed.append([len(run), None if run.reached is None else str(run.reached)])
                self.messages += len(run)
        self._runs.append(listed)

    def add_rows(self, folder: str, schema: pa.Schema, rows: Iterable[pa.Table]) -> str:
        """Add the rows of a table; return their name in the file."""
        name = f"{folder}/{self._tables}.arrow"
        self._tables += 1
        with self._stream(name, schema) as stream:
            for chunk in rows:
                stream.write_table(chunk.cast(schema))
        return name

    def finish(self, index: dict[str, Any]) -> None:
        document = {"format": FORMAT, **index, "runs": self._runs}
        self._archive.writestr(_INDEX, json.dumps(document, ensure_ascii=False, indent=1))

    @contextmanager
    def _stream(self, name: str, schema: pa.Schema) -> Iterator[Any]:
        with (
            self._archive.open(name, "w", force_zip64=True) as entry,
            pa.ipc.new_stream(pa.PythonFile(entry), schema) as stream,
        ):
            yield stream


class Recording:
    """An open recording."""

    def __init__(self, file: Path, archive: zipfile.ZipFile, index: dict[str, Any]) -> None:
        self.file = file
        self._archive = archive
        self.index = index

    def runs(self) -> Iterator[MessageRun]:
        """Yield the messages of all reads, as they were read."""
        for number, listed in enumerate(self.index["runs"]):
            batches = self._read(f"messages/{number}.arrow")
            for count, reached in listed:
                messages = next(batches).column(0) if count else pa.array([], pa.large_binary())
                yield _run_of(messages, None if reached is None else Lsn.parse(reached))

    def rows(self, name: str) -> Iterator[pa.Table]:
        """Yield the rows of a table in the chunks in which they were added."""
        for batch in self._read(name):
            yield pa.Table.from_batches([batch])

    def _read(self, name: str) -> Iterator[pa.RecordBatch]:
        with self._archive.open(name) as entry, pa.ipc.open_stream(entry) as stream:
            yield from stream


@contextmanager
def new_recording(file: Path) -> Iterator[RecordingWriter]:
    """Create a recording that only its owner can read. Replaces another recording, no other file.

    Raises `SettingsError`.
    """
    if file.exists() and not _is_recording(file):
        raise SettingsError(f"{file} exists and is no recording", "name another file")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be written: {error.strerror}", "name another file"
        ) from None
    try:
        with (
            open(descriptor, "wb") as out,  # noqa: PTH123 - it is a descriptor
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            yield RecordingWriter(archive)
        unfinished.replace(file)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


@contextmanager
def open_recording(file: Path) -> Iterator[Recording]:
    """Open a recording. Raises `SettingsError` for other files and other versions."""
    try:
        archive = zipfile.ZipFile(file)
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}", "name the file") from None
    except zipfile.BadZipFile:
        raise no_recording(file) from None
    with archive:
        try:
            index = json.loads(archive.read(_INDEX))
            made, by = int(index["format"]), str(index["written_by"])
        except (KeyError, ValueError, TypeError, zipfile.BadZipFile):
            raise no_recording(file) from None
        if made != FORMAT:
            raise SettingsError(
                f"{file} has format {made} of recordings, written by {by}; this version reads "
                f"format {FORMAT}",
                f"replay it with {by}",
            )
        if damaged := _damaged(archive):
            raise SettingsError(f"{file} is damaged at {damaged}", "copy it again, in binary mode")
        yield Recording(file, archive, index)


def no_recording(file: Path, why: str = "") -> SettingsError:
    because = f": {why}" if why else ""
    return SettingsError(
        f"{file} is no recording{because}", "name a file that pgbronze record wrote"
    )


def _damaged(archive: zipfile.ZipFile) -> str | None:
    """The name of the first entry whose checksum is wrong."""
    try:
        return archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError):
        return "a part that cannot be unpacked"


def _is_recording(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return _INDEX in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _arrow_of(run: MessageRun) -> pa.Array:
    """The messages of a run, without a copy."""
    offsets = np.ascontiguousarray(run.offsets, np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(run.buffer))]
    return pa.Array.from_buffers(pa.large_binary(), len(run), buffers)


def _run_of(messages: pa.Array, reached: Lsn | None) -> MessageRun:
    _, offsets, data = messages.buffers()
    if not len(messages):
        return MessageRun(np.empty(0, np.uint8), np.zeros(1, np.int64), reached)
    bounds = np.frombuffer(offsets, np.int64, len(messages) + 1, 8 * messages.offset)
    return MessageRun(np.frombuffer(data, np.uint8), bounds, reached)
