"""The latest state of single entities, near at hand.

``protocol.Cache`` says what a cache promises; ``redis.RedisCache`` keeps it in Redis or
Valkey for all servers, ``memory.MemoryCache`` in one process. Losing it costs time, never truth.
"""

from realtime.cache.memory import MemoryCache
from realtime.cache.protocol import Cache, Cached, Clear, Forget, Put, Write
from realtime.cache.redis import RedisCache

__all__ = ["Cache", "Cached", "Clear", "Forget", "MemoryCache", "Put", "RedisCache", "Write"]
