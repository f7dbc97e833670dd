from bouquet.restart_policy import RestartPolicy


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pauses_after(policy: RestartPolicy, clock: Clock, *lives: float) -> list[float]:
    """The pause after each of these lives, in seconds."""
    pauses = []
    for life in lives:
        policy.note_start()
        clock.now += life
        pauses.append(policy.next_pause())
    return pauses


def test_the_pause_doubles_with_each_short_life_up_to_the_longest() -> None:
    clock = Clock()
    policy = RestartPolicy(clock=clock)
    assert pauses_after(policy, clock, *[0.1] * 8) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_steady_process_is_restarted_at_once_and_the_pause_starts_over() -> None:
    clock = Clock()
    policy = RestartPolicy(clock=clock)
    assert pauses_after(policy, clock, 1, 1, 61, 1, 1) == [1, 2, 0, 1, 2]


def test_a_process_that_lived_exactly_the_limit_is_not_steady() -> None:
    clock = Clock()
    policy = RestartPolicy(clock=clock)
    assert pauses_after(policy, clock, 60, 60.1) == [1, 0]


def test_the_limits_can_be_set() -> None:
    clock = Clock()
    policy = RestartPolicy(first_pause_seconds=0.5, longest_pause_seconds=1.5, steady_seconds=10, clock=clock)
    assert pauses_after(policy, clock, 1, 1, 1, 1, 11, 1) == [0.5, 1, 1.5, 1.5, 0, 0.5]


def test_a_process_counts_as_started_with_its_policy() -> None:
    clock = Clock()
    policy = RestartPolicy(clock=clock)
    clock.now += 61
    assert policy.next_pause() == 0
