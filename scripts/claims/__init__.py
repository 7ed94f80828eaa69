"""What RESULTS.md says of the experiments that measure a claim, beyond their tables."""
