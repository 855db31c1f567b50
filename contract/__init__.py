"""What producers and workers must agree on. A module belongs here only if both sides use it.

It imports neither torch nor `producer` nor `worker`, and importing the package itself imports nothing.
"""
