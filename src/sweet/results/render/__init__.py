"""Tables and charts as Markdown, HTML, SVG and PNG. Computes nothing: all numbers come from ``sweet.results``."""
