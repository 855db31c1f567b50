"""Celery tasks: thin, each a call of what does the work."""
