"""Tests of `producer.web.console`."""
