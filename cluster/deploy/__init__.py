"""Files that start clusters (image, AWS, GCP, KubeRay, Slurm), dashboards, and the spot watcher."""
