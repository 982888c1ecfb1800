"""Workspaces, users, memberships and notes.

Each table has a version that counts its row's writes, so that a reader can tell which of
two states is newer, and REPLICA IDENTITY FULL, so that the WAL carries a row whole: what an
update left alone, the workspace that a row left, the row that was deleted.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The tail of every table: what each row carries.
COMMON_COLUMNS = """
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
"""

WORKSPACES = f"""
CREATE TABLE public.workspaces (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    {COMMON_COLUMNS}
)
"""

USERS = f"""
CREATE TABLE public.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL UNIQUE,
    display_name text NOT NULL DEFAULT '',
    {COMMON_COLUMNS}
)
"""

MEMBERSHIPS = f"""
CREATE TABLE public.memberships (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    role text NOT NULL DEFAULT 'member',
    {COMMON_COLUMNS},
    UNIQUE (workspace_id, user_id)
)
"""

NOTES = f"""
CREATE TABLE public.notes (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
    author_id uuid REFERENCES public.users (id) ON DELETE SET NULL,
    title text NOT NULL,
    body text NOT NULL DEFAULT '',
    {COMMON_COLUMNS}
)
"""

# Deleting a user or a workspace looks for the rows that refer to it.
INDEXES = (
    "CREATE INDEX memberships_user_id ON public.memberships (user_id)",
    "CREATE INDEX notes_workspace_id ON public.notes (workspace_id)",
    "CREATE INDEX notes_author_id ON public.notes (author_id)",
)

COUNT_WRITE = """
CREATE FUNCTION public.zephyr_count_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END
$$
"""

TABLES = ("workspaces", "users", "memberships", "notes")


def upgrade() -> None:
    """Makes the tables, their triggers and their replica identity."""
    for statement in (WORKSPACES, USERS, MEMBERSHIPS, NOTES, *INDEXES, COUNT_WRITE):
        op.execute(statement)
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER zephyr_count_write BEFORE UPDATE ON public.{table} "
            "FOR EACH ROW EXECUTE FUNCTION public.zephyr_count_write()"
        )
        op.execute(f"ALTER TABLE public.{table} REPLICA IDENTITY FULL")
