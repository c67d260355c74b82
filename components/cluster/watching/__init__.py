"""Watching a training job: what it and its pods tell, how often they were started again, and by when they must end."""
