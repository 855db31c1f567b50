"""Limits for processes that read what anybody may have written. It knows neither jobs nor images."""
