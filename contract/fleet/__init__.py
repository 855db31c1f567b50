"""The fleet as a whole: who is alive, what waits, how fast it goes, and how many workers are wanted."""
