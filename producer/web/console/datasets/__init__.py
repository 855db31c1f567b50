"""Generated images: every candidate with its verdict, what other thresholds would keep, and datasets by version."""
