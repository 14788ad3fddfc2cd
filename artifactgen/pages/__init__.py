"""What is drawn of a merged split: one file for each page."""
