"""The seam to Flower: every use of Flower's private API is in this package, and nowhere else.

Written against Flower 1.34; `tests/unit/deploy/flower/test_contract.py` checks each line of this table against the
installed release and says which piece to mend.

==============  =====================================================================================================
piece           depends on
==============  =====================================================================================================
superlink.py    the servicer classes and the names under which `flower_superlink`, `runtime_grpc` and `control_grpc`
                instantiate them; their methods' signatures; `SuperLinkLifespan.startup`; that `control_handlers`
                waits for log lines by `time.sleep(LOG_STREAM_INTERVAL)`; that `PushMessages` answers with the
                objects to push; `get_authenticated_task`; that a node does one thing after the other
database.py     `InMemoryLinkState` and `InMemoryCoreState`: the methods for messages and objects, and what they use of
                themselves; `InMemoryObjectStore`; `SqlLinkState`; the names in the two factories; what is deleted
                when a run ends, and when a message is confirmed
channels.py     `create_channel` calls `grpc` by that name; `MAX_RETRY_DELAY`
refusal.py      `NodeAuthServerInterceptor`, under that name in `flower_superlink`; the codes of `FlowerError` for a
                node that may not register or activate; that an abort leaves its code in the context
control.py      the Control API's `ListNodes` and `RegisterNode`; that a key already known is refused as 'in use'
supernode.py    `start_client_internal`: its `_init_connection` and what that yields, its sleeps (3 s after an empty
                pull, 0.5 s for a reply), its `_push_messages`; that a message is confirmed once all its objects are
                stored;
                `grpc_rere_client.connection`: `create_channel`, `wrap_stub`, `HeartbeatSender` and its retries
tasks.py        the Runtime API's messages; `TASK_TOKEN_HEADER`; `run_clientapp.push_message`
clientapp.py    `run_clientapp`: `pull_task_input`, `push_message`, `push_task_output`; `install_from_fab`;
                `get_load_client_app_fn`; `RuntimeTokenClientInterceptor._token`
nodes.py        the Control API's `ListNodes`: `online_until` is the last heartbeat and `HEARTBEAT_PATIENCE` intervals
serverapp.py    `run_serverapp`: `GrpcGrid`, `start_log_uploader`, `flush_logs`; `grpc_grid.create_channel`;
                that the SuperLink answers for a node as `SUPERLINK_NODE_ID`
==============  =====================================================================================================
"""
