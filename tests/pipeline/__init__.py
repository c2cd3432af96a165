"""Tests of omi_edge.pipeline."""
