"""What the SuperLink side of bouquet.flower relies on in Flower's private API.

A failure says what has changed in Flower and which module to fix. A function that a module of ours mirrors is pinned by
a digest of its source: compare the new source with the module, fix the module, and then update the digest.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.corestate.sql_corestate import SqlCoreState

import bouquet.flower
from bouquet.flower import control_servicer, fleet_servicer, superlink_main, superlink_runtime
from bouquet.flower.link_state import LinkState
from bouquet.flower.message_state import MessageState
from bouquet.flower.messages import METADATA_FIELDS
from tests.unit.bouquet.flower.fakes import open_state
from tests.unit.bouquet.flower.flower_source import find, source

SUPERLINK_MODULES = (
    "auth_log",
    "control_http",
    "control_port",
    "control_servicer",
    "fleet_servicer",
    "link_state",
    "liveness",
    "message_files",
    "message_state",
    "messages",
    "node_auth",
    "object_files",
    "superlink_events",
    "superlink_main",
    "superlink_runtime",
)

FLEET = "flwr.server.superlink.fleet.grpc_rere.fleet_servicer.FleetServicer"
RUNTIME = "flwr.superlink.servicer.runtime.runtime_servicer.SuperLinkRuntimeServicer"
CONTROL = "flwr.superlink.servicer.control.control_servicer.ControlServicer"
OBJECTS = "flwr.supercore.object_store.in_memory_object_store.InMemoryObjectStore"
LIFESPAN = "flwr.superlink.cli.flower_superlink.SuperLinkLifespan"
NODE_AUTH = "flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor"
HANDLERS = "flwr.superlink.servicer.control.control_handlers"

# Of the in-memory state: what MessageState uses for messages, and what for objects.
MESSAGE_METHODS = (
    "store_message_ins",
    "store_message_res",
    "store_message_and_object_tree",
    "get_message_ins",
    "get_message_res",
    "get_message_ids_from_run_id",
    "delete_messages",
    "num_message_ins",
    "num_message_res",
    "_check_stored_messages",
    "_on_push_session_expired",
)
OBJECT_METHODS = (
    "start_session",
    "delete_sessions_in_run",
    "preregister_object_tree",
    "store_object",
    "get_object",
    "_cleanup_push_session",
)
# What MessageState has itself, or answers from the database. Nothing else of the in-memory state is filled.
FILLED = {
    "lock",
    "nodes",
    "run_ids",
    "message_ins_store",
    "message_res_store",
    "message_ins_id_to_message_res_id",
    "federation_manager",
    "object_store",
    "_is_finished_run",
    "_object_push_sessions",
    "_object_push_session_by_root",
    "_lock_object_push_sessions",
    *MESSAGE_METHODS,
    *OBJECT_METHODS,
}


def used_of_self(method: Callable[..., Any]) -> set[str]:
    """Names of the attributes of `self` in a method's source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


@pytest.mark.parametrize("name", SUPERLINK_MODULES)
def test_the_superlink_replaces_no_name_in_flower(name: str) -> None:
    tree = ast.parse(Path(bouquet.flower.__path__[0], f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called != "setattr", f"line {node.lineno} of {name}.py sets an attribute by name"
        if isinstance(node, ast.ImportFrom) and node.module == "bouquet.flower.replacements":
            assert {alias.name for alias in node.names} == {"check_version"}, f"{name}.py replaces names"
        if isinstance(node, ast.Attribute):
            assert node.attr != "__dict__", f"line {node.lineno} of {name}.py writes into an object's __dict__"


@pytest.mark.parametrize(
    ("function", "digest", "piece"),
    [
        (
            "flwr.superlink.cli.flower_superlink.flower_superlink",
            "6dc49e920dd94ba5",
            "superlink_main.py: run_superlink",
        ),
        (
            "flwr.superlink.cli.flower_superlink._run_fleet_api_grpc_rere",
            "941cd68b2038181c",
            "superlink_main.py: EventLifespan._start_legacy_fleet_grpc_rere",
        ),
        (
            f"{LIFESPAN}._start_legacy_fleet_grpc_rere",
            "6c1b49a47fe96581",
            "superlink_main.py: EventLifespan._start_legacy_fleet_grpc_rere",
        ),
        (
            "flwr.superlink.servicer.control.control_grpc.run_control_api_grpc",
            "429e879cedce951e",
            "superlink_main.py: EventLifespan._start_control_api",
        ),
        (
            f"{LIFESPAN}._start_control_api",
            "67c43c1995802be6",
            "superlink_main.py: EventLifespan._start_control_api",
        ),
        (
            "flwr.superlink.servicer.runtime.runtime_grpc.run_runtime_api_grpc",
            "e90b6fe390ffff3a",
            "superlink_main.py: EventLifespan._start_runtime_api",
        ),
        (
            f"{LIFESPAN}._start_runtime_api",
            "94aefd579bb408cb",
            "superlink_main.py: EventLifespan._start_runtime_api",
        ),
        (
            "flwr.superlink.config_loader.get_objectstore_linkstate_factories",
            "9f697d33f4936d22",
            "superlink_main.py: create_lifespan",
        ),
        (f"{HANDLERS}.stream_logs", "a3edebe0cb5bf78a", "control_servicer.py: EventControlServicer._stream_logs"),
        (f"{CONTROL}.StreamLogs", "dc432840eb1cf290", "control_servicer.py: EventControlServicer.StreamLogs"),
        (
            f"{NODE_AUTH}.NodeAuthServerInterceptor.intercept_service",
            "98f076306a7197e1",
            "node_auth.py: NodeAuthInterceptor",
        ),
        (
            "flwr.server.superlink.linkstate.linkstate_factory.LinkStateFactory.state",
            "df9dc754c3a255a7",
            "link_state.py: StateFactory.state",
        ),
        (
            "flwr.supercore.object_store.object_store_factory.ObjectStoreFactory.store",
            "aba40bdbc9666b23",
            "object_files.py: ObjectFilesFactory.store",
        ),
    ],
)
def test_a_function_that_we_mirror_is_the_one_we_mirrored(function: str, digest: str, piece: str) -> None:
    found = hashlib.sha256(source(function).encode()).hexdigest()[:16]
    assert found == digest, f"{function} has changed: fix {piece}, then set its digest here to {found}"


@pytest.mark.parametrize(
    ("function", "parameters", "piece"),
    [
        (f"{LIFESPAN}.__init__", ["self", "config", "state_factory"], "superlink_main.py: EventLifespan"),
        (f"{LIFESPAN}.startup", ["self"], "superlink_main.py: EventLifespan"),
        (f"{LIFESPAN}.shutdown", ["self"], "superlink_main.py: EventLifespan"),
        (
            f"{LIFESPAN}._start_legacy_fleet_grpc_rere",
            ["self", "fleet_address"],
            "superlink_main.py: EventLifespan",
        ),
        ("flwr.superlink.cli.flower_superlink._parse_superlink_lifespan_config", [], "superlink_main.py"),
        ("flwr.superlink.config_loader.get_federation_manager", ["is_simulation"], "superlink_main.py"),
        (
            "flwr.supercore.exit.register_signal_handlers",
            ["event_type", "exit_message", "grpc_servers", "bckg_threads", "exit_handlers"],
            "superlink_main.py: run_superlink",
        ),
        (
            "flwr.supercore.grpc.generic_create_grpc_server",
            [
                "servicer_and_add_fn",
                "server_address",
                "max_concurrent_workers",
                "max_message_length",
                "keepalive_time_ms",
                "certificates",
                "interceptors",
            ],
            "superlink_main.py: EventLifespan",
        ),
        (
            f"{FLEET}.__init__",
            ["self", "state_factory", "objectstore_factory", "enable_supernode_auth"],
            "fleet_servicer.py: EventFleetServicer",
        ),
        (
            f"{RUNTIME}.__init__",
            ["self", "state_factory", "objectstore_factory"],
            "superlink_runtime.py: EventRuntimeServicer",
        ),
        (
            f"{CONTROL}.__init__",
            ["self", "linkstate_factory", "objectstore_factory", "authn_plugin", "artifact_provider", "fleet_api_type"],
            "control_servicer.py: EventControlServicer",
        ),
        (
            f"{HANDLERS}._validate_federation_membership_in_request",
            ["state", "flwr_aid", "federation_id"],
            "control_servicer.py: EventControlServicer._stream_logs",
        ),
        (
            "flwr.superlink.servicer.control.control_servicer._get_account",
            [],
            "control_servicer.py: EventControlServicer.StreamLogs",
        ),
        (
            f"{NODE_AUTH}.NodeAuthServerInterceptor._wrap_method_handler",
            ["self", "method_handler", "received_public_key"],
            "node_auth.py: NodeAuthInterceptor",
        ),
        (f"{NODE_AUTH}._unary_unary_rpc_terminator", ["message", "code"], "node_auth.py: NodeAuthInterceptor"),
        ("flwr.app.message.make_message", ["metadata", "content", "error"], "messages.py: with_message_id"),
        (f"{OBJECTS}.preregister", ["self", "run_id", "object_tree"], "object_files.py: ObjectFiles"),
        (f"{OBJECTS}.put", ["self", "object_id", "object_content"], "object_files.py: ObjectFiles"),
        (f"{OBJECTS}.get", ["self", "object_id"], "object_files.py: ObjectFiles"),
        (f"{OBJECTS}.delete", ["self", "object_id"], "object_files.py: ObjectFiles"),
    ],
)
def test_a_function_takes_the_parameters_we_give(function: str, parameters: list[str], piece: str) -> None:
    signature = inspect.signature(find(function))
    assert list(signature.parameters) == parameters, f"{function} is now {signature}: fix {piece}"


@pytest.mark.parametrize(
    ("servicer", "method", "request_", "response"),
    [
        (FLEET, "ActivateNode", "ActivateNodeRequest", "ActivateNodeResponse"),
        (FLEET, "DeactivateNode", "DeactivateNodeRequest", "DeactivateNodeResponse"),
        (FLEET, "SendNodeHeartbeat", "SendNodeHeartbeatRequest", "SendNodeHeartbeatResponse"),
        (FLEET, "PullMessages", "PullMessagesRequest", "PullMessagesResponse"),
        (FLEET, "PushMessages", "PushMessagesRequest", "PushMessagesResponse"),
        (FLEET, "PushObject", "PushObjectRequest", "PushObjectResponse"),
        (FLEET, "GetRun", "GetRunRequest", "GetRunResponse"),
        (RUNTIME, "PullPendingTasks", "PullPendingTasksRequest", "PullPendingTasksResponse"),
        (RUNTIME, "CreateTask", "CreateTaskRequest", "CreateTaskResponse"),
        (RUNTIME, "PushMessages", "PushAppMessagesRequest", "PushAppMessagesResponse"),
        (RUNTIME, "PullMessages", "PullAppMessagesRequest", "PullAppMessagesResponse"),
        (RUNTIME, "PushObject", "PushObjectRequest", "PushObjectResponse"),
        (RUNTIME, "PushLogs", "PushLogsRequest", "PushLogsResponse"),
        (RUNTIME, "PushTaskOutput", "PushTaskOutputRequest", "PushTaskOutputResponse"),
        (CONTROL, "StartRun", "StartRunRequest", "StartRunResponse"),
        (CONTROL, "StopRun", "StopRunRequest", "StopRunResponse"),
        (CONTROL, "StreamLogs", "StreamLogsRequest", "Generator"),
    ],
)
def test_a_servicer_method_takes_and_gives_what_we_expect(
    servicer: str, method: str, request_: str, response: str
) -> None:
    signature = inspect.signature(find(f"{servicer}.{method}"))
    piece = {FLEET: "fleet_servicer.py", RUNTIME: "superlink_runtime.py", CONTROL: "control_servicer.py"}[servicer]
    complaint = f"{servicer}.{method} is now {signature}: fix {piece}"
    assert list(signature.parameters) == ["self", "request", "context"], complaint
    assert named(signature.parameters["request"].annotation) == request_, complaint
    assert named(signature.return_annotation) == response, complaint


def named(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


@pytest.mark.parametrize(
    ("servicer", "ours"),
    [
        (FLEET, fleet_servicer.EventFleetServicer),
        (RUNTIME, superlink_runtime.EventRuntimeServicer),
        (CONTROL, control_servicer.EventControlServicer),
        (LIFESPAN, superlink_main.EventLifespan),
    ],
)
def test_a_method_that_we_override_exists_in_flower(servicer: str, ours: type) -> None:
    added = {
        "_stream_logs",
        "_is_online",
        "_admit",
        "_keep_online",
        "_note_call",
        "_register_slot",
        "_resolve_in_flight",
        "_answer_with_error",
        "_on_node_gone",
        "_on_node_removed",
    }
    overridden = {name for name, value in vars(ours).items() if inspect.isfunction(value)} - added
    gone = {name for name in overridden if not hasattr(find(servicer), name)}
    assert not gone, f"{servicer} no longer has {gone}: fix {ours.__module__}"


@pytest.mark.parametrize(
    ("message", "fields", "piece"),
    [
        ("runtime_pb2.PushAppMessagesRequest", {"messages_list", "message_object_trees"}, "superlink_runtime.py"),
        ("runtime_pb2.PushAppMessagesResponse", {"message_ids", "objects_to_push"}, "superlink_runtime.py"),
        ("runtime_pb2.PullAppMessagesRequest", {"message_ids"}, "superlink_runtime.py"),
        ("runtime_pb2.PullPendingTasksResponse", {"tasks"}, "superlink_runtime.py"),
        ("fleet_pb2.PushMessagesRequest", {"messages_list", "message_object_trees"}, "fleet_servicer.py"),
        ("fleet_pb2.PushMessagesResponse", {"objects_to_push"}, "fleet_servicer.py"),
        ("fleet_pb2.ActivateNodeRequest", {"public_key"}, "fleet_servicer.py"),
        ("fleet_pb2.DeactivateNodeRequest", {"node_id"}, "fleet_servicer.py"),
        ("message_pb2.PushObjectResponse", {"stored"}, "fleet_servicer.py, superlink_runtime.py"),
        ("control_pb2.StreamLogsRequest", {"run_id", "after_timestamp"}, "control_servicer.py"),
        ("control_pb2.StreamLogsResponse", {"log_output", "latest_timestamp"}, "control_servicer.py"),
        ("control_pb2.StopRunResponse", {"success"}, "control_servicer.py"),
    ],
)
def test_a_protocol_message_has_the_fields_we_use(message: str, fields: set[str], piece: str) -> None:
    has = set(find(f"flwr.proto.{message}").DESCRIPTOR.fields_by_name)
    assert fields <= has, f"{message} no longer has {fields - has}: fix {piece}"


def test_messages_have_no_metadata_that_we_leave_out() -> None:
    has = set(find("flwr.proto.message_pb2.Metadata").DESCRIPTOR.fields_by_name)
    known = set(inspect.signature(find("flwr.app.Metadata")).parameters)
    assert has == known == set(METADATA_FIELDS), "a message's metadata has changed: fix messages.py: METADATA_FIELDS"


@pytest.mark.parametrize(
    ("where", "text", "why"),
    [
        (
            f"{OBJECTS}.delete",
            "self.delete(child_id)",
            "what is deleted with an object: fix object_files.py: ObjectFiles.delete",
        ),
        (
            "flwr.server.superlink.linkstate.linkstate.LinkState.cleanup_run",
            "self.delete_messages(self.get_message_ids_from_run_id(run_id))\n"
            "    self.object_store.delete_objects_in_run(run_id)",
            "what is deleted with a run: fix message_state.py: MessageState.delete_messages",
        ),
        (
            "flwr.superlink.servicer.runtime.runtime_handlers.confirm_message_received",
            "state.object_store.delete(request.message_object_id)",
            "that a reply stays until the ServerApp has confirmed it: fix message_state.py: "
            "MessageState._on_root_deleted",
        ),
        (
            "flwr.supernode.start_client_internal.start_client_internal",
            "_push_messages(\n                state=state,\n"
            "                object_store=store,\n                send=send,\n",
            "that a stock node asks for a message only when it works on none: fix fleet_servicer.py: "
            "EventFleetServicer.PullMessages",
        ),
        (
            f"{LIFESPAN}._start_fleet_api",
            "self._start_legacy_fleet_grpc_rere(fleet_address)",
            "what starts the Fleet API: fix superlink_main.py: EventLifespan",
        ),
        (
            f"{LIFESPAN}._start_superexec_if_needed",
            "self._runtime_server.bound_address",
            "who else uses the Runtime API's server: fix superlink_main.py: EventLifespan._start_runtime_api",
        ),
        (
            "flwr.supercore.exit.exit_handler.trigger_exit_handlers",
            "reversed(registered_exit_handlers)",
            "the order of exit handlers: fix superlink_main.py: run_superlink",
        ),
        (
            "flwr.server.superlink.linkstate.utils.create_message_error_unavailable_res_message",
            'msg.metadata.__dict__["_message_id"] = msg.object_id',
            "how Flower names a message: fix messages.py: with_message_id",
        ),
        (
            "flwr.server.superlink.linkstate.sql_linkstate.SqlLinkState.__init__",
            "federation_manager.linkstate = self",
            "which state the federation manager asks: fix link_state.py: LinkState.__init__",
        ),
        (
            "flwr.server.superlink.linkstate.in_memory_linkstate.InMemoryLinkState.__init__",
            "federation_manager.linkstate = self",
            "which state the federation manager asks: fix link_state.py: LinkState.__init__",
        ),
    ],
)
def test_flower_does_as_we_expect(where: str, text: str, why: str) -> None:
    assert text in source(where), f"{where} has changed: {why}"


def test_the_lifespan_starts_all_apis_before_startup_returns() -> None:
    text = source(f"{LIFESPAN}.startup")
    apis = [text.index(f"self._start_{api}_api()") for api in ("control", "runtime", "fleet")]
    assert apis == sorted(apis), "SuperLinkLifespan.startup has changed: fix superlink_main.py: EventLifespan.startup"


def test_the_servers_have_a_thread_for_each_held_call() -> None:
    workers = inspect.signature(find("flwr.supercore.grpc.generic_create_grpc_server")).parameters[
        "max_concurrent_workers"
    ]
    assert workers.default >= 500, "fewer threads than waiting nodes: pass more in superlink_main.py: EventLifespan"


def test_servers_limit_messages_as_we_expect() -> None:
    from flwr.supercore.grpc import GRPC_MAX_MESSAGE_LENGTH

    parameters = inspect.signature(find("flwr.supercore.grpc.generic_create_grpc_server")).parameters
    limit = parameters["max_message_length"].default
    assert limit == GRPC_MAX_MESSAGE_LENGTH, "pass max_message_length in superlink_main.py: EventLifespan"


def test_a_node_is_refused_with_the_codes_that_we_log() -> None:
    fleet = find(FLEET)
    for method, code in (
        ("RegisterNode", "FLEET_SUPERNODE_REGISTRATION_DISABLED"),
        ("ActivateNode", "FLEET_NODE_ACTIVATION_FAILED"),
    ):
        text = inspect.getsource(getattr(fleet, method))
        assert f"ApiErrorCode.{code}" in text, f"{FLEET}.{method} has changed: fix auth_log.py: REASONS"
    activate = source("flwr.server.superlink.fleet.message_handler.message_handler.activate_node")
    assert "could not be activated" in activate, "how a node still online is refused has changed: fix auth_log.py"


def test_only_calls_with_one_request_and_one_answer_need_node_authentication() -> None:
    from flwr.proto.fleet_pb2 import DESCRIPTOR

    streams = [
        method.name
        for method in DESCRIPTOR.services_by_name["Fleet"].methods
        if method.client_streaming or method.server_streaming
    ]
    assert streams == [], "the Fleet API has streams: fix node_auth.py: _log_refusals"


@pytest.mark.parametrize(
    ("state", "name"),
    [(InMemoryLinkState, name) for name in MESSAGE_METHODS] + [(InMemoryCoreState, name) for name in OBJECT_METHODS],
)
def test_a_method_of_the_message_state_finds_all_that_it_uses(state: type, name: str, tmp_path: Path) -> None:
    used = used_of_self(getattr(state, name))
    assert used <= FILLED, f"{state.__name__}.{name} now uses {used - FILLED}: fix message_state.py: MessageState"
    messages = open_state(tmp_path / "superlink.db").messages
    missing = {attribute for attribute in used if not hasattr(messages, attribute)}
    assert not missing, f"{state.__name__}.{name} now uses {missing}: fix message_state.py: MessageState"


def test_the_message_state_overrides_only_methods_that_exist_in_flower() -> None:
    overridden = {
        "_is_finished_run",
        "store_message_ins",
        "store_message_res",
        "get_message_ins",
        "delete_messages",
        "store_object",
    }
    assert overridden <= set(vars(MessageState))
    gone = {name for name in overridden if not hasattr(InMemoryLinkState, name)}
    assert not gone, f"InMemoryLinkState no longer has {gone}: fix message_state.py: MessageState"


def test_no_method_of_the_database_that_is_about_messages_or_objects_can_be_reached() -> None:
    about_messages = {"MessageInsModel", "MessageResModel", "MessageIns", "MessageRes"}
    about_messages |= {f"ObjectPushSession{part}Model" for part in ("", "Pending", "Root")}
    methods = {
        name: method
        for state in (SqlCoreState, SqlLinkState)
        for name, method in vars(state).items()
        if inspect.isfunction(method)
    }
    delegated = set(vars(LinkState))

    def names(method: Any) -> set[str]:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    unreachable = {name for name, method in methods.items() if names(method) & about_messages} - delegated
    assert {"_claim_message_ins_rows", "_claim_pending_object"} <= unreachable, "the names of the tables have changed"
    for name, method in methods.items():
        if name not in delegated | unreachable:
            called = used_of_self(method) & unreachable
            assert not called, f"the database's {name} calls {called}: delegate it in link_state.py: LinkState"
    public = {name for name in unreachable if not name.startswith("_")} - {"get_valid_message_ins"}
    assert not public, f"the database answers {public} itself: delegate it in link_state.py: LinkState"
