"""What a process shows to the outside: lines of logs, spans of traces, and one port for probes and metrics.

The metrics themselves are in `contract.instruments`; whoever starts a process says what its probes look at.
"""
