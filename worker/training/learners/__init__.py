"""Learners, one a family: what a step does. Know no loop, no checkpoint and no bucket."""
