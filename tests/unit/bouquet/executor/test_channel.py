import os

import pytest

from bouquet.executor.channel import Channel


def test_messages_arrive_one_by_one_and_in_order() -> None:
    ours, theirs = Channel.pair()
    ours.send({"a": 1})
    ours.send({"b": "2"})
    assert theirs.receive() == ({"a": 1}, None)
    assert theirs.receive() == ({"b": "2"}, None)


def test_a_large_message_arrives_whole() -> None:
    ours, theirs = Channel.pair()
    ours.send({"pulled": "x" * 100_000})
    assert len(theirs.receive()[0]["pulled"]) == 100_000  # type: ignore[index]


def test_a_file_descriptor_travels_along() -> None:
    ours, theirs = Channel.pair()
    read, write = os.pipe()
    ours.send({}, write)
    os.close(write)
    _, descriptor = theirs.receive()
    assert descriptor is not None
    os.write(descriptor, b"x")
    assert os.read(read, 1) == b"x"


def test_the_end_of_the_other_side_is_seen_after_what_it_said() -> None:
    ours, theirs = Channel.pair()
    ours.send({"last": "words"})
    ours.close()
    assert theirs.drain() == [{"last": "words"}]
    assert theirs.receive() == (None, None)


def test_shutting_lets_the_other_side_finish() -> None:
    ours, theirs = Channel.pair()
    ours.end_sending()
    assert theirs.receive() == (None, None)
    theirs.send({"done": True})
    assert ours.receive() == ({"done": True}, None)


def test_draining_an_open_channel_returns_what_has_arrived_and_does_not_wait() -> None:
    ours, theirs = Channel.pair()
    assert theirs.drain() == []
    ours.send({"a": 1})
    ours.send({"b": 2})
    assert theirs.drain() == [{"a": 1}, {"b": 2}]


def test_a_send_that_must_not_wait_fails_when_the_other_side_does_not_read() -> None:
    ours, theirs = Channel.pair()
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            ours.send({"packet": "x" * 1000}, wait=False)
    assert theirs.receive()[0] is not None


def test_a_send_to_a_side_that_is_closed_fails() -> None:
    ours, theirs = Channel.pair()
    theirs.close()
    with pytest.raises(OSError, match="Broken pipe"):
        ours.send({})
