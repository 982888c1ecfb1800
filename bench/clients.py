"""The client programs of one round: started, ready, and what all of them found together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from bench.program import Program
from bench.serving import Serving


@dataclass(frozen=True, slots=True)
class Found:
    """What the clients of a round found: ``events`` in all, ``fewest`` and ``most`` of a subscription."""

    events: int
    fewest: int
    most: int
    falls: int
    seconds: float
    broken: Sequence[str]
    greeting: int
    latencies_ms: Sequence[float]
    arrivals: Mapping[str, float]

    @property
    def per_s(self) -> float:
        """Events a second of all together."""
        return self.events / self.seconds

    def holds(self, each: int) -> bool:
        """Whether every subscription got so many events, and every frame joined the one before."""
        return self.fewest == self.most == each and not self.broken


class Clients:
    """Programs with some streams each."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs

    @property
    def pids(self) -> dict[str, int]:
        """Their process ids, by name."""
        if len(self.programs) == 1:
            return {"client": self.programs[0].pid}
        return {f"client {number}": each.pid for number, each in enumerate(self.programs, 1)}

    async def ready(self) -> float:
        """Waits until every subscription is at the live edge; gives the time of the last one."""
        return max([float(await each.heard("ready")) for each in self.programs])

    def until(self, sequence: int) -> None:
        """Says up to where they shall wait for."""
        for each in self.programs:
            each.tell({"until": sequence})

    def on_through(self, take: Callable[[int], None]) -> None:
        """Calls ``take`` with the sequence up to which all of them have everything, whenever it grew."""
        through = [-1] * len(self.programs)

        def listener(place: int) -> Callable[[str, Any], None]:
            def said(name: str, value: Any) -> None:
                if name == "through":
                    through[place] = int(value)
                    take(min(through))

            return said

        for place, each in enumerate(self.programs):
            each.on_said = listener(place)

    async def done(self) -> Found:
        """What they found, once they have all that they shall wait for.

        Raises:
            BenchError: one of them failed.
        """
        found: list[dict[str, Any]] = [await each.heard("done") for each in self.programs]
        return Found(
            events=sum(each["events"] for each in found),
            fewest=min(each["fewest"] for each in found),
            most=max(each["most"] for each in found),
            falls=sum(each["falls"] for each in found),
            seconds=max(each["last_at"] for each in found) - min(each["first_at"] for each in found),
            broken=[text for each in found for text in each["broken"]],
            greeting=found[0]["greeting"],
            latencies_ms=[value for each in found for value in each["latencies_ms"]],
            arrivals={name: at for each in found for name, at in each["arrivals"].items()},
        )


async def start_clients(
    closing: AsyncExitStack,
    serving: Serving,
    target: str,
    streams: int,
    processes: int = 1,
    connections: int = 100,
    record: str = "",
    **spec: Any,
) -> Clients:
    """Starts ``streams`` streams over as many programs and connections as there may be; the first one records."""
    programs: list[Program] = []
    processes = min(processes, streams)
    for number in range(processes):
        mine = streams // processes + (number < streams % processes)
        given = {"streams": mine, "connections": max(1, min(mine, connections // processes))} | spec
        context = serving.program("bench.client", target=target, record="" if number else record, **given)
        programs.append(await closing.enter_async_context(context))
    return Clients(programs)
