"""The supervisor's decisions, with a fake clock and no process."""

from __future__ import annotations

import signal

import pytest

from gateway.service.context import EX_CONFIG, EX_SOFTWARE
from gateway.service.plan import (
    ABORT_GRACE,
    ADMIN,
    BACKOFF_FIRST,
    BACKOFF_MOST,
    HEARTBEAT_TIMEOUT,
    MUTE_FROM,
    READY_TIMEOUT,
    TICK,
    YOUNG,
    Action,
    Announce,
    Close,
    Commit,
    Death,
    Exit,
    Mute,
    Process,
    Send,
    Service,
    Spawn,
    Stop,
    Wait,
    plan,
)


class Simulation:
    """Carries out what plan says, the way the supervisor does, on processes that are only numbers."""

    def __init__(self, workers: int = 2, *, admin: bool = False) -> None:
        self.now, self.workers, self.admin = 1000.0, workers, admin
        self.service = Service(kill_after=32.0)
        self.service.begin(1, workers, admin=admin)
        self.pids = 0
        self.trail: list[Action] = []

    def step(self, *, after: float = 0.0) -> list[Action]:
        """What plan wants `after` seconds later; done."""
        self.now += after
        actions = plan(self.now, self.service)
        for action in actions:
            match action:
                case Spawn(slot):
                    self.pids += 1
                    slot.muted = False
                    new = Process(slot.number, self.service.generation, self.pids, self.now, self.now)
                    self.service.processes.append(new)
                case Mute(slot):
                    slot.muted = True
                case Send(process, number):
                    self._send(process, number)
                case Commit():
                    self.service.commit()
                case Announce():
                    self.service.announce()
                case Close():
                    self.service.closed = True
                case Stop(code, _):
                    self.service.stop(self.now, code)
        self.trail += actions
        return [action for action in actions if not isinstance(action, Wait)]

    def _send(self, process: Process, number: signal.Signals) -> None:
        if number is signal.SIGTERM:
            process.told = self.now
        elif number is signal.SIGABRT:
            process.aborted = self.now
        else:
            process.killed = True

    def beat(self) -> None:
        for process in self.service.processes:
            process.heartbeat = self.now

    def get_ready(self) -> None:
        for process in self.service.processes:
            process.ready = True

    def running(self) -> Simulation:
        self.step()
        self.get_ready()
        assert self.step() == [Commit(), Announce()]
        return self

    def reload(self) -> None:
        self.service.begin(self.service.generation + 1, self.workers, admin=self.admin)

    def die(self, process: Process, code: int = -9) -> Death:
        return self.service.bury(process, self.now, code, jitter=1.0)

    def of(self, generation: int) -> list[Process]:
        return [process for process in self.service.processes if process.generation == generation]


def test_start_fills_every_slot_and_is_announced_when_all_are_ready():
    service = Simulation(workers=2, admin=True)
    assert {action.slot.number for action in service.step()} == {ADMIN, 0, 1}
    assert service.step() == []
    service.service.processes[0].ready = service.service.processes[1].ready = True
    assert service.step() == []
    service.get_ready()
    assert service.step() == [Commit(), Announce()]
    assert service.step() == []


def test_nothing_happens_before_the_first_policy():
    assert plan(5.0, Service(kill_after=32.0)) == [Wait(TICK)]


def test_a_first_death_is_answered_at_once():
    service = Simulation().running()
    slot = service.service.slots[1]
    assert service.die(service.of(1)[1]) is Death.REPLACED
    assert service.step() == [Spawn(slot)]


def test_repeated_young_deaths_are_answered_with_doubling_delays_up_to_a_limit():
    service = Simulation(workers=1).running()
    delays = []
    for _ in range(12):
        service.die(service.of(1)[0])
        delays.append(service.service.slots[0].retry_at - service.now)
        if delays[-1]:
            assert not any(isinstance(action, Spawn) for action in service.step(after=delays[-1] * 0.99))
        assert any(isinstance(action, Spawn) for action in service.step(after=delays[-1]))
    assert delays[:5] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == BACKOFF_MOST


def test_a_process_that_lived_long_ends_the_row_of_failures():
    service = Simulation(workers=1).running()
    for _ in range(5):
        service.die(service.of(1)[0])
        service.step(after=60.0)
    service.beat()
    service.step(after=YOUNG)
    service.die(service.of(1)[0])
    assert service.service.slots[0].failures == 0
    assert isinstance(service.step()[0], Spawn)


def test_a_slot_that_stays_empty_for_a_while_stops_listening_once():
    service = Simulation().running()
    slot = service.service.slots[0]
    slot.failures = 5
    service.die(service.of(1)[0])
    assert service.step() == [Mute(slot)]
    assert service.step() == []
    assert service.step(after=2.0) == [Spawn(slot)]


def test_waits_end_when_the_next_thing_is_due():
    service = Simulation(workers=1).running()
    assert service.trail[-1] == Wait(TICK)
    service.service.slots[0].failures = 1
    service.die(service.of(1)[0])
    service.step()
    assert service.trail[-1].seconds == pytest.approx(0.1)


def test_exit_78_is_not_answered_with_another_try():
    service = Simulation().running()
    slot = service.service.slots[0]
    assert service.die(service.of(1)[0], EX_CONFIG) is Death.GIVEN_UP
    assert service.step(after=1.0) == [Mute(slot)]
    service.beat()
    assert service.step(after=10.0) == []


def test_when_every_worker_gave_up_the_service_stops_with_78():
    service = Simulation(admin=True).running()
    for process in service.of(1)[1:]:
        service.die(process, EX_CONFIG)
    (stop,) = service.step()
    assert stop.code == EX_CONFIG
    service.step()
    for process in service.of(1):
        assert service.die(process, 0) is Death.EXPECTED
    assert service.step() == [Exit(EX_CONFIG)]


def test_death_of_every_worker_in_its_first_seconds_stops_a_new_service():
    service = Simulation()
    service.step()
    first, second = service.of(1)
    service.die(first)
    assert isinstance(service.step(after=0.1)[0], Spawn)
    service.die(second)
    (stop,) = service.step()
    assert stop.code == EX_SOFTWARE
    assert "every worker died" in stop.why


def test_the_same_deaths_do_not_stop_a_service_that_was_once_ready():
    service = Simulation().running()
    for process in service.of(1):
        service.die(process)
    assert all(isinstance(action, Spawn) for action in service.step())


def test_a_new_generation_replaces_the_old_only_when_all_of_it_is_ready():
    service = Simulation().running()
    service.reload()
    assert [type(action) for action in service.step()] == [Spawn, Spawn]
    service.of(2)[0].ready = True
    assert service.step() == []
    service.of(2)[1].ready = True
    assert service.step() == [Commit(), *(Send(process, signal.SIGTERM) for process in service.of(1))]
    assert service.step() == []
    assert service.service.draining
    for process in service.of(1):
        assert service.die(process, 0) is Death.EXPECTED
    assert service.step() == [Announce()]
    assert not service.service.draining


def test_a_new_generation_is_announced_when_nothing_older_accepts_connections():
    service = Simulation().running()
    service.reload()
    service.step()
    service.get_ready()
    assert Commit() in service.step()
    lets_go, dies = service.of(1)
    lets_go.accepting = False
    assert service.step() == []
    assert service.die(dies) is Death.EXPECTED
    assert service.step() == [Announce()]
    assert service.step() == []
    assert service.service.draining


def test_an_old_worker_that_is_stuck_holds_the_announcement_up_no_longer_than_it_may_live():
    service = Simulation(workers=1).running()
    service.reload()
    service.step()
    service.get_ready()
    service.step()
    (stuck,) = service.of(1)
    for _ in range(int(HEARTBEAT_TIMEOUT + ABORT_GRACE)):
        service.step(after=1.0)
        service.of(2)[0].heartbeat = service.now
    assert stuck.killed
    assert service.service.announced == 1
    service.die(stuck)
    assert service.step() == [Announce()]


def test_a_roll_back_is_not_announced():
    service = Simulation().running()
    service.reload()
    service.step()
    service.die(service.of(2)[0], 1)
    service.service.roll_back(2, admin=False)
    service.step()
    service.die(service.of(2)[0], 0)
    assert service.step() == []


def test_a_death_before_readiness_gives_the_new_generation_up_and_keeps_the_old():
    service = Simulation().running()
    service.reload()
    service.step()
    failed, other = service.of(2)
    assert service.die(failed, 1) is Death.ROLLED_BACK
    service.service.roll_back(2, admin=False)
    assert service.step() == [Send(other, signal.SIGTERM)]
    assert service.die(other, 0) is Death.EXPECTED
    assert service.step() == []
    assert [process.told for process in service.of(1)] == [None, None]


def test_an_old_worker_that_dies_during_a_reload_is_replaced_only_after_a_roll_back():
    service = Simulation().running()
    service.reload()
    service.step()
    assert service.die(service.of(1)[0]) is Death.OUTLIVED
    assert service.step() == []
    service.die(service.of(2)[0])
    service.service.roll_back(2, admin=False)
    assert Spawn(service.service.slots[0]) in service.step()


def test_a_death_after_readiness_does_not_roll_back():
    service = Simulation().running()
    service.reload()
    service.step()
    service.get_ready()
    service.step()
    assert service.die(service.of(2)[0]) is Death.REPLACED


def test_a_missed_heartbeat_is_answered_by_abort_then_kill():
    service = Simulation(workers=1).running()
    (worker,) = service.of(1)
    assert service.step(after=HEARTBEAT_TIMEOUT - 0.1) == []
    assert service.step(after=0.2) == [Send(worker, signal.SIGABRT)]
    assert service.step(after=ABORT_GRACE - 0.1) == []
    assert service.step(after=0.2) == [Send(worker, signal.SIGKILL)]
    assert service.step(after=60.0) == []


def test_a_pause_of_the_supervisor_itself_is_not_held_against_its_children():
    service = Simulation(workers=1).running()
    service.now += 3600.0
    service.service.awake_since = service.now
    assert service.step() == []
    assert service.step(after=HEARTBEAT_TIMEOUT) == [Send(service.of(1)[0], signal.SIGABRT)]


def test_a_process_that_never_gets_ready_is_aborted():
    service = Simulation(workers=1)
    service.step()
    for _ in range(int(READY_TIMEOUT) - 1):
        assert service.step(after=1.0) == []
        service.beat()
    assert service.step(after=1.0) == [Send(service.of(1)[0], signal.SIGABRT)]


def test_stopping_drains_then_kills_at_the_deadline_then_exits_0():
    service = Simulation().running()
    polite, stubborn = service.of(1)
    service.service.stop(service.now)
    assert service.step() == [Close(), Send(polite, signal.SIGTERM), Send(stubborn, signal.SIGTERM)]
    service.die(polite, 0)
    assert service.step(after=20.0) == []
    service.beat()
    assert service.step(after=11.9) == []
    assert service.step(after=0.2) == [Send(stubborn, signal.SIGKILL)]
    service.die(stubborn, -9)
    assert service.step() == [Exit(0)]


def test_the_admin_process_is_stopped_last():
    service = Simulation(workers=1, admin=True).running()
    admin, worker = service.of(1)
    service.service.stop(service.now)
    assert service.step() == [Close(), Send(worker, signal.SIGTERM)]
    service.die(worker, 0)
    assert service.step() == [Send(admin, signal.SIGTERM)]
    service.die(admin, 0)
    assert service.step() == [Exit(0)]


def test_a_second_request_to_stop_kills_at_once():
    service = Simulation(workers=1).running()
    service.service.stop(service.now)
    service.step()
    service.service.stop(service.now)
    assert service.step() == [Send(service.of(1)[0], signal.SIGKILL)]


def test_nothing_is_started_while_stopping():
    service = Simulation().running()
    service.service.stop(service.now)
    service.step()
    service.die(service.of(1)[0])
    assert service.step() == []


# --- unready before it stops ------------------------------------------------------------------------------------------


def delayed(delay: float = 10.0) -> Simulation:
    service = Simulation().running()
    service.service.drain_delay = delay
    return service


def test_a_service_that_stops_is_unready_at_once_and_closes_its_ports_after_the_delay():
    service = delayed()
    service.service.stop(service.now)
    assert service.service.unready_since == service.now
    assert service.step() == []
    assert service.step(after=9.9) == []
    assert service.trail[-1].seconds == pytest.approx(0.1)
    assert service.step(after=0.1) == [Close(), *(Send(process, signal.SIGTERM) for process in service.of(1))]
    for process in service.of(1):
        service.die(process, 0)
    assert service.step() == [Exit(0)]


def test_until_its_ports_close_who_dies_is_replaced():
    service = delayed()
    service.service.stop(service.now)
    slot = service.service.slots[0]
    assert service.die(service.of(1)[0]) is Death.REPLACED
    assert service.step() == [Spawn(slot)]
    service.step(after=10.0)
    assert service.die(service.of(1)[0]) is Death.EXPECTED
    assert not any(isinstance(action, Spawn) for action in service.step())


def test_the_delay_counts_from_when_it_was_made_unready():
    service = delayed()
    service.service.hide(service.now)
    service.service.hide(service.now + 5.0)
    assert service.step(after=6.0) == []
    service.service.stop(service.now)
    assert service.service.closing_at == service.now + 4.0
    late = delayed()
    late.service.hide(late.now - 60.0)
    late.service.stop(late.now)
    assert late.service.closing_at == late.now


def test_it_can_be_made_ready_again_unless_it_is_to_stop():
    service = delayed().service
    service.hide(1.0)
    service.show()
    assert service.unready_since is None
    service.stop(2.0)
    service.show()
    assert service.unready_since == 2.0


def test_a_second_request_does_not_wait_for_the_delay():
    service = delayed()
    service.service.stop(service.now)
    service.step(after=1.0)
    service.service.stop(service.now)
    assert service.step()[0] == Close()
    assert service.step() == [Send(process, signal.SIGKILL) for process in service.of(1)]


@pytest.mark.parametrize("code", [EX_CONFIG, EX_SOFTWARE])
def test_a_service_that_cannot_go_on_does_not_wait_for_the_delay(code):
    service = delayed()
    service.service.stop(service.now, code)
    assert service.step()[0] == Close()
    assert service.service.exit_code == code


def test_a_service_that_was_never_ready_does_not_wait_for_the_delay():
    service = Simulation()
    service.service.drain_delay = 10.0
    service.step()
    service.service.stop(service.now)
    assert service.step()[0] == Close()


def test_a_hopeless_service_that_is_to_stop_anyway_keeps_its_exit_code():
    service = delayed()
    service.service.stop(service.now)
    for process in service.of(1):
        service.die(process, EX_CONFIG)
    assert not any(isinstance(action, Stop) for action in service.step())
    assert service.step(after=10.0) == [Close(), Exit(0)]


# --- going on with what another program has started -------------------------------------------------------------------


def adopted() -> Simulation:
    service = Simulation()
    service.service = Service(kill_after=32.0)
    service.service.processes += [Process(n, 7, 100 + n, service.now, service.now, ready=True) for n in range(2)]
    service.service.adopt(7, 2, admin=False)
    return service


def test_an_adopted_generation_goes_on_and_is_neither_committed_nor_announced_again():
    service = adopted()
    assert service.step() == []
    slot = service.service.slots[1]
    assert service.die(service.of(7)[1]) is Death.REPLACED
    assert service.step() == [Spawn(slot)]


def test_a_generation_of_the_new_program_replaces_the_adopted_one():
    service = adopted()
    service.reload()
    assert [type(action) for action in service.step()] == [Spawn, Spawn]
    service.get_ready()
    assert service.step() == [Commit(), *(Send(process, signal.SIGTERM) for process in service.of(7))]


def test_when_the_new_program_fails_the_adopted_generation_stays():
    service = adopted()
    service.reload()
    service.step()
    assert service.die(service.of(8)[0], 1) is Death.ROLLED_BACK
    service.service.roll_back(2, admin=False)
    assert service.service.generation == service.service.announced == 7
    assert service.step() == [Send(process, signal.SIGTERM) for process in service.of(8)]


# --- what nothing else holds ------------------------------------------------------------------------------------------


def test_delays_are_spread_so_that_slots_that_fail_together_do_not_start_together():
    delays = []
    for jitter in (0.0, 0.5, 1.0):
        service = Simulation(workers=1).running()
        service.service.slots[0].failures = 1
        service.service.bury(service.of(1)[0], service.now, -9, jitter)
        delays.append(service.service.slots[0].retry_at - service.now)
    assert delays == pytest.approx([0.05, 0.075, 0.1])


def test_waits_end_when_a_process_has_outlived_its_drain():
    service = Simulation(workers=1).running()
    service.service.stop(service.now)
    service.step()
    service.step(after=31.75)
    assert service.trail[-1].seconds == pytest.approx(0.25)


def test_a_roll_back_gives_every_slot_a_fresh_start():
    service = Simulation().running()
    service.reload()
    service.step()
    service.service.slots[0].failures = 9
    service.service.roll_back(2, admin=True)
    assert [(slot.number, slot.failures) for slot in service.service.slots.values()] == [(ADMIN, 0), (0, 0), (1, 0)]


def test_a_slot_goes_on_listening_through_a_delay_that_is_shorter_than_a_client_minds():
    service = Simulation().running()
    slot = service.service.slots[0]
    service.die(service.of(1)[0])
    slot.retry_at = service.now + MUTE_FROM / 2
    assert service.step() == []
    slot.retry_at = service.now + MUTE_FROM
    assert service.step() == [Mute(slot)]


def test_an_admin_process_that_is_ready_does_not_make_a_service_without_workers_hopeful():
    service = Simulation(workers=1, admin=True)
    service.step()
    admin, worker = service.of(1)
    admin.ready = True
    service.die(worker)
    (stop,) = service.step()
    assert stop.code == EX_SOFTWARE


def test_a_worker_that_is_ready_keeps_a_new_service_going_when_the_others_die():
    service = Simulation(workers=2)
    service.step()
    first, second = service.of(1)
    first.ready = True
    service.service.slots[0].failures = 1
    service.die(second)
    assert not any(isinstance(action, Stop) for action in service.step())


def test_the_grace_after_an_abort_ends_on_time():
    service = Simulation(workers=1).running()
    (worker,) = service.of(1)
    service.step(after=HEARTBEAT_TIMEOUT)
    assert worker.aborted == service.now
    assert service.step(after=ABORT_GRACE) == [Send(worker, signal.SIGKILL)]


def test_patience_is_what_the_operations_guide_says():
    assert (HEARTBEAT_TIMEOUT, ABORT_GRACE, YOUNG) == (30.0, 5.0, 5.0)
    assert (BACKOFF_FIRST, BACKOFF_MOST, MUTE_FROM) == (0.1, 30.0, 1.0)
    assert (READY_TIMEOUT, TICK) == (60.0, 1.0)


def test_a_clock_may_begin_at_zero():
    service = Service(kill_after=32.0)
    service.begin(1, 1, admin=False)
    (spawn, _) = plan(0.0, service)
    assert spawn == Spawn(service.slots[0])
    service.processes.append(Process(0, 1, 1, started=0.0, heartbeat=0.5, ready=True))
    assert plan(HEARTBEAT_TIMEOUT + 0.5, service)[0] == Send(service.processes[0], signal.SIGABRT)


def test_a_slot_that_was_never_filled_can_be_muted():
    service = Simulation(workers=1)
    slot = service.service.slots[0]
    slot.retry_at = service.now + 5.0
    assert service.step() == [Mute(slot)]


def test_a_generation_with_nothing_before_it_is_not_rolled_back():
    service = adopted()
    slot = service.service.slots[1]
    service.die(service.of(7)[1])
    service.step()
    assert service.die(service.of(7)[1]) is Death.REPLACED, "adopted, with a new process that was not ready"
    service = Simulation().running()
    service.reload()
    service.step()
    service.die(service.of(2)[0], 1)
    service.service.roll_back(2, admin=False)
    service.die(service.of(1)[0])
    service.step()
    slot = service.service.slots[0]
    (replaced,) = [process for process in service.of(1) if process.slot == slot.number]
    assert service.die(replaced) is Death.REPLACED, "gone back to once already"


def test_a_ready_process_of_a_generation_that_is_not_complete_is_replaced():
    service = Simulation().running()
    service.reload()
    service.step()
    early = service.of(2)[0]
    early.ready = True
    assert service.die(early) is Death.REPLACED


def test_a_death_between_the_request_to_stop_and_the_next_look_is_expected():
    service = Simulation().running()
    service.service.stop(service.now)
    assert service.die(service.of(1)[0]) is Death.EXPECTED


def test_a_process_that_was_killed_hides_no_other():
    service = Simulation().running()
    killed, stuck = service.of(1)
    killed.killed = True
    assert service.step(after=HEARTBEAT_TIMEOUT) == [Send(stuck, signal.SIGABRT)]


def test_what_is_hopeless_is_said_and_done_at_once():
    service = Simulation()
    service.step()
    for process in service.of(1):
        service.die(process, EX_CONFIG)
    assert service.step() == [Stop(EX_CONFIG, "no worker can start with this configuration")]
    assert service.trail[-1] == Wait(0.0)
    service = Simulation()
    service.step()
    failed, misconfigured = service.of(1)
    service.die(failed)
    service.die(misconfigured, EX_CONFIG)
    assert service.step() == [Stop(EX_SOFTWARE, "every worker died within seconds of its start")]


def test_one_ready_worker_is_hope_enough():
    service = Simulation(workers=3)
    service.step()
    first, second, third = service.of(1)
    first.ready = True
    service.service.slots[first.slot].failures = service.service.slots[third.slot].failures = 1
    service.die(second)
    assert not any(isinstance(action, Stop) for action in service.step())


def test_a_process_of_an_older_generation_that_was_not_told_is_told():
    service = Simulation(workers=1).running()
    service.service.begin(2, 1, admin=False)
    service.step()
    service.service.commit()
    (old,) = service.of(1)
    service.of(2)[0].ready = True
    assert Send(old, signal.SIGTERM) in service.step()


def test_a_generation_that_was_rolled_back_is_told_at_once_even_when_the_one_before_is_not_ready_again():
    service = Simulation(workers=1)
    service.step()
    service.reload()
    service.step()
    (given_up,) = service.of(2)
    service.service.roll_back(1, admin=False)
    assert service.step() == [Send(given_up, signal.SIGTERM)]


def test_waits_are_no_busy_loops():
    service = Simulation(workers=1).running()
    service.service.stop(service.now)
    service.step()
    service.step(after=service.service.kill_after)
    assert service.of(1)[0].killed
    service.step(after=5.0)
    assert service.trail[-1] == Wait(TICK), "nothing is due for one that was killed"
    service = Simulation().running()
    service.die(service.of(1)[0], EX_CONFIG)
    service.step()
    assert service.trail[-1] == Wait(TICK), "nor for a slot that was given up"
    service = Simulation().running()
    service.service.stop(service.now)
    service.die(service.of(1)[0])
    service.step()
    service.step()
    assert service.trail[-1] == Wait(TICK), "nor for an empty one, while stopping"


def test_a_process_of_an_old_generation_does_not_fill_a_slot_of_the_new_one():
    service = Simulation(workers=1).running()
    service.reload()
    service.step()
    service.get_ready()
    service.step()
    service.service.slots[0].failures = 1
    service.die(service.of(2)[0])
    service.step()
    assert service.trail[-1].seconds == pytest.approx(0.1)
