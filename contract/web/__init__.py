"""Fetches from the web: which addresses may be reached, on which connections, and for how long."""
