"""Served models over HTTP: images in, rows or images out, at once."""
