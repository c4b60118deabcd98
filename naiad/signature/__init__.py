"""What a model file says about itself: bytes are read, nothing is executed and no framework is imported."""
