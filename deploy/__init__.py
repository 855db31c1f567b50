"""Starts Imagemill: the embedded stack, containers, the demo. Knows no images."""
