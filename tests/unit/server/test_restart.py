from naiad.server.restart import CRASHES, WITHIN_SECS, RestartPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_restart_is_at_once_and_later_ones_back_off():
    clock = Clock()
    policy = RestartPolicy(clock)
    delays = []
    for _ in range(CRASHES - 1):
        delays.append(policy.crashed())
        clock.now += 1
    assert delays == [0.0, 1.0, 2.0, 4.0]


def test_five_crashes_within_ten_minutes_are_given_up():
    policy = RestartPolicy(Clock())
    assert [policy.crashed() is None for _ in range(CRASHES)] == [False] * (CRASHES - 1) + [True]


def test_a_quiet_time_is_forgiven():
    clock = Clock()
    policy = RestartPolicy(clock)
    for _ in range(CRASHES - 1):
        policy.crashed()
    clock.now += WITHIN_SECS + 1
    assert policy.crashed() == 0.0


def test_slow_crashes_never_become_a_loop():
    clock = Clock()
    policy = RestartPolicy(clock)
    for _ in range(50):
        assert policy.crashed() is not None
        clock.now += WITHIN_SECS / (CRASHES - 1) + 1
