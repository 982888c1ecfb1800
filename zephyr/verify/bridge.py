"""`zephyr bridge run` as a process, to be killed, frozen and started again."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from zephyr.stack.log import LogFile
from zephyr.stack.process import ChildProcess
from zephyr.verify.wait import NotWithin, until

COMMAND = (sys.executable, "-m", "zephyr", "bridge", "run")
EXIT_UNREACHABLE = 3
EXIT_HELD = 5
START_S = 45.0


class BridgeEnded(Exception):
    """It ended by itself, and must not have."""

    exit_code = 1

    def __init__(self, code: int, log: LogFile) -> None:
        self.message = f"the bridge ended with {code}: {log.cause() or 'it said nothing'}"
        self.mend = f"see its log in {log.path}"
        super().__init__(self.message)


class Bridge:
    """One bridge after another, in one folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = LogFile(folder / "bridge.log")
        self._ready_file = folder / "ready.json"
        self._environment = environment
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._child is not None
        return self._child.exit_code

    @property
    def term(self) -> int:
        """The term that streams now; 0 while none does."""
        try:
            told = json.loads(self._ready_file.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return 0
        return int(told["term"]) if told["pid"] == self.pid and self.exit_code is None else 0

    def spawn(self) -> None:
        """Starts it, and does not wait."""
        self.kill()
        self._ready_file.parent.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        self._child = ChildProcess.spawn(
            [*COMMAND, "--ready-file", str(self._ready_file)], self.log, env=self._environment
        )

    async def streams(self, after: int = 0) -> None:
        """Waits until a term later than ``after`` streams; starts it again if servers were away at its start.

        Raises:
            BridgeEnded: it ended for another reason.
            NotWithin: it does not stream.
        """

        async def does() -> bool:
            code = self.exit_code
            if code in (EXIT_UNREACHABLE, EXIT_HELD):
                # The server of a bridge that was killed holds its lock until it notices.
                self.spawn()
            elif code is not None:
                raise BridgeEnded(code, self.log)
            return self.term > after

        try:
            await until(does, "the bridge streams", START_S)
        except NotWithin as exc:
            raise NotWithin("the bridge streams", START_S, f"it said: {self.log.cause()}") from exc

    async def start(self) -> None:
        """Starts it, if it does not run, and waits until it streams."""
        if self._child is None or self.exit_code is not None:
            self.spawn()
        await self.streams()

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; fine when it has ended or was never started."""
        if self._child is not None:
            self._child.kill()

    async def stop(self) -> None:
        """Ends it in its own way."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)
            await self._child.stop()

    def _send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send(number)
