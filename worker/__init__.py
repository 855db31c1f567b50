"""Runs jobs. It imports `contract` and never `producer`; `control` does without torch."""
