"""Whether a process that has imported a framework can be forked: `bouquet.executor.frameworks` lists those that can."""
