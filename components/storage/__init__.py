"""Where data lie: paths and S3 locations, versions of DVC, the hub of pretrained weights."""
