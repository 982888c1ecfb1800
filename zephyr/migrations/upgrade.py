"""What is missing of the revisions, run by Alembic on one connection.

Alembic is used as a library: no configuration file, no environment script. It and SQLAlchemy
are imported here alone, so that a process that migrates nothing does not load them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError as RevisionError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from zephyr.migrations import runner


def upgrade(connection: psycopg.Connection[Any], on_step: Callable[[str], None] | None) -> list[str]:
    """Applies what is missing and gives its ids; see ``runner.migrate``.

    Raises:
        psycopg.Error: of a statement.
        MigrationError: the database is at a revision that is not known.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    try:
        with engine.connect() as locked:
            return _upgrade(locked, on_step)
    except DBAPIError as exc:
        raise (exc.orig if isinstance(exc.orig, psycopg.Error) else psycopg.Error(str(exc))) from exc
    except RevisionError as exc:
        raise runner.MigrationError(
            f"the database is at a revision that this Zephyr does not know: {exc}",
            "run the Zephyr that migrated it, or a newer one",
            4,
        ) from exc


def _upgrade(connection: Connection, on_step: Callable[[str], None] | None) -> list[str]:
    # The lock belongs to the session: closing the connection gives it back, whatever happens.
    connection.exec_driver_sql(f"SET lock_timeout = '{runner.LOCK_TIMEOUT_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({runner.LOCK_KEY})")
    connection.commit()

    applied: list[str] = []

    # Alembic calls it by keywords, though its annotation says by position.
    def note(*_: Any, **given: Any) -> None:
        step: MigrationInfo = given["step"]
        applied.extend(step.up_revision_ids)
        script = scripts.get_revision(step.up_revision_ids[0])
        if on_step is not None and script is not None:
            on_step(f"{script.revision}: {script.doc}")

    scripts = ScriptDirectory(str(Path(__file__).parent))

    def missing(revision: tuple[str, ...], _context: MigrationContext) -> Sequence[Any]:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]

    with EnvironmentContext(Config(), scripts, fn=missing) as environment:
        environment.configure(
            connection=connection,
            version_table=runner.VERSION_TABLE,
            version_table_schema="public",
            on_version_apply=note,
        )
        with environment.begin_transaction():
            environment.run_migrations()
    return applied
