"""The transport of messages over Redis: kombu's own, with fewer connections, and safe from malformed messages."""
