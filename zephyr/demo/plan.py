"""Turns commits into transactions, and says which events each of them must give.

One address, lower-cased and trimmed, is one user; a note is one file for as long as it stands in
the tree. Ids follow from the workspace's, so that a transaction that has to be sent again is the
same one. Versions are counted here as the trigger counts them there: 1 at the insert, one more at
each update. Nothing here does I/O.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from zephyr.demo import sql
from zephyr.demo.expected import ExpectedEvent
from zephyr.demo.history import Action, CommitChanges, FileChange

_ADDRESS_LIMIT = 512
_MESSAGE_LIMIT = 200


@dataclass(slots=True)
class Transaction:
    """Statements in their order, and the events that they give in the same order."""

    statements: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    events: list[ExpectedEvent] = field(default_factory=list)

    def add(self, statement: str, parameters: tuple[object, ...], event: ExpectedEvent) -> None:
        self.statements.append((statement, parameters))
        self.events.append(event)


@dataclass(slots=True)
class User:
    """An author as the database has him."""

    id: UUID
    display_name: str
    version: int


class Plan:
    """The transactions of one run, for the workspace ``workspace_id``."""

    def __init__(self, workspace_id: UUID, slug: str, name: str) -> None:
        self.workspace_id = workspace_id
        self._slug = slug
        self._name = name
        self._authors: dict[str, User] = {}
        self._versions: dict[int, int] = {}

    def workspace(self) -> Transaction:
        """The transaction that everything else stands on."""
        done = Transaction()
        done.add(
            sql.INSERT_WORKSPACE,
            (self.workspace_id, self._slug, self._name),
            ExpectedEvent("workspace", str(self.workspace_id), "created", 1),
        )
        return done

    def is_known(self, commit: CommitChanges) -> bool:
        """Whether the author was met; if not, ``transaction`` wants to know what the database has of him."""
        return address(commit) in self._authors

    def transaction(self, commit: CommitChanges, found: User | None = None) -> Transaction:
        """The commit's transaction. ``found`` is the author as an earlier run left him."""
        done = Transaction()
        author = self._author(done, commit, found)
        metadata = Jsonb({"commit": commit.id, "message": commit.message[:_MESSAGE_LIMIT]})
        for change in commit.changes:
            self._change(done, change, author, metadata)
        return done

    def _author(self, done: Transaction, commit: CommitChanges, found: User | None) -> User:
        email = address(commit)
        user = self._authors.get(email)
        if user is None:
            user = found
            if user is None:
                user = User(uuid5(self.workspace_id, f"user {email}"), commit.author_name, 1)
                created = ExpectedEvent("user", str(user.id), "created", 1)
                done.add(sql.INSERT_USER, (user.id, email, user.display_name), created)
            # Before an update of a user whom another run made: it makes that event reach this workspace.
            membership = uuid5(self.workspace_id, f"membership {email}")
            done.add(
                sql.INSERT_MEMBERSHIP,
                (membership, self.workspace_id, user.id),
                ExpectedEvent("membership", str(membership), "created", 1),
            )
            self._authors[email] = user
        if user.display_name != commit.author_name:
            user.display_name = commit.author_name
            user.version += 1
            updated = ExpectedEvent("user", str(user.id), "updated", user.version)
            done.add(sql.UPDATE_USER, (user.display_name, user.id), updated)
        return user

    def _change(self, done: Transaction, change: FileChange, author: User, metadata: Jsonb) -> None:
        note = uuid5(self.workspace_id, f"note {change.note}")
        if change.action is Action.ADD:
            self._versions[change.note] = 1
            parameters: tuple[object, ...] = (
                note,
                self.workspace_id,
                author.id,
                change.path,
                change.text,
                metadata,
            )
            done.add(sql.INSERT_NOTE, parameters, ExpectedEvent("note", str(note), "created", 1))
            return
        if change.action is Action.DELETE:
            version = self._versions.pop(change.note)
            done.add(sql.DELETE_NOTE, (note,), ExpectedEvent("note", str(note), "deleted", version))
            return
        self._versions[change.note] += 1
        updated = ExpectedEvent("note", str(note), "updated", self._versions[change.note])
        if change.text is None:
            done.add(sql.RENAME_NOTE, (change.path, author.id, metadata, note), updated)
        else:
            done.add(sql.UPDATE_NOTE, (change.path, change.text, author.id, metadata, note), updated)


def address(commit: CommitChanges) -> str:
    """The author's address as the users' key. One too long for an index ends in a digest of itself."""
    email = commit.author_email.strip().lower()
    if len(email.encode()) <= _ADDRESS_LIMIT:
        return email
    return f"{email[:64]}…{hashlib.blake2b(email.encode(), digest_size=16).hexdigest()}"
