"""What lies outside, listed and read: prefixes, tars, manifests, IDX files, the web. Decodes no image."""
