"""What is checked on a cluster before a long job: measured on every node, judged by pure functions, told as values."""
