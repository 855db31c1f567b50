"""Tests of `producer.web.v1`."""
