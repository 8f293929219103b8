"""Each claim about speed as a program: `python -m benchmarks.<name>` makes its input, measures, checks its result.

The last line of the output is one JSON object; sizes are options. CPU seconds count this process and the database.
"""
