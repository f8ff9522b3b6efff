"""The engine of `run`: workers that send calls when they are due, and what gathers their figures.

A worker is a process with one epoll loop (`engine`) for one target. It knows nothing of files,
terminals or other workers; the parent (`run`) starts workers, adds up and judges.
"""
