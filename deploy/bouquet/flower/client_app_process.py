"""Serve a run's messages in one process: Flower's `run_clientapp`, for more than one message."""

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.app.message import remove_content_from_message
from flwr.cli.install import install_from_fab
from flwr.clientapp.client_app import ClientApp, LoadClientAppError
from flwr.clientapp.utils import get_load_client_app_fn
from flwr.common.config import get_project_dir
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.logger import log
from flwr.common.serde import message_to_proto
from flwr.proto.runtime_pb2_grpc import RuntimeStub
from flwr.supercore.fab import Fab
from flwr.supercore.retry import make_simple_grpc_retry_invoker, wrap_stub
from flwr.supercore.run import Run
from flwr.supercore.superexec.dependency_installer import (
    cleanup_app_runtime_environment,
    install_app_dependencies,
)
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from bouquet.errors import BouquetError
from bouquet.flower.channels import with_quick_retries
from bouquet.flower.message_history import MessageHistory
from bouquet.flower.missing_module import explain
from bouquet.flower.moved_modules import find_moved_modules
from bouquet.flower.task_queue import RuntimeApi, TaskToken
from bouquet.runtime.termination import Terminated


@dataclass(frozen=True)
class Served:
    """A message that was served.

    Attributes:
        usable: Whether the process may serve more messages.
        kind: The type of the message: train, evaluate or query.
        node: The SuperNode: "SuperNode 123 (partition-id 4)".
    """

    usable: bool
    kind: str
    node: str


class ClientAppProcess:
    """Serves the messages of one run, one after the other."""

    def __init__(
        self,
        api: RuntimeApi,
        on_pulled: Callable[[bytes], None],
        on_replied: Callable[[], None],
        loading: Callable[[Path], AbstractContextManager[None]],
    ) -> None:
        """Open a channel to the SuperNode's Runtime API.

        Args:
            api: Where it listens.
            on_pulled: Called with each message, serialized without its content, before the app gets it.
            on_replied: Called after each reply was handed over.
            loading: Surrounds the import of the app in a folder.
        """
        self._api = api
        self._on_pulled = on_pulled
        self._on_replied = on_replied
        self._loading = loading
        self._history = MessageHistory()
        self._token = TaskToken("")
        self._channel = api.channel("flwr-clientapp", self._token)
        self._stub = RuntimeStub(self._channel)
        wrap_stub(self._stub, with_quick_retries(make_simple_grpc_retry_invoker()))
        self._apps: dict[str, ClientApp] = {}
        self._environment: Path | None = None
        find_moved_modules()

    def serve(self, token: str) -> Served:
        """Work on a task: one message.

        Args:
            token: The token of the task.

        Raises:
            Terminated: The process is told to end. The executor answers.
        """
        self._token.token = token
        message: Message | None = None
        context: Context | None = None
        failure, usable = "", True
        try:
            message, context, run, fab = pull_task_input(self._stub)
            self._on_pulled(message_to_proto(remove_content_from_message(message)).SerializeToString())
            reply = self._load(run, fab, token)(message=message, context=context)
            push_message(self._stub, reply, context)
            self._history.succeeded(message.metadata.message_type)
        except Terminated:
            raise
        except (Exception, SystemExit) as error:
            if message is None or context is None:
                raise  # there is nothing to reply to here: the executor fails the task once this process has ended
            explain(error)
            hint = self._history.failed(message.metadata.message_type, error)
            failure = _reason(error, context) + (f"\n{hint}" if hint else "")
            usable = isinstance(error, Exception) and not isinstance(error, LoadClientAppError | ImportError)
            log(ERROR, "ClientApp raised an exception%s", f". {hint}" if hint else "", exc_info=error)
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            if isinstance(error, LoadClientAppError):
                code = ErrorCode.LOAD_CLIENT_APP_EXCEPTION
            push_message(self._stub, Message(Error(code, failure), reply_to=message), context)
        self._on_replied()
        status = SubStatus.FAILED if failure else SubStatus.COMPLETED
        push_task_output(stub=self._stub, context=context, sub_status=status, details=failure)
        return Served(usable, message.metadata.message_type, _node(context))

    def close(self) -> None:
        """Close the channel, and remove what was installed for the run."""
        self._channel.close()
        cleanup_app_runtime_environment(self._environment)

    def _load(self, run: Run, fab: Fab, token: str) -> ClientApp:
        if fab.hash_str not in self._apps:
            install_from_fab(fab.content, skip_prompt=True)
            if self._api.install_dependencies:
                self._environment = install_app_dependencies(
                    get_project_dir(run.fab_id, run.fab_version, fab.hash_str),
                    launch_id=token,
                    run_id=run.run_id,
                )
            load = get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
            with self._loading(get_project_dir(run.fab_id, run.fab_version, fab.hash_str)):
                self._apps[fab.hash_str] = load(run.fab_id, run.fab_version, fab.hash_str)
        return self._apps[fab.hash_str]


def _node(context: Context) -> str:
    partition = context.node_config.get("partition-id")
    return f"SuperNode {context.node_id}" + (f" (partition-id {partition})" if partition is not None else "")


def _reason(error: BaseException, context: Context) -> str:
    """Return Flower's text for an exception, then the node that raised it and the whole traceback.

    An error of Bouquet's own is for the user: one line.
    """
    if isinstance(error, BouquetError):
        return f"{_node(context)}: {error}"
    what = f"{type(error)}:<'{error}'>"
    if isinstance(error, LoadClientAppError):
        what = "An exception was raised when attempting to load `ClientApp`"
    return f"{what} on {_node(context)}\n" + "".join(traceback.format_exception(error)).rstrip()
