"""The platform: wanted state, the loop that makes it real, and the API in front."""
