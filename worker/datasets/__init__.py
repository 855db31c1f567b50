"""Labelled sources as arrays to learn from or to judge by. Knows no learner."""
