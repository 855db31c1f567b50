"""The labels of jobs over HTTP: rows, and what people said of them."""
