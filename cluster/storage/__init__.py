"""Local disks and S3 buckets behind one interface; checkpoints; a local S3 server."""
