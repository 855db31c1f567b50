"""Batches and their augmentation. Knows no model."""
