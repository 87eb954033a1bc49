"""The live page of a run: pictures, numbers and people over HTTP."""
