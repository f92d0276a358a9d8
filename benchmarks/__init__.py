"""Side-by-side measurements against other tools, one command each; their results lie in `results/`."""
