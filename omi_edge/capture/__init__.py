"""Pendant and other sources: notification → frame → PCM."""
