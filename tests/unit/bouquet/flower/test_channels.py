"""Retries that find a restarted server soon."""

from itertools import islice

from flwr.supercore.retry import make_simple_grpc_retry_invoker

from bouquet.flower.channels import MAX_PAUSE_SECONDS, with_quick_retries


def test_the_pauses_between_calls_grow_to_three_seconds_and_no_further() -> None:
    pauses = list(islice(with_quick_retries(make_simple_grpc_retry_invoker()).wait_gen_factory(), 6))
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS == 3
