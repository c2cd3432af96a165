"""Tests of omi_edge.capture."""
