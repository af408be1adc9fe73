"""Timed comparisons; run as modules from the root of the checkout, never imported by tests."""
