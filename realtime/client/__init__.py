"""What users import: ``from realtime.client import Client, Start``.

    async with Client("127.0.0.1:7400") as client:
        async with client.subscribe(workspaces=[workspace], kinds=["note"]) as subscription:
            async for received in subscription:
                print(received.verb, received.event.note.title)

A subscription reconnects by itself and goes on after its last event; it checks that frames
join without a gap, and raises rather than skip.
"""

from realtime.client.client import Client
from realtime.client.received import ReceivedEvent
from realtime.client.start import Start
from realtime.client.subscription import Subscription

__all__ = ["Client", "ReceivedEvent", "Start", "Subscription"]
