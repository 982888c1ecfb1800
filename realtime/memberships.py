"""Which workspaces a user's events reach.

Events of users belong to no workspace. They are matched by the memberships that the
stream itself tells of, so that every server comes to the same answer. A membership that
ended still counts for the events up to its end: a subscriber that reads them later is not
told less than one that was there. How many ended ones are kept is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime.entry import Entry

KIND = "membership"
_ENDED_KEPT = 100_000
_ENDS = (fmt.DELETED, fmt.LEFT)


class Memberships:
    """Users and their workspaces, as of the entries that were taken in."""

    def __init__(self) -> None:
        self._of_membership: dict[tuple[str, str], str] = {}
        self._of_user: dict[str, dict[str, int]] = {}
        self._ended: OrderedDict[tuple[str, str], int] = OrderedDict()

    def begin(self, entries: Iterable[Entry]) -> None:
        """Takes in what begins in a run of entries; called before they are matched."""
        for entry in entries:
            subject = entry.subject
            # A domain event of a membership makes nobody a member.
            if subject is not None and subject.kind == KIND and entry.is_row and entry.verb in fmt.STATES:
                user = _user_of(entry)
                if user is not None:
                    self._forget(subject.workspace, subject.entity, entry.sequence)
                    self._of_membership[subject.workspace, subject.entity] = user
                    workspaces = self._of_user.setdefault(user, {})
                    workspaces[subject.workspace] = workspaces.get(subject.workspace, 0) + 1

    def end(self, entries: Iterable[Entry]) -> None:
        """Takes in what ends in a run of entries; called after they were matched."""
        for entry in entries:
            subject = entry.subject
            if subject is None or subject.kind != KIND or not entry.is_row:
                continue
            if entry.verb in _ENDS:
                if not self._forget(subject.workspace, subject.entity, entry.sequence):
                    self._end_unknown(subject.workspace, entry)
            elif entry.verb == fmt.TRUNCATED:
                for workspace, membership in list(self._of_membership):
                    self._forget(workspace, membership, entry.sequence)

    def workspaces_of(self, user: str) -> Iterable[str]:
        """The workspaces that the user is a member of now."""
        return self._of_user.get(user, ())

    def includes(self, workspace: str, user: str, sequence: int) -> bool:
        """Whether the user's event at ``sequence`` reaches the workspace."""
        if workspace in self._of_user.get(user, ()):
            return True
        return sequence <= self._ended.get((workspace, user), 0)

    def _forget(self, workspace: str, membership: str, sequence: int) -> bool:
        """Whether the membership was known."""
        user = self._of_membership.pop((workspace, membership), None)
        if user is None:
            return False
        workspaces = self._of_user[user]
        workspaces[workspace] -= 1
        if workspaces[workspace] == 0:
            del workspaces[workspace]
            self._note_end(workspace, user, sequence)
        if not workspaces:
            del self._of_user[user]
        return True

    def _end_unknown(self, workspace: str, entry: Entry) -> None:
        """An end whose beginning this server did not see tells itself who was a member until then."""
        user = _user_of(entry)
        if user is not None and workspace not in self._of_user.get(user, ()):
            self._note_end(workspace, user, entry.sequence)

    def _note_end(self, workspace: str, user: str, sequence: int) -> None:
        self._ended[workspace, user] = sequence
        self._ended.move_to_end((workspace, user))
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)


def _user_of(entry: Entry) -> str | None:
    try:
        event = Event.FromString(entry.payload)
    except DecodeError:
        return None
    return event.membership.user_id or None
