"""What finished records say: loading, tables, exports, statistics and comparisons. Reads records; knows no config objects."""
