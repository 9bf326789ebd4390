"""Tables, exports and comparisons of finished records. Reads records; uses no config objects."""
