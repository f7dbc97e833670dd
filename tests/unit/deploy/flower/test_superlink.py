from deploy.flower import superlink
from deploy.flower.superlink import LOGS, Switchboard


def test_a_reply_wakes_the_server_app_and_not_those_who_wait_for_the_runs_end() -> None:
    board = Switchboard()
    board.mail.announce(superlink._replies(1), "message", ())
    assert board.bell.heard(superlink._replies(1)) == 1
    assert board.bell.heard(superlink._end(1)) == 0


def test_the_end_of_a_run_releases_all_who_wait_for_anything_of_it() -> None:
    board = Switchboard()
    board.mail.announce(superlink._replies(1), "message", {"object"})
    board.end_run(1)
    assert [board.bell.heard(key) for key in (superlink._replies(1), superlink._end(1), LOGS)] == [1, 1, 1]
    assert board.mail.incomplete(superlink._replies(1)) == set()
