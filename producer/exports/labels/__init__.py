"""Labelled rows as files, one module a format. Knows rows and bytes, not how a job runs."""
