"""Files that start clusters (image, AWS, GCP, KubeRay, Slurm), a Grafana dashboard, and the spot watcher."""
