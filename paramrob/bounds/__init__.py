"""The bound engine: intervals, linear bounds and branch and bound."""
