"""Synthetic hospitals for demonstrations and tests."""
