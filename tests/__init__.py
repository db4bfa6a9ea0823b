"""Tests of lobit; the folders mirror the package."""
