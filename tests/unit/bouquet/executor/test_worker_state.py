"""Every transition of a worker from every phase, and every deadline. Time is a number that the test passes."""

from collections.abc import Callable

import pytest

from bouquet.executor.worker_state import (
    Deadline,
    ForbiddenTransitionError,
    Limits,
    Phase,
    TaskInHand,
    WorkerState,
)

IDLE, WORKING, RETIRED, ENDING, EXITED = Phase
LIMITS = Limits(idle_seconds=300, task_seconds=60, heartbeat_seconds=5, kill_grace_seconds=1)
START, NOW = 1000.0, 1010.0  # when the worker started and got its task; when the transition under test happens


def idle() -> WorkerState:
    return WorkerState(LIMITS, START)


def working() -> WorkerState:
    state = idle()
    state.assign("token", START)
    return state


def retired() -> WorkerState:
    state = working()
    state.done(False, START)
    return state


def ending() -> WorkerState:
    """It was told to end while it was idle."""
    state = idle()
    state.end("was told to", START)
    return state


def ending_with_task() -> WorkerState:
    state = working()
    state.end("was told to", START)
    return state


def exited() -> WorkerState:
    state = idle()
    state.exited(START)
    return state


def exited_with_task() -> WorkerState:
    state = working()
    state.exited(START)
    return state


STATES = [idle, working, retired, ending, ending_with_task, exited, exited_with_task]

TRANSITIONS: dict[str, Callable[[WorkerState], None]] = {
    "assign": lambda state: state.assign("next token", NOW),
    "pulled": lambda state: state.pulled(b"message"),
    "replied": lambda state: state.replied(),
    "done, usable": lambda state: state.done(True, NOW),
    "done, not usable": lambda state: state.done(False, NOW),
    "heartbeat": lambda state: state.heartbeat(NOW),
    "end": lambda state: state.end("was told to", NOW),
    "time_out": lambda state: state.time_out(NOW),
    "channel_closed": lambda state: state.channel_closed(NOW),
    "killed": lambda state: state.killed(NOW),
    "exited": lambda state: state.exited(NOW),
}

ALLOWED: dict[tuple[str, Callable[[], WorkerState]], Phase] = {
    ("assign", idle): WORKING,
    ("pulled", working): WORKING,
    ("pulled", ending_with_task): ENDING,
    ("pulled", exited_with_task): EXITED,
    ("replied", working): WORKING,
    ("replied", ending_with_task): ENDING,
    ("replied", exited_with_task): EXITED,
    ("done, usable", working): IDLE,
    ("done, usable", ending_with_task): ENDING,
    ("done, usable", exited_with_task): EXITED,
    ("done, not usable", working): RETIRED,
    ("done, not usable", ending_with_task): ENDING,
    ("done, not usable", exited_with_task): EXITED,
    ("heartbeat", working): WORKING,
    ("end", idle): ENDING,
    ("end", working): ENDING,
    ("end", retired): ENDING,
    ("time_out", working): ENDING,
    ("channel_closed", idle): ENDING,
    ("channel_closed", working): ENDING,
    ("channel_closed", retired): ENDING,
    ("channel_closed", ending): ENDING,
    ("channel_closed", ending_with_task): ENDING,
    ("killed", retired): ENDING,
    ("killed", ending): ENDING,
    ("killed", ending_with_task): ENDING,
    ("exited", idle): EXITED,
    ("exited", working): EXITED,
    ("exited", retired): EXITED,
    ("exited", ending): EXITED,
    ("exited", ending_with_task): EXITED,
}


def snapshot(state: WorkerState) -> tuple[object, ...]:
    return state.phase, state.since, state.task, state.channel_open, state.end_reason, state.deadlines()


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("make", STATES)
def test_a_transition_leads_to_its_phase_or_is_forbidden_and_changes_nothing(
    make: Callable[[], WorkerState], transition: str
) -> None:
    state = make()
    if (phase := ALLOWED.get((transition, make))) is not None:
        TRANSITIONS[transition](state)
        assert state.phase is phase
        return
    before = snapshot(state)
    with pytest.raises(ForbiddenTransitionError, match=f"{transition.partition(',')[0]}: the worker is "):
        TRANSITIONS[transition](state)
    assert snapshot(state) == before


def test_a_closed_channel_closes_once() -> None:
    state = idle()
    state.channel_closed(NOW)
    assert not state.channel_open
    with pytest.raises(ForbiddenTransitionError, match="closed already"):
        state.channel_closed(NOW)


@pytest.mark.parametrize("make", STATES)
def test_end_is_allowed_where_can_end_says_so(make: Callable[[], WorkerState]) -> None:
    assert make().can_end is (("end", make) in ALLOWED)


def test_a_task_has_what_was_reported_about_it_until_it_is_done() -> None:
    state = working()
    assert state.task == TaskInHand("token")
    state.pulled(b"message")
    assert state.task == TaskInHand("token", b"message")
    state.replied()
    assert state.task == TaskInHand("token", b"message", replied=True)
    state.done(True, NOW)
    assert state.task is None
    state.assign("next token", NOW)
    assert state.task == TaskInHand("next token")


def test_a_worker_that_ends_or_exits_keeps_its_task() -> None:
    state = working()
    state.end("was told to", NOW)
    state.replied()
    state.exited(NOW)
    assert state.task == TaskInHand("token", replied=True)


def test_the_first_reason_for_the_end_stays() -> None:
    state = working()
    state.end("was ended with its run", NOW)
    state.channel_closed(NOW)
    state.killed(NOW)
    state.exited(NOW)
    assert state.end_reason == "was ended with its run"


def test_a_worker_that_ended_by_itself_has_no_reason() -> None:
    state = working()
    state.channel_closed(NOW)
    state.exited(NOW)
    assert state.end_reason is None


def test_a_worker_that_closed_its_channel_and_stayed_was_killed_for_that() -> None:
    state = working()
    state.channel_closed(NOW)
    state.killed(NOW)
    assert state.end_reason == "did not end after its channel was closed"


def test_a_timeout_names_the_limit() -> None:
    state = working()
    state.time_out(NOW)
    assert state.end_reason == "took longer than 60 s and was killed"


@pytest.mark.parametrize(
    ("make", "deadlines"),
    [
        (idle, {Deadline.IDLE_LIMIT: START + 300}),
        (working, {Deadline.TASK_LIMIT: START + 60, Deadline.HEARTBEAT: START + 5}),
        (retired, {Deadline.KILL: START + 1}),
        (ending, {Deadline.KILL: START + 1}),
        (ending_with_task, {Deadline.KILL: START + 1}),
        (exited, {}),
        (exited_with_task, {}),
    ],
)
def test_each_phase_has_its_deadlines(make: Callable[[], WorkerState], deadlines: dict[Deadline, float]) -> None:
    state = make()
    assert state.deadlines() == deadlines
    assert state.due(START) is None
    for deadline, at in deadlines.items():
        assert state.due(at - 0.001) is not deadline
        assert state.due(at) is deadline


def test_a_task_without_a_limit_has_heartbeats_only() -> None:
    state = WorkerState(Limits(idle_seconds=300), START)
    state.assign("token", START)
    assert state.deadlines() == {Deadline.HEARTBEAT: START + 5}


def test_the_task_limit_comes_before_a_heartbeat() -> None:
    assert working().due(START + 1000) is Deadline.TASK_LIMIT


def test_a_heartbeat_moves_the_next_one_and_no_other_deadline() -> None:
    state = working()
    state.heartbeat(NOW)
    assert state.deadlines() == {Deadline.TASK_LIMIT: START + 60, Deadline.HEARTBEAT: NOW + 5}


def test_the_next_task_has_its_own_limits() -> None:
    state = working()
    state.done(True, NOW)
    assert state.deadlines() == {Deadline.IDLE_LIMIT: NOW + 300}
    state.assign("next token", NOW + 20)
    assert state.deadlines() == {Deadline.TASK_LIMIT: NOW + 80, Deadline.HEARTBEAT: NOW + 25}


def test_a_worker_that_survives_the_kill_is_killed_again_after_the_grace_time() -> None:
    state = ending()
    assert state.due(NOW) is Deadline.KILL
    state.killed(NOW)
    assert state.due(NOW) is None
    assert state.due(NOW + 1) is Deadline.KILL


def test_what_an_ending_worker_reports_does_not_delay_its_kill() -> None:
    state = ending_with_task()
    state.done(True, NOW)
    state.channel_closed(NOW)
    assert state.deadlines() == {Deadline.KILL: START + 1}
