"""The Control API, which the `flwr` command calls: it announces new and stopped runs, and streams logs as they come."""

from collections.abc import Callable, Generator
from logging import INFO
from typing import cast

import grpc
from flwr.common.constant import Status
from flwr.common.logger import log
from flwr.proto import control_pb2
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.artifact_provider import ArtifactProvider
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.servicer.control.control_handlers import _validate_federation_membership_in_request
from flwr.superlink.servicer.control.control_servicer import ControlServicer, _get_account

from bouquet.flower.link_state import StateFactory
from bouquet.flower.notifier import KeyedListener
from bouquet.flower.object_files import ObjectFilesFactory
from bouquet.flower.superlink_events import LOGS, SuperLinkEvents

LOG_POLL_SECONDS = 2.0  # the end of a run whose ServerApp has fallen silent sends no notification
LOG_EPSILON_SECONDS = 1e-6  # added to the time of the last line, so that it is not sent twice


class EventControlServicer(ControlServicer):
    """Flower's Control API, which notifies executors and streams logs without a poll."""

    def __init__(
        self,
        linkstate_factory: StateFactory,
        objectstore_factory: ObjectFilesFactory,
        authn_plugin: ControlAuthnPlugin,
        artifact_provider: ArtifactProvider | None,
        fleet_api_type: str | None,
        events: SuperLinkEvents,
        on_node_removed: Callable[[int], None] = lambda node_id: None,
    ) -> None:
        """Prepare the API; `on_node_removed` is called with the id of a node that is no longer admitted."""
        super().__init__(linkstate_factory, objectstore_factory, authn_plugin, artifact_provider, fleet_api_type)
        self._states = linkstate_factory
        self._events = events
        self._on_node_removed = on_node_removed

    def StartRun(
        self, request: control_pb2.StartRunRequest, context: grpc.ServicerContext
    ) -> control_pb2.StartRunResponse:
        """Create a run, and wake the executor."""
        response = super().StartRun(request, context)
        self._events.add_task()
        return response

    def StopRun(
        self, request: control_pb2.StopRunRequest, context: grpc.ServicerContext
    ) -> control_pb2.StopRunResponse:
        """Stop a run, wake all calls that wait for something of it, and have its ServerApp ended."""
        response = super().StopRun(request, context)
        if response.success:
            self._events.end_run(request.run_id)
            self._events.on_run_ended(request.run_id)
        return response

    def UnregisterNode(
        self, request: control_pb2.UnregisterNodeRequest, context: grpc.ServicerContext
    ) -> control_pb2.UnregisterNodeResponse:
        """Remove a node, whose key is never accepted again, and cut it off if it is online."""
        response = super().UnregisterNode(request, context)
        self._on_node_removed(request.node_id)
        return response

    def StreamLogs(
        self, request: control_pb2.StreamLogsRequest, context: grpc.ServicerContext
    ) -> Generator[control_pb2.StreamLogsResponse, None, None]:
        """Stream the log of a run to its end. Flower looks for new lines twice a second, this method is notified.

        A request that is refused is refused before the stream starts: over HTTP, a stream that has started has
        answered that all is well. The account is known in this thread only now, too.
        """
        log(INFO, "ControlServicer.StreamLogs")
        state, run_id, account = self._states.state(), request.run_id, _get_account()
        run = state.find_run(run_id)
        if run is None:
            raise FlowerError(ApiErrorCode.RUN_ID_NOT_FOUND, f"Run {run_id} not found while streaming logs.")
        _validate_federation_membership_in_request(state, account.flwr_aid, run.federation_id)
        return self._stream_logs(request, cast(int, run.primary_task_id), context)

    def _stream_logs(
        self, request: control_pb2.StreamLogsRequest, task_id: int, context: grpc.ServicerContext
    ) -> Generator[control_pb2.StreamLogsResponse, None, None]:
        state, run_id = self._states.state(), request.run_id
        lines = KeyedListener(self._events.notifier, LOGS)
        after = request.after_timestamp + LOG_EPSILON_SECONDS
        while context.is_active():
            run = state.get_run_info(run_ids=[run_id])[0]
            text, latest = state.get_task_log(task_id, after)
            if text:
                yield control_pb2.StreamLogsResponse(log_output=text, latest_timestamp=latest)
                after = max(latest + LOG_EPSILON_SECONDS, after)
            if run.status.status == Status.FINISHED:  # before its log was read, so that no line is left out
                log(INFO, "All logs for run ID `%s` returned", run_id)
                state.cleanup_run(run_id)
                return
            lines.wait(LOG_POLL_SECONDS)
