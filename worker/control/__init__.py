"""Plan, finalize and reconcile; runs on the queue `control` and never imports torch."""
