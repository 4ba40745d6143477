"""Data sets: Parquet shards, the sampling order, ingest with Ray Data, and the commands that write data sets."""
