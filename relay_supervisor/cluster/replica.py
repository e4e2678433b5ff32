"""One supervisor among several for the same cameras: it stands by, commands when the seat is its own, and leaves it."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from relay_common.clock import Clock
from relay_common.config_cluster import ClusterConfig, passing_endpoint
from relay_supervisor.cluster.cluster_database import ClusterDatabase
from relay_supervisor.cluster.election import CommandState, Peer, is_lone
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.objects import Objects
from relay_supervisor.cluster.seat import CLOCKS_APART, MINUTE, Seat
from relay_supervisor.cluster.state_object import Claimed, Deposed, StateObject
from relay_supervisor.fleet.pods.api import PODS, ApiAway, ApiRefused
from relay_supervisor.state.store import Store
from relay_supervisor.status.model import SeatStatus
from relay_supervisor.supervise import Loops

log = logging.getLogger(__name__)

COMMANDS_LABEL: Final = "nest-relay/commands"
"""Of the Pod of the supervisor that commands, for Services to select it by; its value is the relay's identity."""
ACCOUNT_COMMANDS: Final = "commands.nest-relay/"
"""The same where a supervisor may command several relays, one for each account: the identity follows."""
_LOOK: Final = 0.2
_ASK_EVERY: Final = 1.0
"""Seconds between requests for promises; they hold longer, so that some may get lost."""
_FLUSH: Final = 2.0
_FOLLOW: Final = 2.0
_LABEL_EVERY: Final = 10.0
"""Seconds between looks at the label: somebody may have removed it, or its last holder have set it late."""
_EXTENDS_ALONE: Final = "the API server is away and the others have promised to wait: streams are extended, no more"
_NAMESAKE: Final = "another supervisor has the same name: give each one its own ([cluster] replica)"


def command_labels(relay: str) -> tuple[dict[str, str], dict[str, str]]:
    """Of the Pod that commands a relay, which has the one or, where it is one of several accounts, the other."""
    return {COMMANDS_LABEL: relay}, {f"{ACCOUNT_COMMANDS}{relay}": "true"}


class Asking(Protocol):
    """How others are asked for promises (`PeerChannel`)."""

    async def ask(self, address: str, holder: str, session: str) -> bool:
        """Whether the supervisor at `address` promises not to take that holder's seat."""
        ...

    async def aclose(self) -> None:
        """Close everything."""
        ...


Channel = Callable[[str, Callable[[str, str], bool]], Asking]
"""Makes one, of the relay's key and of what answers others."""


class Replica:
    """The supervisor `config.replica` of the relay `config.identity`, from standing by until `over`.

    `channel` makes what others are asked for promises by. `namesake`: one of the same name has taken over from this
    process. `among_accounts`: it is one of several relays that the supervisor may command at the same time.
    `remembered` is the relay's key as an earlier life of this one knew it, "" for none: with it promises are
    given although the API server is away; `remember` keeps it for the next. `before` is what the turn before this one
    left, in the same process.
    """

    def __init__(
        self,
        objects: Objects,
        config: ClusterConfig,
        clock: Clock,
        channel: Channel,
        *,
        namesake: bool = False,
        among_accounts: bool = False,
        remembered: str = "",
        remember: Callable[[str], None] = lambda key: None,
        before: Handover | None = None,
    ) -> None:
        self._objects, self._config, self._clock, self._channel = objects, config, clock, channel
        self._commanding = command_labels(config.identity)[int(among_accounts)]
        self._session = secrets.token_hex(8)
        self._remembered, self._remember = remembered, remember
        self._before = before
        self._namesake, names = namesake, (config.identity, config.replica, self._session)
        reached = config.peer_listen, passing_endpoint(config)
        self.seat = Seat(objects, *names, clock, *reached, namesake=namesake, before=before)
        self._state = StateObject(objects, config.identity, self._session, lambda: self.seat.in_command)
        self._loops = Loops(clock)
        self.key = ""
        """The relay's secret key on the bus; "" as long as it could not be read, or there is none."""
        self._problem = ""
        """Why it cannot begin although the seat is its own."""
        self._database: ClusterDatabase | None = None
        self.overrides = b""
        """What people have switched on and off, as the last one that commanded knew it; b"" when none did."""
        self.over = asyncio.Event()
        """Set when this one must not command any more."""

    # --- in order --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Stand by."""
        self._loops.start("seat", self.seat.run)
        self._loops.start("promises", self._promise)

    async def take(self, key: bytes, content: Callable[[], bytes] = bytes) -> tuple[bytes, Store]:
        """Return once this supervisor commands: the key on the bus, and the store with what the last one has written.

        `key` and `content` are those of a relay whose state is not in the cluster yet. Raises Deposed when the command
        was lost before the state could be claimed.
        """
        await self.seat.won.wait()
        claimed = await self._claimed(key)
        self.key, self.overrides = claimed.key.decode(), claimed.overrides
        if is_lone(self.seat.followed) and claimed.before != self.seat.followed:  # `move` claims it in its name
            self.seat.unsure_until = self._clock.now() + MINUTE  # which had a quota log of its own
        before = self._known(claimed)
        self._database = database = ClusterDatabase(
            claimed.content or content(),
            self._state,
            self._clock,
            before=before,
            in_command=lambda: self.seat.in_command,
            may_extend=lambda: self.seat.may_extend,
            unsure_until=self.seat.unsure_until,
            on_deposed=self.over.set,
        )
        self.seat.unsaved_at = lambda: database.unsaved_at
        store = Store(database, self._clock, boot=self._session, clocks_apart=CLOCKS_APART)
        self._loops.start("who commands", self._watch)
        self._loops.start("label", self._label)
        self._loops.start("state in the cluster", database.run)
        return claimed.key, store

    def follow(self, overrides: Callable[[], Awaitable[bytes]]) -> None:
        """Write for the next one what people switch on and off; `overrides` reads it."""
        self._loops.start("overrides in the cluster", functools.partial(self._follow, overrides))

    async def leave(self) -> Handover | None:
        """Write what the store holds, give up the seat if it is ours, and end; what the next turn here may go on with,
        None when this one did not command.
        """
        left, database = None, self._database
        if database is not None:
            content = await database.aclose(_FLUSH)
            left = Handover(self._session, content, self.seat.unsure_until, database.unsaved_at)
        await self.seat.release()
        await self._loops.aclose()
        return left

    # --- what is told ----------------------------------------------------------------------------------------------

    @property
    def in_command(self) -> bool:
        """Whether what is in the cluster may be changed now."""
        return self.seat.in_command and not self.over.is_set()

    def status(self) -> SeatStatus:
        """Who commands, as this one knows it."""
        seat = self.seat
        under_promises = seat.state is CommandState.UNCONFIRMED and seat.may_extend
        return SeatStatus(
            replica=self._config.replica,
            state="in command under promises" if under_promises else seat.state.value,
            commands=seat.may_extend and not self.over.is_set(),
            holder=seat.holder,
            others=sorted(seat.others),
            problem=seat.problem or self._problem or (_NAMESAKE if self._namesake and seat.namesake else ""),
            known=seat.known,
        )

    # --- loops -----------------------------------------------------------------------------------------------------

    async def _claimed(self, key: bytes) -> Claimed:
        """Claim the state while the seat is ours: later that would depose whoever has it."""
        while not self.seat.lost.is_set():
            try:
                if self.seat.in_command:
                    claimed = await self._state.claim(key)
                    self._problem = ""
                    return claimed
            except (ApiAway, ApiRefused) as error:
                problem = f"the state in the cluster cannot be claimed: {error}"
                if problem != self._problem:
                    log.error("%s", problem)
                self._problem = problem
            await self._clock.sleep(_ASK_EVERY)
        raise Deposed(f"{self.seat.holder or 'another supervisor'} took over before the state could be claimed")

    def _known(self, claimed: Claimed) -> Handover | None:
        """What our last turn has left, if it is the last that anybody has written."""
        if not self.seat.goes_on or self._before is None:
            return None
        if claimed.before != self._before.session:  # as `move` does
            self.seat.unsure_until = self._clock.now() + MINUTE
            return None
        return self._before

    async def _follow(self, overrides: Callable[[], Awaitable[bytes]]) -> None:
        problem = ""
        while not self.over.is_set():
            try:
                if (now := await overrides()) != self.overrides:
                    await self._state.save_overrides(now)
                    self.overrides, problem = now, ""
            except (OSError, RuntimeError) as error:  # the API server's as well
                if str(error) != problem:
                    log.warning("what was switched on and off is not known to the next supervisor yet: %s", error)
                problem = str(error)
            except Deposed:
                self.over.set()
            await self._clock.sleep(_FOLLOW)
        await asyncio.Event().wait()

    async def _watch(self) -> None:
        """Tell when another one may take the seat, or has."""
        while not (self.seat.lost.is_set() or not self.seat.may_extend):
            await self._clock.sleep(_LOOK)
        if not self.over.is_set():
            log.error("%s is no longer in command: it may be taken over, and sends nothing", self._config.replica)
            self.over.set()
        await asyncio.Event().wait()

    async def _promise(self) -> None:
        """Be there for others' questions, and ask them when the API server is away."""
        self.key = self.key or await self._read_key()
        if not self.key and self._remembered:
            answering = self._channel(self._remembered, self.seat.promises)
            try:
                await self._wait_for_key()
            finally:
                await answering.aclose()
        await self._wait_for_key()
        while True:
            self._remember(self.key)
            asking = self._channel(self.key, self.seat.promises)
            try:
                await self._ask_all(asking)
            finally:
                await asking.aclose()  # the next one listens at the same address

    async def _wait_for_key(self) -> None:
        """Read it once: without the API server it could not be read again."""
        while not self.key:
            await self._clock.sleep(_ASK_EVERY)
            self.key = await self._read_key()

    async def _ask_all(self, asking: Asking) -> None:
        """Return when the key has been replaced, which it is while nobody commands."""
        under_promises, key_of = False, self.seat.session_of_holder
        while True:
            if self.seat.state is CommandState.STANDING_BY and self.seat.session_of_holder != key_of:
                key, key_of = await self._read_key(), self.seat.session_of_holder
                if not key:
                    key_of = ""  # to be read again
                elif key != self.key:
                    log.warning("the relay's key has been replaced: the new one is used")
                    self.key = key
                    return
            if self.seat.wants_promises:
                asked = self._clock.now()
                others = self.seat.others.items()
                await asyncio.gather(*(self._ask(asking, name, peer, asked) for name, peer in others))
            now = self.seat.state is CommandState.UNCONFIRMED and self.seat.may_extend
            if now != under_promises:
                log.warning("%s", _EXTENDS_ALONE if now else "the API server answers again, or promises have ended")
            under_promises = now
            await self._clock.sleep(_ASK_EVERY)

    async def _read_key(self) -> str:
        try:
            return (await self._state.key()).decode()
        except (ApiAway, ApiRefused):
            return ""

    async def _ask(self, asking: Asking, name: str, peer: Peer, asked: float) -> None:
        if peer.address and await asking.ask(peer.address, self._config.replica, self._session):
            self.seat.promised(name, asked)

    async def _label(self) -> None:
        """Have Services lead to this one's Pod, and to no other's, whatever others do to the labels."""
        refused = ""
        while True:
            try:
                if self.in_command:
                    await self._lead_here()
                refused, pause = "", _LABEL_EVERY
            except ApiAway:
                pause = _ASK_EVERY
            except ApiRefused as error:
                if str(error) != refused:
                    log.warning("this supervisor's Pod gets no label, which Services may need to find it: %s", error)
                refused, pause = str(error), _LABEL_EVERY
            await self._clock.sleep(pause)

    async def _lead_here(self) -> None:
        labelled = self._commanding
        found, _ = await self._objects.list(PODS, labelled)
        names = {pod["metadata"]["name"] for pod in found}
        for name in names - {self._config.replica}:
            try:
                await self._objects.patch(PODS, name, {"metadata": {"labels": dict.fromkeys(labelled)}})
            except ApiRefused as error:
                if not error.absent:  # it has ended meanwhile
                    raise
        if self._config.replica not in names:
            await self._objects.patch(PODS, self._config.replica, {"metadata": {"labels": labelled}})
