"""Pictures drawn from arrays: plots, grids of images, confusion matrices. Knows no model, no page and no store."""
