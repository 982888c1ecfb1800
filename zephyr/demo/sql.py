"""The demo's SQL, statement by statement."""

from __future__ import annotations

from typing import Final

LONG_TEXT: Final = 256
"""Characters; a longer text is compared by its digest."""

# The workspace that a run fills.
INSERT_WORKSPACE: Final = "INSERT INTO workspaces (id, slug, name) VALUES (%s, %s, %s)"

# What an earlier run left of an author.
FIND_USER: Final = "SELECT id, display_name, version FROM users WHERE email = %s"

# An author who is new to the database.
INSERT_USER: Final = "INSERT INTO users (id, email, display_name) VALUES (%s, %s, %s)"

# An author who goes by another name now.
UPDATE_USER: Final = "UPDATE users SET display_name = %s WHERE id = %s"

# An author's first commit.
INSERT_MEMBERSHIP: Final = "INSERT INTO memberships (id, workspace_id, user_id) VALUES (%s, %s, %s)"

# A file that was added.
INSERT_NOTE: Final = (
    "INSERT INTO notes (id, workspace_id, author_id, title, body, metadata) VALUES (%s, %s, %s, %s, %s, %s)"
)

# A file that changed, moved or not.
UPDATE_NOTE: Final = "UPDATE notes SET title = %s, body = %s, author_id = %s, metadata = %s WHERE id = %s"

# A file that moved and stayed as it was: its text is not sent, nor written.
RENAME_NOTE: Final = "UPDATE notes SET title = %s, author_id = %s, metadata = %s WHERE id = %s"

# A file that was deleted.
DELETE_NOTE: Final = "DELETE FROM notes WHERE id = %s"

# The transaction's own name, to ask after it when the answer to COMMIT was lost.
CURRENT_TRANSACTION: Final = "SELECT pg_current_xact_id()::text"

# Whether a transaction is still at work: "in progress", "committed", "aborted" or NULL.
TRANSACTION_STATUS: Final = "SELECT pg_xact_status(%s::xid8)"

# The version of one row, which tells whether a transaction that wrote it happened.
VERSION_OF: Final = {
    "workspace": "SELECT version FROM workspaces WHERE id = %s",
    "user": "SELECT version FROM users WHERE id = %s",
    "membership": "SELECT version FROM memberships WHERE id = %s",
    "note": "SELECT version FROM notes WHERE id = %s",
}

# One consistent look at all four tables.
BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_COMMON = """
    (SELECT coalesce(json_object_agg(key, coalesce(value, 'null')), '{}') FROM jsonb_each_text(metadata)),
    version,
    (extract(epoch FROM created_at) * 1000000)::bigint,
    (extract(epoch FROM updated_at) * 1000000)::bigint
"""

# Every row of a table, the columns in the order of fold.FIELDS. A long text comes as its digest.
_BODY = (
    f"CASE WHEN length(body) <= {LONG_TEXT} THEN body"
    " ELSE 'sha256:' || encode(sha256(convert_to(body, 'UTF8')), 'hex') END"
)
_COLUMNS = {
    "workspaces": "slug, name",
    "users": "email, display_name",
    "memberships": "workspace_id::text, user_id::text, role",
    "notes": f"workspace_id::text, coalesce(author_id::text, ''), title, {_BODY}",
}
ROWS_OF: Final = {
    table.removesuffix("s"): f"SELECT id::text, {columns}, {_COMMON} FROM {table}"  # noqa: S608
    for table, columns in _COLUMNS.items()
}

# The ids of a table's rows.
IDS_OF: Final = {
    table.removesuffix("s"): f"SELECT id::text FROM {table}"  # noqa: S608
    for table in _COLUMNS
}
