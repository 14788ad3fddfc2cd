"""The attention figure."""
