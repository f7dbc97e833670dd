"""What the host, the SuperLink and the SuperNodes must agree on: file formats, file names and locks."""
