"""What benchmarks stand on: measuring, and made-up histories. Nothing here is a benchmark."""
