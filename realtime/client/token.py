"""The caller's token: as it is, or from a provider that is asked whenever one is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from realtime.errors import RealtimeError

TokenProvider = Callable[[], Awaitable[str]]
"""Gives a token that is good now. Asked for each connection and call, and when the one in use ends soon."""

Metadata = tuple[tuple[str, str], ...]


class Caller:
    """Who calls. Without a token nothing is said of it."""

    def __init__(self, token: str | TokenProvider | None) -> None:
        self._token = token

    @property
    def can_renew(self) -> bool:
        """Whether there may be another token than before."""
        return callable(self._token)

    async def token(self) -> str:
        """A token, empty when there is none.

        Raises:
            RealtimeError: the provider failed; its own error is the cause.
        """
        if self._token is None or isinstance(self._token, str):
            return self._token or ""
        try:
            return await self._token()
        except RealtimeError:
            raise
        except Exception as exc:
            raise RealtimeError(f"the token provider failed: {exc!r}", "see what it raised") from exc

    async def metadata(self) -> Metadata:
        """What goes with a call."""
        token = await self.token()
        return (("authorization", f"Bearer {token}"),) if token else ()
