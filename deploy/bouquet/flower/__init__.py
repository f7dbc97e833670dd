"""The seam to Flower 1.34: whatever Bouquet uses of Flower's private API, it uses here.

Bouquet builds its SuperLink and its SuperNode from Flower's parts, so that they wait for events instead of polling and
survive restarts. `private_api` lists each private name that is imported, `replacements` each name that had to be
replaced in Flower's modules instead, and why. `tests/unit/bouquet/flower/test_seam.py` holds both lists to the code;
`test_contract.py` beside it holds the installed Flower to what the code relies on, and names what to adapt.

====================  ================================================================================================
version               refuses any release of Flower but 1.34
private_api           the private names that each module imports
replacements          the names in Flower's modules that are replaced, and why

notifier              waiting for events in one process, without gRPC
delivery_tracker      which messages are complete, without gRPC
holding               held calls: a server answers once there is something to answer
channels              channels and retries that find a restarted server within seconds
signatures            one signature a second for all calls of a SuperNode
messages              messages made from Flower's

supernode_main        the SuperNode: its start and its main loop
node_session          what the parts of one SuperNode share
fleet_client          its connection to the SuperLink
heartbeat             its heartbeats
supernode_runtime     its Runtime API, for ClientApp processes and the executor

superlink_main        the SuperLink: its start
superlink_events      what the parts of one SuperLink share
fleet_servicer        its Fleet API, for SuperNodes
superlink_runtime     its Runtime API, for ServerApp processes and the executor
control_servicer      its Control API, for the `flwr` command
fleet_describer       its service next to that API: names, partitions and kinds of nodes
link_state            its state: Flower's, but for messages and objects
message_state         its messages, in memory and in files
object_files          their objects, likewise
message_files         those files
liveness              which SuperNodes still answer
node_auth             who may call the Fleet API
auth_log              which SuperNodes were refused, and why

task_queue            the executor's side of the Runtime API
moved_modules         modules that Flower has moved, at their old place
missing_module        explains an import that the fleet's packages cannot serve
client_app_process    serves the messages of one run in a process
message_history       recognises an app that may run only once per process
server_app_process    runs one ServerApp in a process
run_grid              its Grid: waits for the fleet, shows the run's members, keeps deadlines, names failures
members               the SuperNodes that take part in a run, while the fleet changes
waiting_grid          the Grid below it, which waits for replies by held calls
recorded_run          the results folder and the record of the run around it
run_recorder          records what the ServerApp does: strategies, and exchanges of its own
strategy_start        one call of a strategy's `start`: rounds, deadlines, bad replies
sampling              which nodes a strategy samples from, and how many it may ask for
reply_check           which replies a strategy can average
array_files           the arrays of the replies that it holds, in files
control_client        the client of the Control API, and of the service next to it
follow_run            a run's log to its end, across restarts of the SuperLink
app_fab               an app's folder as `flwr build` packs it
stock                 Flower's own SuperLink and SuperNode, unchanged (EXECUTOR=stock)
====================  ================================================================================================
"""
