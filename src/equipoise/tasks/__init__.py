"""CoTBal: balance between the tasks of a mixture. Knows nothing of trainers, files or modules of a model."""
