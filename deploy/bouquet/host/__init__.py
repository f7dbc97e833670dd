"""The `bouquet` command on the host. Images do not contain this package, and nothing else imports it."""
