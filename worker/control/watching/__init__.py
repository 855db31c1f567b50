"""The consumer that keeps watches: sweeps, the chain of segments, and which controller keeps which watch."""
