"""Presets: files of settings, each named after what it reproduces."""
