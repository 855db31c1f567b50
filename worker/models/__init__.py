"""Tries models that were pushed, in a process of their own, and publishes them. Runs no shard."""
