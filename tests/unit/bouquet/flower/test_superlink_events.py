from pathlib import Path

from bouquet.flower.superlink_events import LOGS, SuperLinkEvents, end_key, node_key, replies_key
from tests.unit.bouquet.flower.fakes import Traffic


def test_a_reply_wakes_the_server_app_and_not_the_calls_that_wait_for_the_runs_end() -> None:
    events = SuperLinkEvents()
    events.deliveries.announce(replies_key(1), "message", ())
    assert events.notifier.count(replies_key(1)) == 1
    assert events.notifier.count(end_key(1)) == 0


def test_the_end_of_a_run_wakes_all_calls_that_wait_for_something_of_it() -> None:
    events = SuperLinkEvents()
    events.deliveries.announce(replies_key(1), "message", {"object"})
    events.end_run(1)
    assert [events.notifier.count(key) for key in (replies_key(1), end_key(1), LOGS)] == [1, 1, 1]
    assert events.deliveries.incomplete(replies_key(1)) == set()


def test_what_a_process_left_is_announced_by_the_next(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "superlink.db")
    delivered, answered = traffic.send(1), traffic.send(2)
    assert [traffic.pull(), traffic.pull()] == [[delivered.object_id], [answered.object_id]]
    traffic.reply(answered)
    waiting = traffic.send(3)
    traffic.restart()
    events = SuperLinkEvents()
    events.restore(traffic.state.messages)
    assert events.deliveries.complete(node_key(traffic.node_id)) == {waiting.object_id}
    assert events.deliveries.complete(replies_key(traffic.run_id)) == {answered.object_id}


def test_a_node_that_goes_offline_wakes_the_server_apps_that_have_messages_for_it(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "superlink.db")
    traffic.send()
    events = SuperLinkEvents()
    events.notify_offline(traffic.state.messages, traffic.node_id)
    events.notify_offline(traffic.state.messages, traffic.node_id + 1)
    assert events.notifier.count(replies_key(traffic.run_id)) == 1
    assert events.offline_count == 2
