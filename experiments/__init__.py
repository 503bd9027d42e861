"""The papers' experiments on the embedded stacks, and ours: docs/experiments.md has protocol and results."""
