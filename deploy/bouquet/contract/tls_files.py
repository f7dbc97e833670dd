"""Names of the files with certificates and keys, in the folders that containers share."""

CA, CA_KEY = "ca.crt", "ca.key"
"""The fleet's certificate authority, and its private key."""
SERVER, SERVER_KEY = "server.pem", "server.key"
"""The SuperLink's certificate and its private key."""
