"""The HTTP API: the same jobs, schedules, watches and models as the command line, for clients with a token."""
