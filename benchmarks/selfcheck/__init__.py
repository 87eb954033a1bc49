"""The benchmark on trial: the harness's own cost, the runtime's own program beside it, verdicts repeated."""
