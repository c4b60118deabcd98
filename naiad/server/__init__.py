"""The inference server's deciding half: options, repositories, loading, supervision. No request passes through it."""
