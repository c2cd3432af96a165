"""Tests of omi_edge.store."""
