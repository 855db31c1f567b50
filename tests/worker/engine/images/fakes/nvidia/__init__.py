"""Found before the real package, of which it takes the place."""
