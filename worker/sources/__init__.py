"""Lists and reads sources: prefixes, tars, manifests, IDX files, the web. Decodes no image."""
