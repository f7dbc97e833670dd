"""Names in the stack file that the commands must know. The module that writes the file needs a YAML library for it."""

from bouquet.settings.host import PROJECT

FOLDER = PROJECT / "deploy" / "swarm"
STACK = FOLDER / "stack.yml"
RUN_FOLDER, SERVER_FOLDER = "/run/bouquet-task", "/run/bouquet-server"
IDENTITY_FOLDER, LEASE_FOLDER = "/run/bouquet-identities", "/run/bouquet-leases"
"""Where a tmpfs is mounted. It belongs to root, with the mode of the image's folder, or 1777 where the image has none:
so these are folders that the image does not have."""
SECRETS = ("seed", "ca_key", "ca_crt")
"""The stack's secrets, without the stack's name and an underscore before each."""
SUPERLINK_LABEL, SUPERNODE_LABEL = "bouquet.superlink", "bouquet.supernode"
"""Labels of Swarm's nodes. `true` is where the SuperLink runs; `false` is where no SuperNode runs."""
