"""Generated images as data sets, one module a format."""
