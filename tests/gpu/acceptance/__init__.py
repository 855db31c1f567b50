"""What a GPU is accepted by: `python -m tests.gpu.acceptance --out DIR` checks it, measures it and writes a report.

It is no test of pytest, for a skipped test must not pass for a success: without a device it fails.
"""
