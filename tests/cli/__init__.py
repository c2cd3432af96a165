"""Tests of omi_edge.cli."""
