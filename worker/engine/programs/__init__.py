"""Models as torch modules: exported programs and the graph that every runtime starts from."""
