"""Tests of lobit.report.sweep."""
