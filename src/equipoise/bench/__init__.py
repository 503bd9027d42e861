"""What balance costs and how far it can be trusted: steps, memory, fidelity and growth, each figure a ratio."""
