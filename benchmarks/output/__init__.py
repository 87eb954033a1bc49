"""What was measured as a document, as files and as text."""
