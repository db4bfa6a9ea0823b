"""Tests of the file, its graph and its packing."""
