"""Images, sequences, rows and data sets as records and columns. Talks to no server."""
