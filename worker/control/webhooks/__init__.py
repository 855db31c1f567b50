"""Makes messages of what happened, and delivers them to webhooks: one loop of one controller, and a few threads."""
