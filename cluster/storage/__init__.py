"""Local disks and S3 buckets behind one interface; checkpoints in storage; a local S3 server."""
