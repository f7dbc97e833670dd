"""Processes that prepare a fleet and end: they issue certificates, enrol SuperNodes, and store a received key."""
