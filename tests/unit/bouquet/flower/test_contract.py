"""What bouquet.flower relies on of Flower's private API. A failure says what has changed and what to adapt."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from bouquet.flower.replacements import REPLACEMENTS, replace
from bouquet.flower.version import FlowerChangedError, check_version
from tests.unit.bouquet.flower.flower_source import find, source

SUPERNODE_RUNTIME = "flwr.supernode.servicer.runtime.runtime_servicer.SuperNodeRuntimeServicer"


def test_flower_is_a_1_34_release() -> None:
    check_version()


def test_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bouquet.flower.version.version", lambda name: "1.35.0")
    with pytest.raises(FlowerChangedError, match=r"flwr is 1\.35\.0.*install flwr==1\.34\.0"):
        check_version()


def test_a_name_that_is_not_listed_is_not_replaced() -> None:
    with pytest.raises(KeyError, match=r"json\.dumps is not in bouquet\.flower\.replacements\.REPLACEMENTS"):
        replace("json", "dumps", None)


def test_a_name_that_is_gone_is_reported_with_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPLACEMENTS, ("json", "nothing"), "a test")
    with pytest.raises(FlowerChangedError, match=r"json no longer has `nothing`"):
        replace("json", "nothing", None)


@pytest.mark.parametrize(
    ("module", "name", "called_in", "piece"),
    [
        ("flwr.superlink.runtime.run_serverapp", "GrpcGrid", "run_serverapp", "server_app_process.py: RunGrid"),
        (
            "flwr.superlink.runtime.run_serverapp",
            "start_log_uploader",
            "run_serverapp",
            "server_app_process.py: start_log_uploader",
        ),
        ("flwr.superlink.runtime.run_serverapp", "flush_logs", "run_serverapp", "server_app_process.py: flush_logs"),
    ],
)
def test_a_replaced_name_is_what_flower_calls(module: str, name: str, called_in: str, piece: str) -> None:
    target: Any = import_module(module)
    for part in called_in.split("."):
        target = getattr(target, part)
    tree = ast.parse(textwrap.dedent(inspect.getsource(target)))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert name in called, f"{module}.{called_in} no longer calls `{name}` by that name: adapt {piece}"


@pytest.mark.parametrize(
    ("servicer", "method", "request_", "response"),
    [
        (SUPERNODE_RUNTIME, "PullPendingTasks", "PullPendingTasksRequest", "PullPendingTasksResponse"),
        (SUPERNODE_RUNTIME, "PushMessages", "PushAppMessagesRequest", "PushAppMessagesResponse"),
        (SUPERNODE_RUNTIME, "PushObject", "PushObjectRequest", "PushObjectResponse"),
    ],
)
def test_a_servicer_method_takes_and_gives_what_we_expect(
    servicer: str, method: str, request_: str, response: str
) -> None:
    signature = inspect.signature(find(f"{servicer}.{method}"))
    complaint = f"{servicer}.{method} is now {signature}: adapt supernode_runtime.py"
    assert list(signature.parameters) == ["self", "request", "context"], complaint
    assert _named(signature.parameters["request"].annotation) == request_, complaint
    assert _named(signature.return_annotation) == response, complaint


def _named(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


@pytest.mark.parametrize(
    ("message", "fields", "piece"),
    [
        ("runtime_pb2.PullPendingTasksResponse", {"tasks"}, "supernode_runtime.py"),
        ("runtime_pb2.ClaimTaskResponse", {"token"}, "task_queue.py: TaskQueue"),
        ("runtime_pb2.PushTaskOutputRequest", {"context", "sub_status", "details"}, "task_queue.py: TaskQueue"),
        ("control_pb2.ListNodesResponse", {"nodes_info"}, "control_client.py: ControlClient"),
        ("control_pb2.RegisterNodeRequest", {"public_key"}, "control_client.py: ControlClient"),
        ("node_pb2.NodeInfo", {"public_key", "node_id", "status"}, "control_client.py: ControlClient"),
        ("task_pb2.Task", {"task_id", "type", "run_id"}, "task_queue.py: TaskQueue"),
        ("control_pb2.ListNodesResponse", {"nodes_info"}, "control_client.py: list_nodes"),
        (
            "node_pb2.NodeInfo",
            {"node_id", "status", "online_until", "heartbeat_interval"},
            "control_client.py: list_nodes",
        ),
    ],
)
def test_a_protocol_message_has_the_fields_we_use(message: str, fields: set[str], piece: str) -> None:
    has = set(find(f"flwr.proto.{message}").DESCRIPTOR.fields_by_name)
    assert fields <= has, f"{message} no longer has {fields - has}: adapt {piece}"


@pytest.mark.parametrize(
    ("function", "parameters", "piece"),
    [
        ("flwr.supernode.runtime.run_clientapp.pull_task_input", ["stub"], "client_app_process.py"),
        (
            "flwr.supernode.runtime.run_clientapp.push_message",
            ["stub", "message", "context"],
            "client_app_process.py, task_queue.py",
        ),
        (
            "flwr.supernode.runtime.run_clientapp.push_task_output",
            ["stub", "context", "sub_status", "details"],
            "client_app_process.py",
        ),
        (
            "flwr.clientapp.utils.get_load_client_app_fn",
            ["default_app_ref", "app_path", "multi_app"],
            "client_app_process.py: _load",
        ),
        (
            "flwr.cli.install.install_from_fab",
            ["fab_file", "install_dir", "skip_prompt"],
            "client_app_process.py: _load",
        ),
        (
            "flwr.server.run_serverapp.run",
            ["grid", "context", "server_app_dir", "server_app_attr", "loaded_server_app"],
            "server_app_process.py: run_serverapp",
        ),
        (
            "flwr.supercore.object_ref.load_app",
            ["module_attribute_str", "error_type", "project_dir"],
            "server_app_process.py: run_serverapp",
        ),
        (
            "flwr.common.logger.start_log_uploader",
            ["log_queue", "node_id", "run_id", "stub"],
            "server_app_process.py: start_log_uploader",
        ),
        ("flwr.common.logger.flush_logs", ["log_queue", "timeout"], "server_app_process.py: flush_logs"),
        (
            "flwr.superlink.grid.GrpcGrid.send_and_receive",
            ["self", "messages", "timeout"],
            "waiting_grid.py: WaitingGrid",
        ),
        ("flwr.superlink.grid.GrpcGrid.pull_messages", ["self", "message_ids"], "waiting_grid.py: WaitingGrid"),
        (
            "flwr.supernode.start_client_internal._push_messages",
            ["state", "object_store", "send", "push_object"],
            "supernode_main.py: MessageLoop",
        ),
        (
            "flwr.supernode.start_client_internal._pull_and_store_message",
            [
                *("state", "object_store", "node_config", "receive", "get_run", "get_fab", "pull_object"),
                *("confirm_message_received", "trusted_entities"),
            ],
            "supernode_main.py: MessageLoop",
        ),
        (
            "flwr.supernode.start_client_internal._make_fleet_connection_retry_invoker",
            ["max_retries", "max_wait_time", "connection_error_type"],
            "supernode_main.py: run_supernode",
        ),
        (f"{SUPERNODE_RUNTIME}.__init__", ["self", "state_factory", "objectstore_factory"], "supernode_runtime.py"),
        ("flwr.supercore.heartbeat.HeartbeatSender.__init__", ["self", "heartbeat_fn"], "heartbeat.py: Heartbeat"),
        ("flwr.superlink.grid.GrpcGrid._connect", ["self"], "waiting_grid.py: WaitingGrid"),
    ],
)
def test_a_function_takes_the_parameters_we_give(function: str, parameters: list[str], piece: str) -> None:
    found: Callable[..., Any] = find(function)
    signature = inspect.signature(found)
    assert list(signature.parameters) == parameters, f"{function} is now {signature}: adapt {piece}"


@pytest.mark.parametrize(
    ("where", "text", "why"),
    [
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            "# If no message was received, wait for a while\n                time.sleep(3)",
            "the pause after an empty pull: adapt supernode_main.py: STOCK_PULL_SECONDS",
        ),
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            "_push_messages(\n                state=state,\n"
            "                object_store=store,\n                send=send,\n",
            "that a node asks for a message only when it has none in hand: adapt supernode_main.py: MessageLoop, "
            "and the SuperLink's PullMessages",
        ),
        (
            "flwr.server.superlink.linkstate.utils.create_message_error_unavailable_res_message",
            "src_node_id=SUPERLINK_NODE_ID",
            "whom an error for a node that is offline comes from: adapt server_app_process.py: _from_node",
        ),
        (
            "flwr.supercore.grpc.create_channel",
            "grpc.insecure_channel(server_address, options=channel_options)",
            "how a channel is opened: adapt channels.py: open_channel",
        ),
        (
            "flwr.supercore.grpc.create_channel",
            "grpc.secure_channel(\n            server_address, ssl_channel_credentials, options=channel_options\n",
            "how a channel is opened: adapt channels.py: open_channel",
        ),
        (
            "flwr.supercore.retry.grpc_retry.make_simple_grpc_retry_invoker",
            "exponential(max_delay=MAX_RETRY_DELAY)",
            "how long Flower waits between two calls: adapt channels.py: with_quick_retries",
        ),
        (
            "flwr.supercore.retry.retry_invoker.RetryInvoker",
            "wait_generator = self.wait_gen_factory()",
            "what sets the waits between two calls: adapt channels.py: with_quick_retries",
        ),
        (
            "flwr.supercore.heartbeat.HeartbeatSender",
            "self._retry_invoker = RetryInvoker(",
            "what repeats a heartbeat: adapt heartbeat.py: Heartbeat",
        ),
        (
            "flwr.supernode.start_client_internal._push_messages",
            "while not (reply_messages := state.get_messages(is_reply=True)):\n        time.sleep(0.5)",
            "the wait for a reply, which there must be: adapt supernode_main.py: MessageLoop",
        ),
        (
            "flwr.supernode.start_client_internal._push_messages",
            'while (content := object_store.get(tree.object_id)) == b"":\n',
            "the wait for an object, which must be here: adapt supernode_main.py: MessageLoop",
        ),
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            "get_run,\n            get_fab,\n            pull_object,\n            push_object,\n"
            "            confirm_message_received,\n        ) = conn",
            "what a connection consists of: adapt fleet_client.py: FleetClient",
        ),
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            "run_id = _pull_and_store_message(\n                state=state,\n                object_store=store,\n"
            "                node_config=node_config,",
            "where the node config comes from, at each message: adapt node_session.py: node_config",
        ),
        (
            "flwr.supernode.start_client_internal._pull_and_store_message",
            "context = Context(\n                run_id=run_id,\n                node_id=state.get_node_id(),\n"
            "                node_config=node_config,",
            "the node config that a run keeps: adapt node_session.py: node_config",
        ),
        (
            "flwr.supercore.interceptors.runtime_token_interceptor.RuntimeTokenClientInterceptor",
            "metadata += ((TASK_TOKEN_HEADER, self._token),)",
            "how a call carries the token of its task: adapt task_queue.py: TaskToken",
        ),
    ],
)
def test_flower_does_as_we_expect(where: str, text: str, why: str) -> None:
    module, _, name = where.rpartition(".")
    target: Any = find(where) if name[0].isupper() else None
    if target is None:
        target = getattr(import_module(module), name) if _is_module(module) else find(where)
    assert text in textwrap.dedent(inspect.getsource(target)), f"{where} has changed: {why}"


@pytest.mark.parametrize(
    ("attributes", "where", "piece"),
    [
        (
            {"_addr", "_insecure", "_cert", "_token", "_channel", "_grpc_stub", "_retry_invoker"},
            "flwr.superlink.grid.GrpcGrid",
            "waiting_grid.py: WaitingGrid._connect",
        ),
        (
            {"msg_store", "lock_msg_store", "is_retrieved"},
            "flwr.supernode.nodestate.in_memory_nodestate.InMemoryNodeState",
            "supernode_main.py: MessageLoop._replies",
        ),
    ],
)
def test_a_class_keeps_what_we_look_at(attributes: set[str], where: str, piece: str) -> None:
    tree = ast.parse(source(where))
    assert attributes <= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}, f"adapt {piece}"


@pytest.mark.parametrize(
    ("function", "steps", "piece"),
    [
        (
            "flwr.supernode.cli.flower_supernode.flower_supernode",
            {"warn_if_flwr_update_available", "log", "event", "_parse_supernode_lifespan_config"}
            | {"start_client_internal"},
            "supernode_main.py: run_supernode",
        ),
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            {"flwr_exit", "ObjectStoreFactory", "NodeStateFactory", "log", "run_runtime_api_grpc"}
            | {"run_health_server_grpc_no_tls", "register_signal_handlers", "resolve_bind_address"}
            | {"get_client_tls_args", "str", "_init_connection", "_pull_and_store_message", "_push_messages"},
            "supernode_main.py: run_supernode, MessageLoop",
        ),
        (
            "flwr.supernode.start_client_internal._init_connection",
            {"parse_address", "flwr_exit", "ValueError", "_make_fleet_connection_retry_invoker", "connection"},
            "supernode_main.py: _fleet_client",
        ),
        (
            "flwr.supernode.servicer.runtime.runtime_grpc.run_runtime_api_grpc",
            {"log", "SuperNodeRuntimeServicer", "create_supernode_runtime_token_auth_server_interceptor"}
            | {"RpcErrorTranslationServerInterceptor", "create_supernode_runtime_superexec_auth_server_interceptor"}
            | {"create_supernode_runtime_version_server_interceptor", "generic_create_grpc_server"},
            "supernode_runtime.py: serve_runtime_api",
        ),
        (
            "flwr.superlink.grid.GrpcGrid._connect",
            {"log", "create_channel", "RuntimeVersionClientInterceptor", "RuntimeTokenClientInterceptor"}
            | {"RuntimeStub", "wrap_stub"},
            "waiting_grid.py: WaitingGrid._connect",
        ),
        (
            "flwr.client.grpc_rere_client.node_auth_client_interceptor.NodeAuthClientInterceptor.intercept_unary_unary",
            {"list", "now", "sign_message", "continuation"},
            "signatures.py: SigningInterceptor",
        ),
    ],
)
def test_flower_takes_the_steps_that_our_own_mains_take(function: str, steps: set[str], piece: str) -> None:
    module, _, name = function.rpartition(".")
    target = getattr(import_module(module), name) if _is_module(module) else find(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(target)))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called == steps, f"{function} has changed: adapt {piece}"


def _is_module(name: str) -> bool:
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def test_a_message_is_confirmed_only_when_all_its_objects_are_stored() -> None:
    text = inspect.getsource(import_module("flwr.supernode.start_client_internal")._pull_and_store_message)
    created, stored, confirmed = (
        text.index(part) for part in ("create_task(", "object_store.put(", "confirm_message_received(run_id")
    )
    assert created < stored < confirmed, (
        "the order of task, objects and confirmation has changed: adapt supernode_main.py: MessageLoop"
    )


def test_a_key_that_is_known_is_refused_as_in_use() -> None:
    from flwr.supercore.error import ApiErrorCode
    from flwr.supercore.error.catalog import API_ERROR_MAP

    assert "in use" in API_ERROR_MAP[ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE].public_message, (
        "adapt control_client.py: register"
    )


@pytest.mark.parametrize("state", ["sql_linkstate.SqlLinkState", "in_memory_linkstate.InMemoryLinkState"])
def test_a_node_is_online_until_its_heartbeats_are_missing_for_the_patience(state: str) -> None:
    heartbeat = source(f"flwr.server.superlink.linkstate.{state}.acknowledge_node_heartbeat")
    assert "HEARTBEAT_PATIENCE * heartbeat_interval" in heartbeat, "adapt control_client.py: _last_heartbeat"


def test_the_stock_supernodes_log_has_its_node_id_where_we_look_for_it() -> None:
    client = source("flwr.supernode.start_client_internal.start_client_internal")
    assert 'log(INFO, "SuperNode ID: %s", node_id)' in client
