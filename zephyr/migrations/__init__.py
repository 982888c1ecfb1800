"""The schema's revisions, and ``runner.migrate`` that applies them. Forward only.

A revision is a file in ``versions/``, written in SQL, since Postgres is the only database
there is. All revisions that are missing run in one transaction: a database is never left
between two of them.
"""
