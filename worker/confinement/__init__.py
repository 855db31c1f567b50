"""Runs code on hostile input, in children without credentials, network or files. Knows no images and no models."""
