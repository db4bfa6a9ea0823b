"""Tests of lobit.models."""
