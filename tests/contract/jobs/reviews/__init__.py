"""Verdicts, what they settle, and the sets that are made of them."""
