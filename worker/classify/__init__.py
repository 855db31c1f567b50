"""Classify jobs: shards, rows, report."""
