"""What is compared, what it works on, whether it may be timed, and the calls that are timed."""
