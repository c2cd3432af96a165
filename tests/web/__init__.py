"""Tests of omi_edge.web."""
