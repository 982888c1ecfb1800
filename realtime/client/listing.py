"""Events of the past, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from protos.events.v1 import read_pb2
from realtime.client.received import Batch, ReceivedEvent, received

FetchPage = Callable[[read_pb2.ListEventsRequest], Awaitable[read_pb2.ListEventsResponse]]


class EventList:
    """Iterate it for events, or ``pages()`` for whole pages. Each iteration begins at the first one."""

    def __init__(self, request: read_pb2.ListEventsRequest, fetch: FetchPage) -> None:
        self._request = request
        self._fetch = fetch

    async def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        """
        Raises:
            RequestError: the server refused a page; see ``Client.list_events``.
        """
        async for page in self.pages():
            for event in page:
                yield event

    async def pages(self) -> AsyncIterator[Batch]:
        """Pages; one may be empty. The cursor of each is the place up to which everything was examined.

        Raises:
            RequestError: the server refused a page; see ``Client.list_events``.
        """
        request = read_pb2.ListEventsRequest()
        request.CopyFrom(self._request)
        while True:
            response = await self._fetch(request)
            yield Batch(received(response.events), response.cursor)
            request.page.page_token = response.page.next_page_token
            if not request.page.page_token:
                return
