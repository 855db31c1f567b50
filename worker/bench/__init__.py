"""Measures this machine: parts, ideal loops, the whole product."""
