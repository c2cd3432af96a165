"""Tests of omi_edge.virtual."""
