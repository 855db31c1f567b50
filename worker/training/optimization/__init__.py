"""Optimisers, learning rates, averaged weights and losses. Knows no family."""
