"""Clients of the servers: the object store (S3), and the ledger and task queues in Redis. Knows no models."""
