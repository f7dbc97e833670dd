"""The executor with a zygote, workers and a Runtime API that the test plays."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from bouquet.executor import executor as module
from bouquet.executor.app_folders import AppFolders
from bouquet.polling import poll_until
from tests.unit.bouquet.executor.fakes import PATIENCE_SECONDS, Outcome, harness

GRACE_SECONDS = 0.1


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_GRACE_SECONDS", GRACE_SECONDS)
    monkeypatch.setattr(module, "ZYGOTE_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "ZYGOTE_LONGEST_PAUSE_SECONDS", 0.02)


def assert_nothing(queue: "Queue[Any]", seconds: float = 0.05) -> None:
    with pytest.raises(Empty):
        queue.get(timeout=seconds)


def wait_until(condition: Callable[[], bool]) -> None:
    assert poll_until(condition, PATIENCE_SECONDS, 0.005)


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Capture what the executor logs."""
    with caplog.at_level(logging.INFO, "flwr"):
        logging.getLogger("flwr").addHandler(caplog.handler)
        try:
            yield
        finally:
            logging.getLogger("flwr").removeHandler(caplog.handler)


# -- Start


def test_it_is_ready_when_its_zygote_is_and_not_before() -> None:
    with harness() as fake:
        zygote = fake.start()
        assert zygote.preload == ("keras",)
        assert_nothing(fake.ready)
        zygote.become_ready()
        assert fake.ready.get(timeout=PATIENCE_SECONDS)


def test_without_a_setting_the_zygote_imports_the_installed_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "to_preload", lambda: ("torch", "torch._dynamo"))
    with harness(preload=None) as fake:
        assert fake.start().preload == ("torch", "torch._dynamo")
    with harness(preload=()) as fake:
        assert fake.start().preload == ()


def test_no_task_is_claimed_before_the_zygote_is_ready() -> None:
    with harness() as fake:
        fake.tasks.add(run_id=1)
        zygote = fake.start()
        assert_nothing(fake.tasks.claims)
        zygote.become_ready()
        assert fake.tasks.claims.get(timeout=PATIENCE_SECONDS) == 1


# -- Messages


def test_a_message_goes_to_a_new_worker_and_the_next_one_of_its_run_to_the_same() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote, run_id=7)
        assert worker.work == {
            **{"app": "clientapp", "run_id": 7, "parent": zygote.pid, "api": asdict(fake.api)},
            "report": True,
            "bounds": {"messages": None, "growth_mib": None},
            "folder": None,
        }
        fake.complete(worker)
        for _ in range(3):
            token = fake.tasks.add(run_id=7)
            assert worker.next_token() == token
            assert fake.next_run() == 7
            fake.complete(worker)
        assert not zygote.has_requests()
        assert fake.tasks.outcomes.empty()


def test_a_node_works_on_one_message_at_a_time() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote, run_id=1)
        assert fake.tasks.claims.get(timeout=PATIENCE_SECONDS) == 1
        fake.tasks.add(run_id=2)
        assert_nothing(fake.tasks.claims)
        fake.complete(worker)
        assert fake.tasks.claims.get(timeout=PATIENCE_SECONDS) == 2


def test_each_run_has_its_own_worker() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        first, _ = fake.begin(zygote, run_id=1)
        fake.complete(first)
        second, _ = fake.begin(zygote, run_id=2)
        fake.complete(second)
        token = fake.tasks.add(run_id=1)
        assert first.next_token() == token
        assert first.number != second.number


def test_an_idle_worker_makes_room_for_another_run() -> None:
    with harness(workers=2) as fake:
        zygote = fake.start_ready()
        first, _ = fake.begin(zygote, run_id=1)
        fake.complete(first)
        second, _ = fake.begin(zygote, run_id=2)
        fake.complete(second)
        third, _ = fake.begin(zygote, run_id=3)
        assert first.is_told_to_end(), "it has been idle for longest"
        first.exit()
        fake.complete(third)
        token = fake.tasks.add(run_id=2)
        assert second.next_token() == token


def test_server_apps_work_at_the_same_time_up_to_the_limit() -> None:
    with harness(app="serverapp", workers=2) as fake:
        zygote = fake.start_ready()
        first, token = fake.begin(zygote, run_id=1)
        fake.begin(zygote, run_id=2)
        assert [fake.tasks.claims.get(timeout=PATIENCE_SECONDS) for _ in range(2)] == [1, 2]
        fake.tasks.add(run_id=3)
        assert_nothing(fake.tasks.claims)
        first.exit(1)
        reason = "The ServerApp process exited with code 1."
        assert fake.next_outcome() == Outcome("fail", token, reason)
        assert zygote.next_worker().work["run_id"] == 3


def test_what_a_worker_without_a_task_reports_is_ignored() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote)
        fake.complete(worker)
        idle = fake.executor._workers[worker.number]
        wait_until(lambda: idle.state.task is None)
        for message in ({"pulled": ""}, {"replied": True}, {"done": True}):
            fake.executor._on_message(idle, message)
        assert fake.task_runs.empty()
        token = fake.tasks.add(run_id=1)
        assert worker.next_token() == token
        worker.exit(1)
        assert fake.next_outcome() == Outcome("fail", token, "The ClientApp process exited with code 1.")


# -- Apps that fail


def test_a_worker_that_is_not_usable_any_more_is_replaced() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        first, _ = fake.begin(zygote)
        fake.complete(first, usable=False)
        second, _ = fake.begin(zygote)
        assert second.number != first.number
        assert (first.work["report"], second.work["report"]) == (True, False), "once a run"
        first.exit()
        fake.complete(second)
        assert fake.tasks.outcomes.empty(), "the first worker had answered itself"


def test_a_worker_whose_exit_handlers_hang_is_killed_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with harness() as fake, logged(caplog):
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote, run_id=3)
        fake.complete(worker, usable=False)
        assert zygote.next_signal() == (worker.number, signal.SIGKILL)
    line = "[RUN 3] The ClientApp process is killed: its exit handlers and threads took longer than 5 s"
    assert line in caplog.messages


def test_while_a_worker_runs_its_exit_handlers_the_next_message_is_served() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        first, _ = fake.begin(zygote)
        fake.complete(first, usable=False)
        second, _ = fake.begin(zygote)
        fake.complete(second)
        first.exit()
        assert fake.tasks.outcomes.empty()


def test_a_death_before_the_message_was_pulled_fails_the_task() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        worker.exit(signal_number=signal.SIGSEGV)
        reason = "The ClientApp process was killed by signal 11 (SIGSEGV)."
        assert fake.next_outcome() == Outcome("fail", token, reason)
        assert fake.next_run() is None
        fake.begin(zygote)


def test_a_death_before_the_reply_fails_the_task_with_the_message_to_answer() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        worker.channel.send({"pulled": "bWVzc2FnZQ=="})
        worker.exit(1)
        reason = "The ClientApp process exited with code 1."
        assert fake.next_outcome() == Outcome("fail", token, reason, b"message")
        assert fake.next_run() is None


def test_a_death_for_lack_of_memory_says_so() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote)
        worker.exit(signal_number=signal.SIGKILL, oom=True)
        assert "was killed by signal 9 (SIGKILL): out of memory. " in fake.next_outcome().reason


def test_a_death_after_the_reply_finishes_the_task() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        worker.channel.send({"pulled": "bWVzc2FnZQ=="})
        worker.channel.send({"replied": True})
        worker.exit(1)
        assert fake.next_outcome() == Outcome("finish", token, "The ClientApp process exited with code 1.")
        assert fake.next_run() is None
        fake.begin(zygote)


def test_a_death_after_the_task_was_done_needs_no_answer() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote)
        worker.channel.send({"done": True})
        worker.exit(1)
        assert fake.next_run() is None
        assert_nothing(fake.tasks.outcomes)


def test_a_worker_that_could_not_be_forked_fails_its_task() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        token = fake.tasks.add(run_id=1)
        worker = zygote.next_worker()
        worker.channel.close()
        zygote.channel.send({"exited": worker.number, "error": "could not be started: no memory"})
        reason = "The ClientApp process could not be started: no memory."
        assert fake.next_outcome() == Outcome("fail", token, reason)


def test_a_task_that_has_ended_meanwhile_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with harness() as fake, logged(caplog):
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        fake.tasks.ended.add(token)
        worker.exit(1)
        assert fake.next_outcome().token == token
        assert fake.next_run() is None
        fake.begin(zygote)
    assert "[RUN 1] The task had already ended: no such task" in caplog.messages


def test_an_app_that_closes_the_channel_and_stays_is_killed() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        worker.channel.close()
        assert zygote.next_signal() == (worker.number, signal.SIGKILL)
        worker.exit(signal_number=signal.SIGKILL)
        reason = "The ClientApp process did not end after its channel was closed."
        assert fake.next_outcome() == Outcome("fail", token, reason)


# -- Deadlines


def test_a_task_that_takes_too_long_is_killed_and_fails() -> None:
    with harness(task_seconds=0.1) as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        assert zygote.next_signal() == (worker.number, signal.SIGKILL)
        assert zygote.next_signal() == (worker.number, signal.SIGKILL), "once more after the grace time"
        worker.exit(signal_number=signal.SIGKILL)
        reason = "The ClientApp process took longer than 0.1 s and was killed."
        assert fake.next_outcome() == Outcome("fail", token, reason)


def test_an_idle_worker_ends_after_the_idle_time() -> None:
    with harness(idle_seconds=0.1) as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote)
        assert not zygote.has_requests()
        fake.complete(worker)
        assert worker.is_told_to_end()
        worker.exit()
        fake.begin(zygote)


def test_tasks_have_heartbeats_and_a_worker_whose_task_has_ended_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        for _ in range(2):
            assert fake.tasks.heartbeats.get(timeout=PATIENCE_SECONDS) == token
        fake.tasks.ended.add(token)
        assert zygote.next_signal() == (worker.number, signal.SIGTERM)
        worker.exit(signal_number=signal.SIGTERM)
        assert fake.next_outcome().reason == "The ClientApp process was ended with its run."


# -- The end of a run, and of the executor


def test_the_end_of_a_run_ends_its_idle_worker_and_no_other() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        first, _ = fake.begin(zygote, run_id=1)
        fake.complete(first)
        second, _ = fake.begin(zygote, run_id=2)
        fake.complete(second)
        fake.executor.end_run(1)
        assert first.is_told_to_end()
        first.exit()
        token = fake.tasks.add(run_id=2)
        assert second.next_token() == token


def test_the_end_of_a_run_ends_a_worker_in_the_middle_of_a_message_and_kills_it_if_it_stays() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        worker, token = fake.begin(zygote)
        fake.executor.end_run(1)
        assert zygote.next_signal() == (worker.number, signal.SIGTERM)
        assert zygote.next_signal() == (worker.number, signal.SIGKILL)
        worker.exit(signal_number=signal.SIGKILL)
        assert fake.next_outcome() == Outcome("fail", token, "The ClientApp process was ended with its run.")


def test_a_run_has_a_working_directory_until_its_last_process_has_ended(tmp_path: Path) -> None:
    with harness(AppFolders(tmp_path / "apps")) as fake:
        zygote = fake.start_ready()
        folders = {}
        for run_id in (1, 2):
            worker, _ = fake.begin(zygote, run_id)
            folders[run_id] = Path(worker.work["folder"])
            folders[run_id].mkdir(parents=True)  # as the worker does
            fake.complete(worker)
        assert folders[1] != folders[2]
        fake.executor.end_run(1)
        assert zygote.workers[0].is_told_to_end()
        assert folders[1].exists(), "its exit handlers may write files"
        zygote.workers[0].exit()
        wait_until(lambda: not folders[1].exists())
        assert folders[2].exists()
    assert not (tmp_path / "apps").exists(), "the executor has stopped"


def test_the_working_directory_of_a_run_outlives_its_idle_process(tmp_path: Path) -> None:
    with harness(AppFolders(tmp_path / "apps"), idle_seconds=0.05) as fake:
        zygote = fake.start_ready()
        worker, _ = fake.begin(zygote)
        folder = Path(worker.work["folder"])
        folder.mkdir(parents=True)
        fake.complete(worker)
        assert worker.is_told_to_end()
        worker.exit()
        second, _ = fake.begin(zygote)
        assert second.work["folder"] == str(folder)
        assert folder.exists()
        fake.complete(second)
        assert second.is_told_to_end()
        second.exit()
        fake.executor.end_run(1)  # no process of the run is left
        wait_until(lambda: not folder.exists())


def test_stopping_with_a_reason_fails_the_tasks_that_are_worked_on() -> None:
    with harness(app="serverapp", workers=3) as fake:
        zygote = fake.start_ready()
        _, first = fake.begin(zygote, run_id=1)
        _, second = fake.begin(zygote, run_id=2)
        fake.executor.stop("The SuperLink was stopped.")
        outcomes = [fake.next_outcome(), fake.next_outcome()]
        assert outcomes == [Outcome("fail", token, "The SuperLink was stopped.") for token in (first, second)]
        assert zygote.is_told_to_end()
        assert not zygote.killed


def test_stopping_without_a_reason_leaves_the_tasks_to_the_server() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        fake.begin(zygote)
        fake.executor.stop()
        assert zygote.is_told_to_end()
        assert fake.tasks.outcomes.empty()


def test_a_zygote_that_does_not_end_is_killed() -> None:
    with harness() as fake:
        zygote = fake.start_ready()
        zygote.ends_when_told = False
        fake.executor.stop()
        assert zygote.killed


# -- Zygotes that die


def test_the_death_of_the_zygote_fails_the_tasks_of_its_workers_and_another_one_takes_over() -> None:
    with harness() as fake:
        first = fake.start_ready()
        idle, _ = fake.begin(first, run_id=1)
        fake.complete(idle)
        worker, token = fake.begin(first, run_id=2)
        worker.channel.send({"pulled": "bWVzc2FnZQ=="})
        first.die(-signal.SIGKILL)
        assert not fake.ready.get(timeout=PATIENCE_SECONDS)
        outcome = fake.next_outcome()
        assert (outcome.how, outcome.token, outcome.message) == ("fail", token, b"message")
        assert outcome.reason.startswith("The ClientApp process died with the executor's zygote, which was killed by")
        assert fake.next_run() is None
        second = fake.next_zygote()
        fake.tasks.add(run_id=1)
        assert not second.has_requests()
        assert_nothing(fake.ready)
        second.become_ready()
        assert fake.ready.get(timeout=PATIENCE_SECONDS)
        assert second.next_worker().work["run_id"] == 1


def test_a_zygote_that_dies_between_claim_and_fork_fails_the_task() -> None:
    with harness() as fake:
        first = fake.start_ready()

        def die() -> None:
            fake.tasks.on_claim = lambda: None
            first.die(1)
            assert not fake.ready.get(timeout=PATIENCE_SECONDS)

        fake.tasks.on_claim = die
        token = fake.tasks.add(run_id=1)
        reason = "The ClientApp process died with the executor's zygote."
        assert fake.next_outcome() == Outcome("fail", token, reason)
        second = fake.next_zygote()
        second.become_ready()
        assert fake.ready.get(timeout=PATIENCE_SECONDS)
        assert (fake.next_run(), fake.next_run()) == (1, None)
        fake.begin(second)


def test_the_executor_gives_up_when_no_zygote_becomes_ready() -> None:
    with harness() as fake:
        zygote = fake.start()
        for _ in range(module.ZYGOTE_MAX_FAILED_STARTS):
            zygote.die(1)
            zygote = fake.next_zygote()
        assert fake.failures.empty()
        zygote.die(1)
        failure = fake.failures.get(timeout=PATIENCE_SECONDS)
        assert failure == "RuntimeError: the executor's zygote ended 6 times before it was ready"
        assert fake.ready.empty()


def test_a_cpu_without_avx_is_named_at_the_first_start() -> None:
    with harness(preload=("keras", "torch")) as fake:
        fake.start().die(-signal.SIGILL)
        failure = fake.failures.get(timeout=PATIENCE_SECONDS)
        assert failure.startswith(
            "RuntimeError: the import of keras, torch died with SIGILL: this CPU probably lacks AVX"
        )


def test_a_zygote_restarted_by_the_executor_may_take_its_time_to_end() -> None:
    """The kernel kills a child whose parent thread ends, before it has run its workers' exit handlers."""
    with harness() as fake:
        fake.start_ready().die(-signal.SIGKILL)
        second = fake.next_zygote()
        second.become_ready()
        assert [fake.ready.get(timeout=PATIENCE_SECONDS) for _ in range(2)] == [False, True]
        thread = [one for one in threading.enumerate() if one.name == "executor_supervise"][-1]
        alive: Queue[bool] = Queue()

        def wait(timeout: float | None = None) -> int:
            thread.join(0.1)
            alive.put(thread.is_alive())
            return 0

        second.wait = wait  # type: ignore[method-assign]
        fake.executor.stop()
        assert alive.get(timeout=PATIENCE_SECONDS)
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_zygote_that_becomes_ready_ends_the_count_of_failed_starts() -> None:
    with harness() as fake:
        zygote = fake.start()
        for _ in range(2):
            for _ in range(module.ZYGOTE_MAX_FAILED_STARTS):
                zygote.die(1)
                zygote = fake.next_zygote()
            zygote.become_ready()
            assert fake.ready.get(timeout=PATIENCE_SECONDS)
            zygote.die(1)
            assert not fake.ready.get(timeout=PATIENCE_SECONDS)
            zygote = fake.next_zygote()


def test_deaths_of_zygotes_that_were_ready_are_never_too_many() -> None:
    with harness() as fake:
        zygote = fake.start()
        for _ in range(module.ZYGOTE_MAX_FAILED_STARTS + 3):
            zygote.become_ready()
            assert fake.ready.get(timeout=PATIENCE_SECONDS)
            zygote.die(1)
            assert not fake.ready.get(timeout=PATIENCE_SECONDS)
            zygote = fake.next_zygote()


def test_an_unexpected_error_is_reported_as_a_failure() -> None:
    with harness() as fake:
        fake.start_ready()
        fake.tasks.break_down(ValueError("no such API"))
        assert fake.failures.get(timeout=PATIENCE_SECONDS) == "ValueError: no such API"
