"""Few-shot tasks: what is read, what is learned, and how it is judged."""
