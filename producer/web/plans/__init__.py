"""What goes on by itself, over HTTP: schedules, watches and webhooks."""
