"""The warm executor: apps run in processes that have imported their framework before any run starts.

`executor` claims tasks and supervises processes; `worker_state` is the state machine of such a process. `zygote` has
imported the framework and forks (`preload` says what that changes for apps); `worker` is a fork, and serves one run;
`process_end` ends it as any Python process ends; `memory_growth` says when to replace it. `restarter` keeps one child
process running. Flower is reached through `bouquet.flower` only.
"""
