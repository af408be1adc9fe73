"""What deployment does to parameters: rounded to a format, or pruned."""
