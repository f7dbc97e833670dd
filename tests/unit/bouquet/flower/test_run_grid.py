"""What the Grid of a run does for an app: it waits for the fleet, keeps deadlines and names failures."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.superlink.grid import GrpcGrid

from bouquet.contract.partitions import read_num_partitions
from bouquet.errors import FleetError
from bouquet.flower.run_grid import Exchange
from tests.unit.bouquet.flower.grid_fakes import FIRST_NODE, RUN_ID, FakeFleet, fleet

__all__ = ["fleet"]


def senders(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def reasons(replies: Iterable[Message]) -> list[str | None]:
    return [reply.error.reason if reply.has_error() else None for reply in replies]


@pytest.fixture
def exchanges(fleet: FakeFleet) -> list[Exchange]:
    """What the grid reports."""
    found: list[Exchange] = []
    fleet.grid.on_exchange = found.append
    return found


def joining(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one more node online at every look."""
    whole, looks = fleet.online, iter(range(1, 1000))
    monkeypatch.setattr(GrpcGrid, "get_node_ids", lambda grid: whole[: next(looks)])


def test_the_first_look_at_the_nodes_waits_for_the_whole_fleet(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining(fleet, monkeypatch)
    assert list(fleet.new_grid(fleet_deadline=10).get_node_ids()) == fleet.online


def test_the_first_message_waits_for_the_whole_fleet(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    joining(fleet, monkeypatch)
    grid = fleet.new_grid(fleet_deadline=10)
    assert senders(grid.send_and_receive(fleet.messages(FIRST_NODE))) == [FIRST_NODE]
    assert grid.members.at_start == 3


def test_the_number_of_partitions_is_there_before_the_first_message_and_gone_after_the_run(fleet: FakeFleet) -> None:
    seen: list[int | None] = []

    def answer(message: Message) -> Message:
        seen.append(read_num_partitions(fleet.folder, RUN_ID))
        return Message(RecordDict(), reply_to=message)

    fleet.answer = answer
    fleet.grid.push_messages(fleet.messages(FIRST_NODE))
    fleet.resize(20)
    fleet.grid.push_messages(fleet.messages(FIRST_NODE))
    assert seen == [3, 3]
    fleet.grid.close()
    assert read_num_partitions(fleet.folder, RUN_ID) is None


def test_a_fleet_that_stays_incomplete_fails_the_run_and_the_error_names_the_missing_partitions(
    fleet: FakeFleet,
) -> None:
    fleet.resize(5)
    fleet.online.remove(FIRST_NODE + 1)
    with pytest.raises(FleetError) as raised:
        fleet.grid.get_node_ids()
    assert str(raised.value) == (
        "FLEET_DEADLINE=0.05: only 2 of 5 SuperNodes joined within that many seconds (missing: partition-id 1, 3, 4); "
        "read the logs of the missing SuperNodes (make logs), wait longer with FLEET_DEADLINE=0.1 make up, or make the "
        "fleet smaller with SUPERNODES=2 make up"
    )


def test_a_waiting_run_starts_when_the_fleet_is_made_smaller(fleet: FakeFleet) -> None:
    fleet.resize(5)
    with pytest.raises(FleetError):
        fleet.grid.send_and_receive(fleet.messages())
    fleet.resize(3)
    assert senders(fleet.grid.send_and_receive(fleet.messages())) == fleet.online


def test_an_app_sees_members_only_and_waits_until_one_is_online(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = fleet.new_grid(fleet_deadline=10)
    grid.get_node_ids()
    looks = iter([[], [], [FIRST_NODE + 1, 7]])
    monkeypatch.setattr(GrpcGrid, "get_node_ids", lambda grid: next(looks))
    assert list(grid.get_node_ids()) == [FIRST_NODE + 1]


def test_a_fleet_that_goes_offline_fails_the_run_after_the_deadline(fleet: FakeFleet) -> None:
    fleet.grid.get_node_ids()
    fleet.online.clear()
    with pytest.raises(FleetError, match=r"^FLEET_DEADLINE=0.05: none of the run's SuperNodes was online for that"):
        fleet.grid.get_node_ids()


def test_replies_come_in_the_order_of_partitions(fleet: FakeFleet) -> None:
    fleet.report({FIRST_NODE: 2, FIRST_NODE + 1: 0, FIRST_NODE + 2: 1})
    replies = fleet.grid.send_and_receive(fleet.messages())
    assert senders(replies) == [FIRST_NODE + 1, FIRST_NODE + 2, FIRST_NODE]


def test_several_replies_of_one_node_come_in_the_order_of_its_messages(fleet: FakeFleet) -> None:
    messages = fleet.messages(FIRST_NODE, FIRST_NODE, FIRST_NODE)
    replies = fleet.grid.send_and_receive(messages)
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]


def test_every_failure_names_its_node_and_its_partition(fleet: FakeFleet, exchanges: list[Exchange]) -> None:
    def answer(message: Message) -> Message:
        if message.metadata.dst_node_id == FIRST_NODE:
            raise ValueError("no data")
        return Message(RecordDict(), reply_to=message)

    fleet.answer = answer
    fleet.unavailable = {FIRST_NODE + 2}
    replies = list(fleet.grid.send_and_receive(fleet.messages()))
    assert senders(replies) == fleet.online
    assert reasons(replies) == [
        "partition-id 0: <class 'ValueError'>:<'no data'>",
        None,
        "partition-id 2: Node Unavailable",
    ]
    assert exchanges[0].failures == {FIRST_NODE: reasons(replies)[0], FIRST_NODE + 2: reasons(replies)[2]}


def test_a_reason_that_has_the_partition_is_left_as_it_is(fleet: FakeFleet) -> None:
    def answer(message: Message) -> Message:
        raise ValueError("partition-id 0: no data")

    fleet.answer = answer
    assert reasons(fleet.grid.send_and_receive(fleet.messages(FIRST_NODE))) == [
        "<class 'ValueError'>:<'partition-id 0: no data'>"
    ]


def test_errors_that_an_app_pulls_itself_are_named_too(fleet: FakeFleet) -> None:
    fleet.unavailable = {FIRST_NODE + 1}
    message_ids = fleet.grid.push_messages(fleet.messages(FIRST_NODE + 1))
    replies = list(fleet.grid.pull_messages(message_ids))
    assert (senders(replies), reasons(replies)) == ([FIRST_NODE + 1], ["partition-id 1: Node Unavailable"])


def test_a_node_that_left_before_its_message_was_sent_is_a_failure_at_once(
    fleet: FakeFleet, exchanges: list[Exchange]
) -> None:
    grid = fleet.new_grid(round_deadline=None)
    grid.on_exchange = exchanges.append
    grid.get_node_ids()
    messages = fleet.messages()
    fleet.online.remove(FIRST_NODE + 1)
    assert senders(grid.send_and_receive(messages)) == [FIRST_NODE, FIRST_NODE + 2]
    assert exchanges[0].failures == {
        FIRST_NODE + 1: "partition-id 1: the node has left: the SuperLink rejected the message"
    }


def test_messages_that_are_too_large_for_one_call_are_failures_of_all_nodes(
    fleet: FakeFleet, exchanges: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GrpcGrid, "push_messages", lambda grid, messages: [])  # as Flower does then
    assert list(fleet.grid.send_and_receive(fleet.messages())) == []
    assert exchanges[0].failures.keys() == set(fleet.online)
    assert all("too large" in reason for reason in exchanges[0].failures.values())


@pytest.mark.parametrize(
    ("given", "seconds", "setting"),
    [({}, 0.05, "ROUND_DEADLINE=0.05"), ({"timeout": 0.2}, 0.2, "timeout=0.2"), ({"timeout": 0}, 0, "timeout=0")],
)
def test_a_node_that_does_not_reply_in_time_is_a_failure_by_the_deadline_or_the_apps_own_timeout(
    fleet: FakeFleet, exchanges: list[Exchange], given: dict[str, float], seconds: float, setting: str
) -> None:
    fleet.answer = lambda message: None
    start = time.monotonic()
    assert fleet.grid.send_and_receive(fleet.messages(FIRST_NODE + 2), **given) == []
    assert seconds <= time.monotonic() - start < seconds + 0.15
    assert exchanges[0].failures == {FIRST_NODE + 2: f"partition-id 2: no reply within {setting} s"}


def test_an_apps_timeout_of_none_has_no_limit(fleet: FakeFleet, exchanges: list[Exchange]) -> None:
    late: list[Message] = []

    def pull(grid: GrpcGrid, message_ids: Iterable[str]) -> list[Message]:
        if time.monotonic() - start < 0.2:
            return []
        return late

    fleet.answer = lambda message: late.append(Message(RecordDict(), reply_to=message))
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrpcGrid, "pull_messages", pull)
        assert senders(fleet.grid.send_and_receive(fleet.messages(FIRST_NODE), timeout=None)) == [FIRST_NODE]
    assert exchanges[0].failures == {}


def test_an_exchange_has_the_messages_the_replies_and_the_partitions(
    fleet: FakeFleet, exchanges: list[Exchange]
) -> None:
    replies = fleet.grid.send_and_receive(fleet.messages(FIRST_NODE + 1, FIRST_NODE))
    (exchange,) = exchanges
    assert [metadata.dst_node_id for metadata in exchange.messages] == [FIRST_NODE + 1, FIRST_NODE]
    assert exchange.replies == list(replies)
    assert exchange.partition_ids == {FIRST_NODE + k: k for k in range(3)}
    assert 0 <= exchange.seconds < 1


def test_error_replies_are_logged_unless_the_strategy_does_so(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("bouquet.flower.run_grid.log", lambda level, text, *values: lines.append(text % values))
    fleet.unavailable = {FIRST_NODE}
    fleet.grid.send_and_receive(fleet.messages(FIRST_NODE))
    fleet.grid.logs_error_replies = False
    fleet.grid.send_and_receive(fleet.messages(FIRST_NODE))
    fleet.grid.send_and_receive(fleet.messages(99))
    assert lines == [
        "\t> Node 100: partition-id 0: Node Unavailable",
        "\t> Node 99: partition-id unknown: the node has left: the SuperLink rejected the message",
    ]
