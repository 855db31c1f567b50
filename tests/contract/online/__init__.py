"""Tests of the online path."""
