"""Settings, one module per process. Each process imports its own module only; `env` has the parsers they share."""
