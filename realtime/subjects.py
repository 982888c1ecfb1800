"""Which subjects of the stream a filter's events stand under, so that the broker's index finds them.

The subjects are a superset: what is read under them is held against the filter still. Users
stand under no workspace and are matched by their memberships, and a truncation reaches
whoever wants its kind: both are among them.
"""

from __future__ import annotations

from protos.events.v1 import stream_format as fmt
from realtime.filters import USER_KIND, Filter

_ANY = "*"
MAX_SUBJECTS = 8
"""With more of them the stream is read as it stands: each is a question of its own."""


def subjects_of(wanted: Filter) -> list[str] | None:
    """The subjects, with wildcards, that everything stands under which the filter may match.

    None where the index does not help: the filter names nothing, or too much.
    """
    if not (wanted.workspaces or wanted.entities or wanted.kinds):
        return None
    kinds = sorted(wanted.kinds) or [_ANY]
    entities = sorted(wanted.entities) or [_ANY]
    workspaces = sorted(wanted.workspaces) or [_ANY]
    if (len(workspaces) + 1) * len(kinds) * len(entities) > MAX_SUBJECTS:
        return None
    subjects = {
        _subject(workspace, kind, entity) for workspace in workspaces for kind in kinds for entity in entities
    }
    if wanted.workspaces and (not wanted.kinds or USER_KIND in wanted.kinds):
        subjects |= {_subject(fmt.NONE, USER_KIND, entity) for entity in entities}
    # A truncation stands under no workspace and no entity.
    subjects |= {_subject(fmt.NONE, kind, fmt.NONE) for kind in kinds}
    return sorted(subjects)


def _subject(workspace: str, kind: str, entity: str) -> str:
    return f"{fmt.ROOT}.{fmt.SHARD}.{workspace}.{kind}.{entity}.{_ANY}"
