"""What a person asks, turned into problems: options, tables and files in, problems out."""
