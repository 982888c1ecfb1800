"""One attempt at the first copy: its mark, and what of the attempts before it still holds.

A later attempt has a later snapshot. What an earlier one stored is read again only where it
changed since, which transaction ids tell, and they mean the same only on the same server with
the same history, within the same file of the table. Everything else is copied whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from bridge import chunks
from bridge.chunks import CopiedTable, Part
from protos.events.v1.snapshot_pb2 import SnapshotMark, TableProgress

log = structlog.get_logger("bridge")


@dataclass(frozen=True, slots=True)
class Attempt:
    """``mark`` is stored again and again as the copy goes on; ``earlier`` is by ``schema.table``."""

    mark: SnapshotMark
    earlier: dict[str, TableProgress]

    def parts(self, tables: Sequence[CopiedTable]) -> deque[Part]:
        """What is to be read, table by table."""
        parts: deque[Part] = deque()
        for table in tables:
            before = self.earlier.get(table.name)
            if before is None:
                parts.extend(chunks.parts_of(table))
            else:
                parts.extend(chunks.parts_of(table, before.blocks, before.snapshot_xmin))
        return parts


def begin_attempt(mark: SnapshotMark, last: bytes | None, tables: Sequence[CopiedTable]) -> Attempt:
    """Numbers ``mark``, which says epoch, place and source of this attempt. ``last`` is the stream's last one."""
    found = SnapshotMark()
    if last is not None:
        try:
            found.ParseFromString(last)
        except DecodeError:
            log.warning("the snapshot mark cannot be read: the tables are copied whole")
    is_ours = found.epoch == mark.epoch
    mark.attempt = found.attempt + 1 if is_ours else 1
    if (
        not is_ours
        or (found.system_id, found.timeline) != (mark.system_id, mark.timeline)
        or found.consistent_lsn > mark.consistent_lsn
    ):
        return Attempt(mark, {})
    filenodes = {table.name: table.filenode for table in tables}
    earlier = {each.table: each for each in found.tables if filenodes.get(each.table) == each.filenode}
    return Attempt(mark, earlier)
