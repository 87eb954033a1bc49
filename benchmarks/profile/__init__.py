"""Where the time goes: per layer and block inside an engine, per thread outside of it."""
