"""Which GPU each SuperNode computes on. The host and the nodes compute the same plan."""
