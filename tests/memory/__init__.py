"""Tests of omi_edge.memory."""
