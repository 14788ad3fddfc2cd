"""Who does the work: one file for each runner."""
