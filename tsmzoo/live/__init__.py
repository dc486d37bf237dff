"""Run a model over a video or a camera as the frames come."""
