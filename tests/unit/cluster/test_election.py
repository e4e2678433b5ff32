"""Who commands, by the record of the Lease and local time alone."""

from __future__ import annotations

from relay_supervisor.cluster.election import (
    AWAY_AFTER,
    DURATION,
    FORGOTTEN,
    MOST_AWAY,
    PROMISED,
    REGISTER_EVERY,
    STOP_AFTER,
    CommandState,
    Election,
    LeaseRecord,
    Peer,
)


def of(holder: str, version: int, session: str = "s", **peers: Peer) -> LeaseRecord:
    return LeaseRecord(holder, session, str(version), f"renewed {version}", peers)


def holder(now: float) -> Election:
    election = Election("a", "s")
    election.seen(None, now)
    assert election.takes(now)
    election.won(of("a", 1), now, now)
    return election


def test_a_free_record_is_taken_at_once_and_so_is_that_of_an_earlier_life() -> None:
    assert holder(5.0).in_command(5.0)
    for record in (None, of("", 4), of("a", 4, "an earlier life")):
        election = Election("a", "s")
        assert not election.takes(5.0), "nobody has looked"
        election.seen(record, 5.0)
        assert election.takes(5.0)


def test_a_record_under_our_name_is_not_taken_at_once_from_one_that_lives() -> None:
    """Two of one name would take it from each other for ever."""
    election = Election("a", "s", namesake=True)
    for n in range(4):
        election.seen(of("a", n, "the other's", a=Peer(session="s")), 2.0 * n)
        assert not election.takes(2.0 * n)
    assert election.takes(6.0 + DURATION)


def test_anothers_record_is_taken_when_it_has_not_changed_for_its_duration_by_our_clock() -> None:
    election = Election("b", "t")
    for n in range(10):
        election.seen(of("a", n, b=Peer(session="t")), 2.0 * n)
        assert not election.takes(2.0 * n)
    election.seen(of("a", 9, b=Peer(session="t")), 20.0)
    assert not election.takes(18.0 + DURATION - 0.01)
    assert election.pause(28.5, answered=True) == 1.5, "it wakes when the record lapses"
    assert election.takes(18.0 + DURATION)


def test_the_holder_stops_before_anybody_can_have_seen_its_record_lapse() -> None:
    election = holder(5.0)
    election.won(of("a", 2), 7.0, 9.9)
    assert election.in_command(7.0 + STOP_AFTER - 0.01), "from when it was sent, not from when it was answered"
    assert not election.in_command(7.0 + STOP_AFTER)
    assert election.state is CommandState.UNCONFIRMED
    election.won(of("a", 3), 60.0, 60.1)
    assert election.in_command(61.0), "nobody had taken it"
    assert STOP_AFTER < DURATION


def test_a_refused_renewal_is_looked_into_and_deposes_only_if_another_has_the_record() -> None:
    election = holder(5.0)
    election.refused()
    assert election.looks
    election.seen(of("a", 2), 6.0)
    assert election.in_command(6.0), "the answer to our own renewal was lost"
    for taker in (of("b", 3), of("a", 3, "a process of the same name"), None):
        election = holder(5.0)
        election.refused()
        election.seen(taker, 6.0)
        assert election.state is CommandState.DEPOSED
        assert not election.in_command(6.0)


def test_a_renewal_that_is_answered_too_late_does_not_command() -> None:
    election = holder(5.0)
    election.won(of("a", 2), 6.0, 6.0 + STOP_AFTER)
    assert not election.in_command(6.0 + STOP_AFTER)


def test_taking_may_fail_and_is_tried_again() -> None:
    election = Election("b", "t")
    election.seen(of("", 1), 5.0)
    assert election.takes(5.0)
    election.unanswered()
    assert election.takes(6.0), "nobody knows: it is written again, in the version that was seen"
    election.refused()
    assert not election.takes(7.0)
    election.seen(of("c", 2), 7.0)
    assert not election.takes(7.0)


def test_what_is_released_is_not_taken_again() -> None:
    election = holder(5.0)
    assert election.release()
    assert not election.in_command(5.0)
    assert not election.takes(50.0)
    assert not election.release(), "it is no longer ours to give up"


def test_whoever_the_holder_may_not_know_of_waits_until_no_promise_can_help() -> None:
    election = Election("b", "t")
    election.seen(of("a", 1), 0.0)
    assert election.registers(0.0)
    election.seen(of("a", 1, b=Peer(session="t")), 0.0)
    assert not election.registers(1.0)
    assert election.registers(REGISTER_EVERY), "again, so that it is not forgotten"
    assert not election.takes(DURATION), "the holder has not written since: it may go on without asking"
    assert election.takes(MOST_AWAY + DURATION)


def test_a_registration_of_an_earlier_life_is_none() -> None:
    election = Election("b", "t")
    election.seen(of("a", 1, b=Peer(session="an earlier one")), 0.0)
    assert election.registers(0.0)
    election.seen(of("a", 2, b=Peer(session="an earlier one")), 2.0)
    assert not election.takes(2.0 + DURATION)


def test_a_holder_extends_on_while_every_other_one_promises_and_no_longer() -> None:
    election = holder(5.0)
    election.won(of("a", 2, b=Peer(), c=Peer(), a=Peer()), 7.0, 7.1)
    assert not election.wants_promises(9.9)
    assert election.wants_promises(10.0)
    election.promised("b", 12.0)
    assert not election.may_extend(7.0 + STOP_AFTER), "c has not promised"
    election.promised("c", 13.0)
    assert election.may_extend(12.0 + PROMISED - 0.01)
    assert not election.in_command(20.0)
    assert not election.may_extend(12.0 + PROMISED), "from when it was asked"
    for asked in range(22, 700, 3):
        election.promised("b", asked)
        election.promised("c", asked)
    assert election.may_extend(7.0 + MOST_AWAY - 0.01)
    assert not election.may_extend(7.0 + MOST_AWAY)


def test_a_promise_is_given_only_while_the_server_is_away_and_is_kept() -> None:
    election = Election("b", "t")
    for n in range(3):
        election.seen(of("a", n, b=Peer(session="t")), 2.0 * n)
    assert not election.promises("a", "s", 4.0 + AWAY_AFTER - 0.01), "the server has answered"
    assert not election.promises("c", "s", 15.0)
    assert not election.promises("a", "another process", 15.0)
    assert election.promises("a", "s", 15.0)
    assert not election.takes(15.0 + PROMISED - 0.01)
    assert election.takes(15.0 + PROMISED)
    assert not election.promises("a", "s", 25.0), "it is taking the record"


def test_one_that_started_without_the_server_promises_to_whoever_asks_and_keeps_it_whatever_it_reads() -> None:
    for record in (of("", 4), None, of("b", 4, "an earlier life"), of("c", 4, b=Peer(session="earlier"))):
        election = Election("b", "t")
        assert election.promises("a", "s", 100.0)
        election.seen(record, 101.0)
        given_up = record is not None and not record.holder
        assert election.takes(101.0) == given_up, "it holds it no longer, so it asks no more"
        assert election.takes(100.0 + PROMISED) == (record is None or record.holder == "b")
        assert not election.promises("a", "s", 100.0 + PROMISED + AWAY_AFTER), "it knows better now"


def test_who_does_not_register_again_is_forgotten() -> None:
    election = holder(5.0)
    election.won(of("a", 2, b=Peer(at=1.0), c=Peer(at=1.0)), 7.0, 7.0)
    election.won(of("a", 3, b=Peer(at=2.0), c=Peer(at=1.0)), 40.0, 40.0)
    assert election.forgotten(7.0 + FORGOTTEN) == ["c"]


def test_a_promise_ends_when_who_got_it_gives_the_record_up() -> None:
    election = Election("b", "t")
    election.seen(of("a", 1, b=Peer(session="t")), 0.0)
    assert election.promises("a", "s", 10.0)
    election.seen(of("", 2, b=Peer(session="t")), 11.0)
    assert election.takes(11.0)
