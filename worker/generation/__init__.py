"""Jobs that generate: candidates, selection, archives, verification, reports."""
