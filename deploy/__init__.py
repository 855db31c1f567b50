"""How Imagemill is started: the embedded stack, containers, the demo. Nothing here knows images."""
