"""Tables on their way from process to process: one buffer each.

pyarrow pickles a table column by column, chunk by chunk and buffer by buffer, which takes
milliseconds for small tables of many columns. The IPC stream of the same table takes microseconds
and is read without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def to_buffer(table: pa.Table) -> pa.Buffer:
    """Return a table, its schema's metadata included, as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def from_buffer(buffer: pa.Buffer) -> pa.Table:
    """Return the table of an Arrow IPC stream; its columns lie in `buffer`."""
    return pa.ipc.open_stream(buffer).read_all()


def reduced(kind: Callable[..., Any], tables: Sequence[pa.Table | None]) -> Reduced:
    """Return what `__reduce__` of an object that is made of tables gives.

    Args:
        kind: Called with the tables, in order, to make the object again.
        tables: Some may be missing.
    """
    return _made, (kind, *(None if table is None else to_buffer(table) for table in tables))


def _made(kind: Callable[..., Any], *buffers: pa.Buffer | None) -> Any:
    return kind(*(None if buffer is None else from_buffer(buffer) for buffer in buffers))


class Tables(tuple[pa.Table | None, ...]):
    """Tables that are moved one buffer each."""

    __slots__ = ()

    def __reduce__(self) -> Reduced:
        """Return how to make them again elsewhere."""
        return reduced(_tables, self)


def _tables(*tables: pa.Table | None) -> Tables:
    return Tables(tables)
