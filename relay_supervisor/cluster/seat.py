"""The Lease of a relay, kept or waited for: the edge of the election."""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from relay_common.clock import Clock
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.cluster.election import DURATION, PROMISED, STOP_AFTER, CommandState, Election, LeaseRecord, Peer
from relay_supervisor.cluster.handover import Handover
from relay_supervisor.cluster.holders_pod import own_pod, pod_is_gone
from relay_supervisor.cluster.objects import STATE_LABEL, Objects, conflicts, find, forbids, unchanged, version_of
from relay_supervisor.fleet.pods.api import LEASES, ApiAway, ApiRefused, Object

log = logging.getLogger(__name__)

CLOCKS_APART: Final = 2.0
"""Seconds by which the wall clocks of the machines may differ."""
MINUTE: Final = 60.0
"""Seconds that Google's limits of commands look back on."""
ANSWERED_WITHIN: Final = 3.0
"""Seconds for an answer: a renewal that hangs must not use up the time in which another would succeed."""
_BESIDE: Final = 0.1
"""Seconds until a write is tried again that another one's came before."""
_ASK_AGAIN: Final = 0.5
"""Seconds until a free seat that is left to others is looked at again."""
_SESSION: Final = "nest-relay/session"
_UNSURE: Final = "nest-relay/unsure-until"
"""Until when (Unix seconds) it is not known what Google has been sent."""
_SERVES: Final = "nest-relay/serves"
"""Where the holder takes requests that others pass on."""
_POD: Final = "nest-relay/pod"
"""The session of a holder and the UID of its Pod: one of an earlier release leaves that of whoever was before it."""
_PEERS: Final = "peers.nest-relay/"
"""Of annotations, one for each supervisor that stands by, whose name follows."""


class Seat:
    """The seat of command of `relay`, for the supervisor `identity`.

    `run` takes it when it is free, and keeps it. `won` is set when it is ours, `lost` when another has taken it: then
    nothing more is done with this object. `session` tells it from an earlier one of the same name; `address` is where
    others reach it to ask for promises, `serves` where they pass requests on to it while it commands. `namesake`:
    another one that lives has the same name. `before` is what this process knows of its last turn in command. `knows`
    is for one that is alone, with a quota log of its own: whether that has all that a session has sent.
    """

    def __init__(
        self,
        objects: Objects,
        relay: str,
        identity: str,
        session: str,
        clock: Clock,
        address: str = "",
        serves: str = "",
        *,
        namesake: bool = False,
        before: Handover | None = None,
        knows: Callable[[str], bool] | None = None,
    ) -> None:
        self._objects, self._relay, self._identity, self._session = objects, relay, identity, session
        self._clock, self._address, self._serves = clock, address, serves
        self._election = Election(identity, session, namesake=namesake)
        self._name = f"{relay}-command"
        self._pod: str | None = None
        """The UID of our own Pod, once that is known; "" without one."""
        self.won, self.lost = asyncio.Event(), asyncio.Event()
        self.problem = ""
        """Why the API server does not help, in words; "" when it does."""
        self.forbidden = False
        """Whether it has refused us the Lease itself, so that it can never be ours."""
        self._blind_until = -math.inf
        """Until when it has not answered since the start."""
        self._answered = False
        self._began = clock.now()
        self._before, self._knows = before, knows
        self.followed = ""
        """The session that had it before us; "" for none."""
        self.goes_on = False
        """Whether nobody else has had the seat since `before`, whose state is therefore the last."""
        self.unsure_until = before.unsure_until if before is not None else -math.inf
        """Until when it is not known what Google has been sent: an earlier holder may have gone on under promises, and
        its entries in the quota log are lost with it."""
        self.willing: Callable[[], bool] = lambda: True
        """Whether it is to be taken when it is free: others may come first."""
        self.unsaved_at: Callable[[], float] = lambda: before.unsaved_at if before is not None else -math.inf
        """When the last command was sent whose entry is not in the cluster yet; -inf: there is none."""

    @property
    def in_command(self) -> bool:
        """Whether commands may be sent now."""
        return self._election.in_command(self._clock.now())

    @property
    def may_extend(self) -> bool:
        """Whether streams that are held may be extended now: in command, or under the others' promises."""
        return self._election.may_extend(self._clock.now())

    @property
    def state(self) -> CommandState:
        """The state of the election."""
        return self._election.state

    @property
    def wants_promises(self) -> bool:
        """Whether the others are to be asked for promises now."""
        return self._election.wants_promises(self._clock.now())

    @property
    def others(self) -> dict[str, Peer]:
        """Who else has registered."""
        return self._election.others

    @property
    def known(self) -> bool:
        """Whether the holder knows that we stand by, so that we can take over within seconds."""
        return self._election.known

    def promised(self, name: str, asked: float) -> None:
        """Another one has promised what it was asked at `asked`."""
        self._election.promised(name, asked)

    def promises(self, holder: str, session: str) -> bool:
        """Whether we promise that holder not to take the seat for `PROMISED` seconds."""
        return self._election.promises(holder, session, self._clock.now())

    @property
    def holder(self) -> str:
        """Who holds it, as far as it is known; "" for nobody."""
        record = self._election.record
        return record.holder if record is not None else ""

    @property
    def session_of_holder(self) -> str:
        """The process that holds it, or was the last to; "" as long as that is not known."""
        record = self._election.record
        return record.session if record is not None else ""

    @property
    def namesake(self) -> bool:
        """Whether another process of our name has it."""
        return self.holder == self._identity and not self._election.ours

    @property
    def serves(self) -> str:
        """Where the holder takes requests that are passed on; "" for nowhere, or when nobody holds it."""
        record = self._election.record
        return record.serves if record is not None and record.holder else ""

    @property
    def free_from(self) -> float:
        """From when it may be taken (monotonic seconds); inf as long as nobody has looked."""
        return self._election.free_from

    @property
    def heard_at(self) -> float:
        """When the record changed last, as far as it was seen (monotonic seconds); inf: it was never seen."""
        return self._election.changed_at

    async def run(self) -> None:
        """Take the seat and keep it; once it is lost or released, nothing more is done."""
        while self._election.state not in (CommandState.DEPOSED, CommandState.RELEASED):
            answered = await self._step()
            waits = self._election.pause(self._clock.now(), answered=answered)
            left_to_others = self._election.state is CommandState.STANDING_BY and self.free_from <= self._clock.now()
            await self._clock.sleep(max(waits, _ASK_AGAIN) if left_to_others else waits)
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Give the seat up, so that another can take it at once, or the place beside it; what prevents that is only
        logged.
        """
        if not self._election.release():
            await self._withdraw()
            return
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                while not await self._released():
                    await self._clock.sleep(_BESIDE)
        except (ApiAway, ApiRefused, TimeoutError) as error:
            log.warning("the command of %s is not given up, and lapses: %s", self._relay, error)

    async def _withdraw(self) -> None:
        """Register no longer: whoever holds the seat would have to ask us for promises, in vain, for `FORGOTTEN`."""
        if self.problem:
            return
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                found = await find(self._objects, LEASES, self._name)
                record = _record(found) if found is not None else None
                mine = record.peers.get(self._identity) if record is not None else None
                if record is None or mine is None or mine.session != self._session:
                    return
                note = {"annotations": {f"{_PEERS}{self._identity}": None}}
                await self._objects.patch(LEASES, self._name, {"metadata": note | unchanged(record.version)})
        except (ApiAway, ApiRefused, TimeoutError) as error:
            log.info("it is said for a while yet that this one stands by: %s", error)

    async def _released(self) -> bool:
        """Whether the record is not ours any more; it is when another one has just written beside us."""
        try:
            await self._write("")
        except ApiRefused as error:
            if not conflicts(error):
                raise
            found = await find(self._objects, LEASES, self._name)
            self._election.seen(None if found is None else _record(found), self._clock.now())
            return not self._election.ours
        return True

    async def _step(self) -> bool:
        """Read the record, or write it; whether there was an answer."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                if self._pod is None:
                    self._pod = await own_pod(self._objects, self._identity, self._address)
                if self._election.looks:
                    await self._look()
                if not self._election.looks or (self.willing() and self._election.takes(self._clock.now())):
                    await self._hold()
        except ApiRefused as error:
            self._election.refused()
            self.forbidden = forbids(error)
            if not conflicts(error):
                self._failed(str(error))
                return False
            return self._election.state is CommandState.STANDING_BY
        except (ApiAway, TimeoutError) as error:
            self._election.unanswered()
            self._failed(str(error) or "the cluster's API server does not answer in time")
            return False
        self.problem, self._answered, self.forbidden = "", True, False
        return True

    async def _look(self) -> None:
        found = await find(self._objects, LEASES, self._name)
        before = self._election.state
        self._election.seen(None if found is None else _record(found), self._clock.now())
        if self._election.registers(self._clock.now()):
            mine = Peer(self._address, self._session, round(self._clock.wall(), 3))
            note = {f"{_PEERS}{self._identity}": msgspec.json.encode(mine).decode()}
            found = await self._objects.patch(LEASES, self._name, {"metadata": {"annotations": note}})
            self._election.seen(_record(found), self._clock.now())
        doubted = self._election.doubted(self._clock.now())
        if doubted is not None and await pod_is_gone(self._objects, doubted.holder, doubted.pod):
            log.warning("%s, which commanded %s, has ended: Kubernetes has let its Pod go", doubted.holder, self._relay)
            self._election.ended(doubted)
        if self._election.state is CommandState.DEPOSED and before is not CommandState.DEPOSED:
            who = "another supervisor of the same name" if self.namesake else self.holder or "somebody"
            log.error("%s has taken the command of %s over", who, self._relay)
            self.lost.set()

    async def _hold(self) -> None:
        if self._election.state in (CommandState.DEPOSED, CommandState.RELEASED):
            return
        sent = self._clock.now()
        if self._election.state is CommandState.TAKING:
            self.unsure_until = self._unsure(sent)
        record = _record(await self._write(self._identity))
        first = not self.won.is_set()
        self._election.won(record, sent, self._clock.now())
        if first:
            log.info("in command of %s", self._relay)
            self.won.set()

    def _unsure(self, now: float) -> float:
        """Until when, as the record is taken: that is written with it, so that the next one knows as well."""
        promised, record = self._election.promised_until + MINUTE, self._election.record
        if record is None:
            return -math.inf
        if record.session != self._session:  # otherwise it is taken already, and only the answer was lost
            self.followed = record.session
            self.goes_on = self._before is not None and record.session == self._before.session
            if not self.goes_on:
                self.unsure_until = self._unsure_after(record, now)
        # One that we have promised to wait may have gone on, though it does not hold the record any more.
        return max(promised, self.unsure_until)

    def _unsure_after(self, record: LeaseRecord, now: float) -> float:
        """The same after a holder whose memory is not ours."""
        wall, until = self._clock.wall(), self._blind_until + MINUTE
        if self._knows is not None:
            until = -math.inf if self._knows(record.session) else now + MINUTE
        elif record.holder != self._identity:
            # Whoever did not know of us may have gone on until just now, or until its end, under other ones' promises.
            until = until if self._election.known or not record.holder else now + MINUTE
        elif wall - record.renewed_at > STOP_AFTER:
            # A container does not run twice at once: ours, and whom it had promised to wait, sent nothing later.
            alone = record.pod != "" and record.pod == self._pod
            until = self._began + PROMISED + MINUTE if alone else now + MINUTE
        # A clock that was wrong by hours, or a hand that was, would keep it from sending anything.
        return max(until, min(record.unsure_until - (wall - now), now + PROMISED + MINUTE) + CLOCKS_APART)

    async def _write(self, holder: str) -> Object:
        record = self._election.record
        at = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC)
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
        now = self._clock.now()
        gone = [*self._election.forgotten(now), *([] if holder else [self._identity])]
        notes: dict[str, str | None] = {f"{_PEERS}{name}": None for name in gone}
        until = max(self.unsure_until, self.unsaved_at() + MINUTE)
        unsure = f"{until - now + self._clock.wall():.3f}" if until > now else None
        if unsure is not None or record is not None:
            notes[_UNSURE] = unsure
        serves = self._serves if holder else ""
        if serves or record is not None:
            notes[_SERVES] = serves or None
        notes |= {_SESSION: self._session, _POD: f"{self._session} {self._pod or ''}"}
        metadata: dict[str, Any] = {"annotations": notes}
        if record is not None:
            change = {"metadata": metadata | unchanged(record.version), "spec": spec}
            return await self._objects.patch(LEASES, self._name, change)
        metadata |= {"name": self._name, "labels": {STATE_LABEL: self._relay}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return await self._objects.create(LEASES, body)

    def _failed(self, why: str) -> None:
        if not self._answered:
            self._blind_until = self._clock.now()
        if why != self.problem:
            log.warning("who commands %s cannot be settled: %s", self._relay, why)
        self.problem = why


def _record(found: Object) -> LeaseRecord:
    spec, notes = found.get("spec") or {}, found["metadata"].get("annotations") or {}
    peers = {name.removeprefix(_PEERS): _peer(text) for name, text in notes.items() if name.startswith(_PEERS)}
    holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    session, unsure, serves = str(notes.get(_SESSION, "")), _number(notes.get(_UNSURE)), str(notes.get(_SERVES, ""))
    whose, _, pod = str(notes.get(_POD, "")).partition(" ")
    pod, at = pod if whose == session else "", _moment(renewed)
    return LeaseRecord(holder, session, version_of(found), renewed, peers, at, unsure, serves, pod)


def _moment(text: str) -> float:
    """Unix seconds of a time of Kubernetes'; 0 for what is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _number(text: Any) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        return 0.0


def _peer(text: str) -> Peer:
    """How one has registered; one whose words cannot be read can promise nothing."""
    try:
        return msgspec.json.decode(text, type=Peer)
    except UNDECODABLE:
        return Peer()
