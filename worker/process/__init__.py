"""One worker process: it serves messages, sends heartbeats, tests itself, and leaves if it cannot work reliably.

It knows no kind of job: `contract.jobs.kinds` says what runs one. The controller uses the same process without an
engine, so torch is never imported there.
"""
