"""The resources under `/v1`, a module each, named as in their addresses; `online` has the requests to served models."""
