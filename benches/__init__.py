"""Load scenarios that run Naiad and the real Triton side by side and write what they measured."""
