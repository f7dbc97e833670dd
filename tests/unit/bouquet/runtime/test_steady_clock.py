"""The clock without jumps: sleep of the machine, a frozen process, and a clock that is set."""

from bouquet.runtime.steady_clock import Deadlines, SteadyClock


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def run(self, clock: SteadyClock, seconds: int) -> None:
        """Pass seconds in which the process runs, so that its clock ticks."""
        for _ in range(seconds):
            self.now += 1
            clock.time()


def test_it_shows_the_time_of_the_wall_clock_while_the_process_runs() -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    wall.run(clock, 100)
    assert clock.time() == wall.now
    assert clock.jumped() == 0


def test_time_in_which_the_process_did_not_run_is_a_jump() -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    wall.run(clock, 10)
    wall.now += 75
    assert 73 <= clock.jumped() <= 75
    assert clock.time() <= 1012
    wall.run(clock, 10)
    assert 73 <= clock.jumped() <= 75


def test_a_step_of_the_clock_is_a_jump_in_either_direction() -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    for step in (60, -60):
        before = clock.time()
        wall.now += step
        assert abs(clock.time() - before) <= 1


def test_a_tick_that_comes_late_on_a_busy_machine_is_no_jump() -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    wall.now += 3
    assert clock.jumped() == 0
    wall.now -= 0.1
    assert clock.jumped() == 0


def test_deadlines_move_once_for_each_jump() -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    deadlines, moves = Deadlines(clock), list[float]()
    deadlines.shift(moves.append)
    assert moves == []
    wall.now -= 60
    deadlines.shift(moves.append)
    deadlines.shift(moves.append)
    assert moves == [-60]


def test_deadlines_that_could_not_be_moved_move_at_the_next_look() -> None:
    wall = Wall()
    deadlines, moves = Deadlines(SteadyClock(wall)), list[float]()
    wall.now -= 60

    def fail(seconds: float) -> None:
        raise OSError("the database is locked")

    try:
        deadlines.shift(fail)
    except OSError:
        deadlines.shift(moves.append)
    assert moves == [-60]
