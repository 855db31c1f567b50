"""The commands that read the labels of jobs: rows, and what people said of them."""
