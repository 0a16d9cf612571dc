"""A cache for the answers of language models: equal requests call the model once.

cache = turnlog.cache.open("sqlite:///answers.db")            # also memory:// and redis://host
answer = cache.get_or_call(request, ask_the_model, scope=("acme", "alice"))
answer = await cache.aio.get_or_call(request, ask_the_model_awaitably, scope=("acme", "alice"))

It has nothing to do with a store's log, and nothing of turnlog uses it. Read `response_cache.py` first.
"""

from turnlog.cache.aio import AsyncResponseCache
from turnlog.cache.counting import CacheStats
from turnlog.cache.keys import key
from turnlog.cache.opening import open  # noqa: A004 - as turnlog.open
from turnlog.cache.response_cache import ResponseCache

__all__ = ["AsyncResponseCache", "CacheStats", "ResponseCache", "key", "open"]
