"""The demo: sends prompts to a real server at every budget, and shows what the cache saves and costs."""
