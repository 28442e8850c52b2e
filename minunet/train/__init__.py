"""Training: one loop for every task, and what each task adds."""
