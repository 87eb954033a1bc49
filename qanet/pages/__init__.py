"""HTML pages that stand alone: one base template and style sheet, the SVG charts, and numbers as text."""
