"""A run looked at while it goes on: served as a report that updates itself, or followed line by line."""
