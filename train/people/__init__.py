"""Photographs of real people without masks: who is where, silhouettes, parts that teachers agree on."""
