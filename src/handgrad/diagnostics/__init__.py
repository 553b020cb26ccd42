"""Diagnostics: plots, profiler, comparison with PyTorch, file inspection."""
