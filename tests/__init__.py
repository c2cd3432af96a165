"""Tests mirror the tree of omi_edge."""
