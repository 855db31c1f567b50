"""Disasters at scale, with counts: short in `make drill`, as long as the promise by `make drill-long`."""
