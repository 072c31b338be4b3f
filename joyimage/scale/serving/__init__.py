"""A server that others can call: OpenAI's protocol for pictures and chats, and what the model can do beside it.

One process takes requests, checks them and holds the queue; each card has a process of its own with the model.
"""
