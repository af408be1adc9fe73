"""Models: the network IR and one reader per format."""
