"""Watches: a bucket that is labelled as it fills. The record, the chain of segments, and what has been seen."""
