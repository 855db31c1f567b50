"""Pictures drawn of arrays: grids, contact sheets, confusion matrices. Knows no model."""
