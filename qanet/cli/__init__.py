"""The command line: what every subcommand shares, and the two that need nothing but the core."""
