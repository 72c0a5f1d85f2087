"""The answers to the published studies."""
