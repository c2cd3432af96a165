"""Tests of omi_edge.listen."""
