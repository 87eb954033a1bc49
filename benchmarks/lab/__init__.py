"""What only the authors of the project run: studies, trials of the benchmark itself, and tools that make training data.

In the repository and under test, not in the wheel. README.md lists the tools.
"""
