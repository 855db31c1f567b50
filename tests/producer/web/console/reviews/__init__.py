"""Tests of `producer.web.console.reviews`."""
