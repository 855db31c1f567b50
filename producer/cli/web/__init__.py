"""The commands of what faces outwards: the HTTP API, its tokens, and webhooks."""
