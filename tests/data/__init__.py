"""Tests of lobit.data."""
