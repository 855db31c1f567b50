"""Tests of `producer.web.console.jobs`."""
