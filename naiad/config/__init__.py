"""Model configuration: from config.pbtxt and model files to one checked, normalised, frozen class."""
