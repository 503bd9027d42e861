"""CoTBal carried out: the runs of a plan (`equipoise.tasks.plan`), their scores, the weights, the comparison."""
