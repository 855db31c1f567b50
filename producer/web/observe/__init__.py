"""What the HTTP API shows of itself: readiness, metrics, and the port that serves both."""
