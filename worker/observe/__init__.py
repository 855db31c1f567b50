"""What a process shows to the outside: figures, probes, and the one port that serves them.

It imports nothing else of the worker: whoever starts a process says what a probe looks at.
"""
