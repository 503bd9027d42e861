"""Methods by seeds on one recipe: the runs, their scores side by side, and what the differences are worth."""
