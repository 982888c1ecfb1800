"""What the caller of one stream may see, while the stream lasts.

Each subscription is admitted when it opens. Before each of its frames the permissions' version is
compared with the one it was admitted under; another one holds the subscription back until the policy was
asked again, and what is lost then is dropped before it is sent. A policy that fails ends the
subscription that it was asked about. Nothing of this runs under the default policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from protos.events.v1 import stream_pb2 as pb
from realtime.auth.checks import authenticate, bare, raise_if_expired, scope_of, version_of
from realtime.auth.policy import Caller, Policy
from realtime.auth.scope import narrow
from realtime.errors import PermissionDenied, PolicyFailed, RealtimeError, Unauthenticated
from realtime.hub import Hub
from realtime.services.errands import Errands
from realtime.status import to_error
from realtime.subscriber import Subscriber

LOST = "the caller may not see these workspaces any more"
_MOST_ROUNDS = 100
_LONGEST_WAIT_S = 60.0
"""The clock may be set meanwhile."""

End = Callable[[Subscriber, pb.Closed], None]
Say = Callable[[pb.SubscribeResponse], None]


class StreamAccess:
    """One caller. ``end`` closes a subscription, ``say`` sends a frame that concerns the whole stream;
    ``warning_s`` is how long before the end of the authorization the caller is told."""

    def __init__(self, policy: Policy, caller: Caller, hub: Hub, warning_s: float) -> None:
        self._policy = policy
        self._caller = caller
        self._hub = hub
        self._warning_s = warning_s
        self._versions: dict[Subscriber, int | None] = {}
        self._checks: dict[Subscriber, asyncio.Task[None]] = {}
        self._refusal: RealtimeError | None = None
        self._renewed = asyncio.Event()
        self._unwatch: Callable[[], None] | None = None

    async def run(self, tasks: Errands, end: End, say: Say) -> None:
        """Watches the permissions, and the end of the authorization, until it is cancelled."""
        self._tasks, self._end, self._say = tasks, end, say
        try:
            self._watch()
            await self._watch_the_clock()
        finally:
            self._stop_watching()
            for check in self._checks.values():
                check.cancel()

    async def admit(self, subscriber: Subscriber) -> None:
        """Narrows a subscription that is about to begin to what its caller may see.

        Raises:
            RealtimeError: that is nothing, or the authorization is over, or the policy failed.
        """
        self._raise_if_refused()
        asked = subscriber.terms.wanted
        caller = self._caller
        version = version_of(self._policy, caller)
        scope = await scope_of(self._policy, caller, asked)
        self._raise_if_refused()
        subscriber.filter = narrow(asked, asked, scope)
        # Another caller came meanwhile: its permissions are asked for before the first frame.
        self._versions[subscriber] = version if caller is self._caller else None

    def tell_lost(self, subscriber: Subscriber) -> None:
        """Says, behind ``ready``, what of the named workspaces is not delivered."""
        lost = subscriber.terms.wanted.workspaces - subscriber.filter.workspaces
        if lost:
            subscriber.say(_scope_changed(lost))

    def lets_pass(self, subscriber: Subscriber) -> bool:
        """Whether a frame of it may be sent; else the policy is asked, and the subscription told to be ready
        again after that."""
        if subscriber not in self._versions or not subscriber.epoch:
            return True  # it was refused, or it is over: what is left to send is the reason
        try:
            is_current = self._versions[subscriber] == self._policy.version(self._caller)
        except Exception:  # noqa: BLE001  # the check asks again, and ends the subscription
            is_current = False
        if not is_current:
            self._check(subscriber)
        return is_current

    def forget(self, subscriber: Subscriber) -> None:
        """The subscription is over."""
        self._versions.pop(subscriber, None)

    async def renew(self, token: str) -> None:
        """Takes another token; one that is not accepted ends every subscription."""
        try:
            caller = await authenticate(self._policy, bare(token))
            raise_if_expired(caller, time.time())
        except RealtimeError as exc:
            self._refuse(exc)
            return
        self._refusal = None
        if caller.id != self._caller.id:
            self._versions = dict.fromkeys(self._versions)
        self._stop_watching()
        self._caller = caller
        self._watch()
        self._say_expiry()
        self._renewed.set()

    def _watch(self) -> None:
        try:
            self._unwatch = self._policy.watch(self._caller, self._changed)
        except Exception as exc:  # noqa: BLE001  # it ends what is open, with its error
            self._refuse(exc)
        self._changed()

    def _stop_watching(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    def _changed(self) -> None:
        for subscriber in list(self._versions):
            self.lets_pass(subscriber)

    def _check(self, subscriber: Subscriber) -> None:
        if subscriber not in self._checks:
            task = self._tasks.create_task(self._ask_again(subscriber))
            self._checks[subscriber] = task
            task.add_done_callback(lambda _: self._checks.pop(subscriber, None))

    async def _ask_again(self, subscriber: Subscriber) -> None:
        """Until the answer is of the permissions of now."""
        try:
            for _ in range(_MOST_ROUNDS):
                if subscriber not in self._versions:
                    break
                caller = self._caller
                version = version_of(self._policy, caller)
                if version == self._versions[subscriber]:
                    break
                scope = await scope_of(self._policy, caller, subscriber.terms.wanted)
                if subscriber in self._versions and caller is self._caller:
                    before = subscriber.filter
                    after = narrow(subscriber.terms.wanted, before, scope)
                    if after is not before:
                        self._hub.narrow(subscriber, after)
                        if after.workspaces != before.workspaces and not subscriber.is_closed:
                            lost = before.workspaces - after.workspaces
                            subscriber.say(_scope_changed(lost), in_turn=False)
                    self._versions[subscriber] = version
                await asyncio.sleep(0)
            else:
                raise PolicyFailed("the policy's version is another one whenever it is asked")
        except RealtimeError as exc:
            self._forbid(subscriber, exc)
        subscriber.notify()  # with nothing to send too: a broadcast may wait for the answer

    def _forbid(self, subscriber: Subscriber, error: BaseException) -> None:
        """Ends a subscription; what is queued for it may not be sent."""
        self.forget(subscriber)
        self._hub.detach(subscriber)
        subscriber.forget()
        if subscriber.is_closed:
            subscriber.notify()
            return
        if isinstance(error, PermissionDenied):
            subscriber.reset(pb.Reset(reason=pb.RESET_REASON_FORBIDDEN, action=pb.RESET_ACTION_GIVE_UP))
        self._end(subscriber, pb.Closed(error=to_error(error)))

    def _refuse(self, error: BaseException) -> None:
        """Ends all subscriptions, and refuses further ones until a good token comes."""
        self._refusal = error if isinstance(error, RealtimeError) else PolicyFailed("the policy failed")
        for subscriber in list(self._versions):
            self._forbid(subscriber, error)

    def _raise_if_refused(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        raise_if_expired(self._caller, time.time())

    async def _watch_the_clock(self) -> None:
        warned = None
        while True:
            self._renewed.clear()
            expires = self._caller.expires_at_s
            wait_s: float | None = None
            if expires is not None and self._refusal is None:
                left_s = expires - time.time()
                if left_s <= 0:
                    self._refuse(Unauthenticated("the authorization has expired", "get a new token"))
                elif left_s <= self._warning_s:
                    if warned != expires:
                        warned = expires
                        self._say_expiry()
                    wait_s = left_s
                else:
                    wait_s = min(left_s - self._warning_s, _LONGEST_WAIT_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._renewed.wait()
            except TimeoutError:
                continue  # look at the clock again

    def _say_expiry(self) -> None:
        expires = self._caller.expires_at_s
        at = int(expires * 1_000_000) if expires is not None else 0
        self._say(pb.SubscribeResponse(auth_expiring=pb.AuthExpiring(expires_at=at)))


def _scope_changed(lost: frozenset[str]) -> pb.ScopeChanged:
    return pb.ScopeChanged(lost_workspace_ids=sorted(lost), reason=LOST)
