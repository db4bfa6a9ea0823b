"""Tests of lobit.nn."""
